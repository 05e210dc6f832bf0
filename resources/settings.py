"""Which profile a run uses, and what the launchpad lays over it."""

from functools import cached_property
from typing import Any

import dagster as dg
from pydantic import Field

from dpo_pipeline.profiles import Profile, load_profile


class PipelineSettings(dg.ConfigurableResource):
    """The settings of every stage, read from one profile."""

    profile: str = Field(
        default="demo",
        description="Bundled profile by name (demo, hh-smoke, llama-3.1-8b-lora-24gb) or the path of a YAML file.",
    )
    overrides: dict[str, Any] = Field(
        default={},
        description='Values laid over the profile for this run, nested like it: {"dpo": {"beta": 0.2}}.',
    )

    @cached_property
    def values(self) -> Profile:
        """The resolved profile.

        Raises:
            SettingsError: Naming every value that does not fit.
        """
        return load_profile(self.profile, overrides=self.overrides)
