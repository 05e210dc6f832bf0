"""The one way to define an asset: a function from a `Step` to an `Outcome`, every attempt at which is recorded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from assets.definition import DEFINITIONS, AlsoReads, AlsoShaped, Definition, Made, ProfileOf, Settle
from assets.perform import perform
from assets.step import Step
from dpo_pipeline.core.artifacts import Artifact, Outcome
from resources.artifact_store import ArtifactHome
from resources.gpu import POOL, Gpu
from resources.settings import PipelineSettings
from resources.tracking import Tracking

DROPS_NAME = "drops"
DROPS = dg.DynamicPartitionsDefinition(name=DROPS_NAME)
OWNERS = ["team:alignment"]
STAGES = ("annotations", "preferences", "sft", "dpo", "evaluation", "release", "sweeps")
TRACKED: list[dg.AssetsDefinition] = []


@dataclass(frozen=True, slots=True)
class Points:
    """Partitions each of which has a profile of its own, such as the points of a sweep."""

    partitions: dg.PartitionsDefinition
    profile_of: ProfileOf


def group_of(stage: str) -> str:
    """The group an asset is shown in: numbered in the order of the data, since the UI sorts groups by name."""
    return f"{STAGES.index(stage) + 1}_{stage}" if stage in STAGES else stage


def assert_all_tracked(assets: Sequence[dg.AssetsDefinition]) -> None:
    """Refuse, when the code location is loaded, whatever was not made by `tracked`.

    Raises:
        TypeError: Naming each asset that would be materialized without an attempt in the ledger.
    """
    strangers = [
        key.to_user_string() for item in assets if not any(item is made for made in TRACKED) for key in item.keys
    ]
    if strangers:
        raise TypeError(
            f"not made by `tracked`: {', '.join(strangers)}. Define them with @tracked, so that they are recorded"
        )


def tracked(  # noqa: PLR0913 - one keyword per column of the asset table
    *made: Made,
    stage: str,
    code_version: str,
    reads: Sequence[str] = (),
    after: Sequence[str] = (),
    also_reads: AlsoReads | None = None,
    settings: Sequence[str] = (),
    also_shaped: AlsoShaped | None = None,
    by_drop: bool = False,
    points: Points | None = None,
    config: type[dg.Config] | None = None,
    settle: Settle | None = None,
    reusable: bool = True,
    on_gpu: bool = False,
    checks: Sequence[dg.AssetCheckSpec] = (),
    judge: Callable[[Mapping[str, Artifact]], Sequence[dg.AssetCheckResult]] | None = None,
    automation_condition: dg.AutomationCondition | None = None,
) -> Callable[[Callable[[Step], Outcome | Mapping[str, Outcome]]], dg.AssetsDefinition]:
    """Turn a function from a `Step` to an `Outcome` into Dagster assets whose every attempt is recorded.

    Args:
        made: The assets it makes; with several, the function returns an outcome for each name.
        stage: Name of the room, shown as the asset group.
        code_version: The room's CODE_VERSION; raising it makes everything downstream stale.
        reads: Assets it reads. A partitioned one is read for this drop, or for all drops if this is unpartitioned.
        after: Assets that come first although none of their files is read; they do not shape the recipe.
        also_reads: Asked, with the profile, when the attempt begins for further inputs by role, such as today's
            champion: artifacts that are no Dagster dependency, yet pinned, re-hashed and part of the recipe like every
            other. May be none.
        settings: Sections of the profile it uses; with the drop they shape the recipe.
        also_shaped: Asked when the attempt begins, with the recipe so far, for what else of the home shapes it, such as
            who withdrew; stands in the recipe and in the step's `shaped`.
        by_drop: Whether it is partitioned by drop.
        points: Partitions that are no drops, and the profile that holds in each of them.
        config: What a person may say when materializing it; stands in the recipe and in the step's `shaped` as `said`.
        settle: What follows from the artifact once the ledger has it, made or reused; must be safe to repeat.
        reusable: Whether an artifact made earlier from an equal recipe may be taken over.
        on_gpu: Whether it needs the device; such assets never run two at a time.
        checks: Asset checks judged in the same step.
        judge: From the artifacts made to the results of `checks`.
        automation_condition: When Dagster requests it by itself, once automation is switched on.
    """

    def decorate(body: Callable[[Step], Outcome | Mapping[str, Outcome]]) -> dg.AssetsDefinition:
        definition = Definition(
            made=made,
            stage=stage,
            code_version=code_version,
            reads=tuple(reads),
            also_reads=also_reads,
            settings=tuple(settings),
            also_shaped=also_shaped,
            by_drop=by_drop,
            profile_of=points.profile_of if points else None,
            takes_config=config is not None,
            settle=settle,
            reusable=reusable,
            body=body,
            judge=judge,
        )
        DEFINITIONS.update({item.name: definition for item in made})
        specs = [
            dg.AssetSpec(
                item.name,
                deps=[*reads, *after],
                description=item.description,
                kinds=set(item.kinds),
                group_name=group_of(stage),
                owners=OWNERS,
                code_version=code_version,
                automation_condition=automation_condition,
            )
            for item in made
        ]

        @dg.multi_asset(
            name=body.__name__,
            specs=specs,
            partitions_def=DROPS if by_drop else points.partitions if points else None,
            config_schema=config.to_fields_dict() if config else None,
            check_specs=list(checks),
            pool=POOL if on_gpu else None,
            retry_policy=dg.RetryPolicy(max_retries=1, delay=2) if on_gpu else None,
        )
        def materialize(
            context: dg.AssetExecutionContext,
            settings: PipelineSettings,
            home: ArtifactHome,
            tracking: Tracking,
            gpu: Gpu,
        ) -> Iterator[dg.MaterializeResult]:
            yield from perform(definition, context, settings, home, tracking, gpu)

        TRACKED.append(materialize)
        return materialize

    return decorate
