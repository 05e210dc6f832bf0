"""Which profile a run uses, and what the launchpad lays over it."""

from functools import cached_property
from typing import Any

import dagster as dg
from pydantic import Field

from dpo_pipeline.profiles import Profile, laid_over, load_profile
from resources.changes import changes_of

Changes = changes_of(Profile)


class PipelineSettings(dg.ConfigurableResource):
    """The settings of every stage, read from one profile."""

    profile: str = Field(
        default="demo",
        description="Bundled profile by name (demo, hh-smoke, llama-3.1-8b-lora-24gb) or the path of a YAML file.",
    )
    change: Changes = Field(  # pyright: ignore[reportInvalidTypeForm] - a class made at run time
        default=Changes(),
        description="Values of the profile to change for this run; what is absent here stays as the profile has it.",
    )
    overrides: dict[str, Any] = Field(
        default={},
        description="The same in free YAML, for what `change` cannot say, such as null: "
        '{"model": {"scratch": null, "path": "base"}}.',
    )

    @cached_property
    def values(self) -> Profile:
        """The resolved profile.

        Raises:
            SettingsError: Naming every value that does not fit.
        """
        changed = self.change.model_dump(exclude_none=True)
        return load_profile(self.profile, overrides=laid_over(self.overrides, changed))
