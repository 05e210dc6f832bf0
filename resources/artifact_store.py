"""The home as a resource: inbox, artifacts and ledger. The shipped double is a home in a temporary folder."""

from functools import cached_property
from pathlib import Path

import dagster as dg
from pydantic import Field

from dpo_pipeline.core.home import Home


class ArtifactHome(dg.ConfigurableResource):
    """Where drops arrive and artifacts and ledger lie."""

    folder: str = Field(
        default="home",
        description="The folder under which everything mutable lies.",
    )

    inbox: str = Field(
        default="",
        description="Where drops arrive: a path or an fsspec URL such as s3://bucket/inbox; empty: inbox/ in the home.",
    )

    pages: str = Field(
        default="http://127.0.0.1:3001", description="Where `make ui` serves the reports; used for links only."
    )

    @cached_property
    def home(self) -> Home:
        """The home in that folder."""
        return Home(Path(self.folder), self.inbox)
