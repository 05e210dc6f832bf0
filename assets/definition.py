"""What `tracked` knows of each asset: what it makes, from what, with which settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from assets.step import Step
from dpo_pipeline.core.artifacts import Artifact, Outcome, Recipe
from dpo_pipeline.core.home import Home
from dpo_pipeline.profiles import Profile
from resources.mlflow_tracking import Tracking

AlsoReads = Callable[[Home, Profile], Mapping[str, Artifact]]
AlsoShaped = Callable[[Home, Recipe], Mapping[str, Any]]
ProfileOf = Callable[[Profile, str], Profile]
Settle = Callable[[Step, Artifact, Tracking], None]


@dataclass(frozen=True, slots=True)
class Made:
    """One asset a tracked function makes.

    Attributes:
        name: The asset's name; also the kind of its artifacts.
        description: What it is, for the UI.
        kinds: Dagster's kind tags.
        table: The Parquet file shown in the UI, if it is a table.
    """

    name: str
    description: str
    kinds: frozenset[str] = frozenset()
    table: str | None = None


@dataclass(frozen=True, slots=True)
class Definition:
    """What `tracked` knows of a function: what it makes, reads and depends on."""

    made: tuple[Made, ...]
    stage: str
    code_version: str
    reads: tuple[str, ...]
    also_reads: AlsoReads | None
    settings: tuple[str, ...]
    also_shaped: AlsoShaped | None
    by_drop: bool
    profile_of: ProfileOf | None
    takes_config: bool
    settle: Settle | None
    reusable: bool
    body: Callable[[Step], Outcome | Mapping[str, Outcome]]
    judge: Callable[[Mapping[str, Artifact]], Sequence[dg.AssetCheckResult]] | None


DEFINITIONS: dict[str, Definition] = {}
