"""The one way to define an asset: open an attempt, pin and re-hash inputs, publish an artifact, record all of it.

The order is the promise: ledger `started` -> tracking run -> work -> publish -> ledger `finished` -> tracking closed ->
Dagster's event. A crash between any two leaves a state the ledger explains.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from assets.described import describe
from dpo_pipeline.core.artifacts import Artifact, Outcome, Parent, Recipe
from dpo_pipeline.core.environment import describe_code, describe_environment
from dpo_pipeline.core.errors import ArtifactError, PipelineError
from dpo_pipeline.core.home import Home
from dpo_pipeline.profiles import Profile
from resources.artifact_store import ArtifactHome
from resources.gpu import POOL, Gpu
from resources.mlflow_tracking import AttemptFacts, TrackedRun, Tracking
from resources.settings import PipelineSettings

DROPS_NAME = "drops"
DROPS = dg.DynamicPartitionsDefinition(name=DROPS_NAME)
OWNERS = ["team:alignment"]


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
    settings: tuple[str, ...]
    by_drop: bool
    reusable: bool
    body: Callable[["Step"], Outcome | Mapping[str, Outcome]]
    judge: Callable[[Mapping[str, Artifact]], Sequence[dg.AssetCheckResult]] | None


DEFINITIONS: dict[str, Definition] = {}
TRACKED: list[dg.AssetsDefinition] = []


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


@dataclass(slots=True)
class Step:
    """What an asset's body works with: pinned inputs, its own folders, the profile, the device."""

    context: dg.AssetExecutionContext
    profile: Profile
    home: Home
    gpu: Gpu
    drop: str | None
    inputs: Mapping[str, Sequence[tuple[str | None, Artifact]]]
    out: Mapping[str, Path] = field(default_factory=dict)
    work: Path = Path()

    @property
    def metrics_path(self) -> Path:
        """The file the numbers of each step are appended to while the work runs."""
        return self.work / "progress.jsonl"

    def folder(self, name: str | None = None) -> Path:
        """The folder to write into; the only one, or that of the asset named."""
        return self.out[name] if name else next(iter(self.out.values()))

    def read(self, asset: str) -> Path:
        """The folder of an input that is not partitioned, or of this drop."""
        return self.inputs[asset][0][1].path

    def read_all(self, asset: str) -> list[Path]:
        """The folders of an input, one per drop, in order of arrival."""
        return [artifact.path for _, artifact in self.inputs[asset]]

    def perform(self, function: str, **arguments: Any) -> Outcome:
        """Call a library function on the device; see `Gpu.perform`."""
        return self.gpu.perform(self.context, function, metrics=self.metrics_path, **arguments)

    def say(self, sentence: str) -> None:
        """A line in the run's log; with `metrics` this makes a step a `Reporter`."""
        self.context.log.info(sentence)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step, for the tracking run."""
        from dpo_pipeline.core.metrics import append_metrics

        append_metrics(self.metrics_path, step, {**values, "time": time.time()})


def tracked(  # noqa: PLR0913 - one keyword per column of the asset table
    *made: Made,
    stage: str,
    code_version: str,
    reads: Sequence[str] = (),
    settings: Sequence[str] = (),
    by_drop: bool = False,
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
        settings: Sections of the profile it uses; they and nothing else shape the recipe.
        by_drop: Whether it is partitioned by drop.
        reusable: Whether an artifact made earlier from an equal recipe may be taken over.
        on_gpu: Whether it needs the device; such assets never run two at a time.
        checks: Asset checks judged in the same step.
        judge: From the artifacts made to the results of `checks`.
        automation_condition: When Dagster requests it by itself, once automation is switched on.
    """

    def decorate(body: Callable[[Step], Outcome | Mapping[str, Outcome]]) -> dg.AssetsDefinition:
        definition = Definition(
            made, stage, code_version, tuple(reads), tuple(settings), by_drop, reusable, body, judge
        )
        DEFINITIONS.update({item.name: definition for item in made})
        specs = [
            dg.AssetSpec(
                item.name,
                deps=list(reads),
                description=item.description,
                kinds=set(item.kinds),
                group_name=stage,
                owners=OWNERS,
                code_version=code_version,
                automation_condition=automation_condition,
            )
            for item in made
        ]

        @dg.multi_asset(
            name=body.__name__,
            specs=specs,
            partitions_def=DROPS if by_drop else None,
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
            yield from _attempt(definition, context, settings, home, tracking, gpu)

        TRACKED.append(materialize)
        return materialize

    return decorate


def _attempt(
    definition: Definition,
    context: dg.AssetExecutionContext,
    settings: PipelineSettings,
    where: ArtifactHome,
    tracking: Tracking,
    gpu: Gpu,
) -> Iterator[dg.MaterializeResult]:
    home = where.home
    drop = context.partition_key if definition.by_drop else None
    try:
        step = Step(context, settings.values, home, gpu, drop, _pinned(definition, home, drop))
    except PipelineError as error:
        _refuse(definition, context, home, drop, settings.profile, str(error))
        raise dg.Failure(description=str(error), allow_retries=False) from error
    attempts = [_Attempt.begin(item, definition, step, settings.profile, tracking) for item in definition.made]
    started = time.monotonic()
    try:
        artifacts, remarks = _reused(definition, home, attempts) or _made(definition, step, attempts)
        for attempt in attempts:
            attempt.finish(artifacts[attempt.made.name], remarks[attempt.made.name], time.monotonic() - started)
    except dg.DagsterExecutionInterruptedError as error:
        _close(attempts, "terminated by a person or by Dagster", killed=True)
        raise dg.Failure(description="Terminated. Work done so far resumes next time.", allow_retries=False) from error
    except PipelineError as error:
        _close(attempts, str(error), killed=False)
        raise dg.Failure(description=str(error), allow_retries=False) from error
    except BaseException as error:
        _close(attempts, f"{type(error).__name__}: {error}", killed=not isinstance(error, Exception))
        raise
    results = list(definition.judge(artifacts)) if definition.judge else []
    for attempt in attempts:
        artifact = artifacts[attempt.made.name]
        yield dg.MaterializeResult(
            asset_key=attempt.made.name,
            data_version=dg.DataVersion(artifact.digest),
            metadata=attempt.metadata(artifact, remarks[attempt.made.name], where.pages),
            check_results=[result for result in results if result.asset_key == dg.AssetKey(attempt.made.name)],
        )


@dataclass(slots=True)
class _Attempt:
    """One attempt at one asset: its ledger lines and its tracking run."""

    key: str
    made: Made
    recipe: Recipe
    step: Step
    run: TrackedRun
    is_open: bool = True

    @classmethod
    def begin(cls, made: Made, definition: Definition, step: Step, profile: str, tracking: Tracking) -> "_Attempt":
        recipe = _recipe(made, definition, step)
        key = _key(step.context, made, step.drop)
        code = describe_code()
        step.home.ledger.append(
            "started",
            attempt=key,
            asset=made.name,
            partition=step.drop,
            dagster_run=step.context.run.run_id,
            profile=profile,
            recipe=recipe.digest,
            settings=dict(recipe.settings),
            code_version=recipe.code_version,
            parents=[{"role": parent.role, "kind": parent.kind, "digest": parent.digest} for parent in recipe.parents],
            code=code,
            environment=describe_environment(),
            process=_process(),
        )
        facts = AttemptFacts(key, made.name, step.drop, step.context.run.run_id, profile, recipe, code)
        run = tracking.begin(facts, folder=step.home.mlflow, warn=step.context.log.warning)
        return cls(key, made, recipe, step, run)

    def finish(self, artifact: Artifact, remarks: Mapping[str, Any], seconds: float) -> None:
        remarks = {**remarks, "seconds": round(seconds, 3)}
        self._close("finished", artifact=artifact.digest, remarks=remarks, tracking=self.run.url)
        self.run.finish(artifact, remarks=remarks)

    def fail(self, reason: str, *, killed: bool) -> None:
        self._close("killed" if killed else "failed", reason=reason, tracking=self.run.url)
        self.run.fail(reason, killed=killed)

    def metadata(self, artifact: Artifact, remarks: Mapping[str, Any], pages: str) -> dict[str, Any]:
        found = describe(artifact, table=self.made.table, pages=pages)
        found.update({name.replace("_", " "): value for name, value in remarks.items() if not isinstance(value, dict)})
        found["attempt"] = self.key
        if self.run.url:
            found["MLflow run"] = dg.MetadataValue.url(self.run.url)
        return found

    def _close(self, event: str, **fields: Any) -> None:
        self.is_open = False
        self.step.home.ledger.append(
            event, attempt=self.key, asset=self.made.name, partition=self.step.drop, recipe=self.recipe.digest, **fields
        )


def _key(context: dg.AssetExecutionContext, made: Made, drop: str | None) -> str:
    return "/".join([context.run.run_id, made.name, drop or "-", str(context.retry_number)])


def _refuse(
    definition: Definition,
    context: dg.AssetExecutionContext,
    home: Home,
    drop: str | None,
    profile: str,
    reason: str,
) -> None:
    """Book an attempt that ended before it had a recipe: a profile that does not fit, an input that was altered."""
    for made in definition.made:
        same = {"attempt": _key(context, made, drop), "asset": made.name, "partition": drop, "recipe": None}
        home.ledger.append(
            "started",
            **same,
            dagster_run=context.run.run_id,
            profile=profile,
            settings={},
            code_version=definition.code_version,
            parents=[],
            code=describe_code(),
            environment=describe_environment(),
            process=_process(),
        )
        home.ledger.append("failed", **same, reason=reason, tracking=None)


def _pinned(
    definition: Definition, home: Home, drop: str | None
) -> Mapping[str, Sequence[tuple[str | None, Artifact]]]:
    """The newest artifact of each input by the ledger (never by Dagster's events), every file re-hashed."""
    pinned: dict[str, Sequence[tuple[str | None, Artifact]]] = {}
    for asset in definition.reads:
        if not DEFINITIONS[asset].by_drop:
            drops: Sequence[str | None] = [None]
        elif definition.by_drop:
            drops = [drop]
        else:
            drops = home.partitions(asset)
        pinned[asset] = [(name, home.latest(asset, name)) for name in drops]
        for _, artifact in pinned[asset]:
            if faults := artifact.verify():
                raise ArtifactError(
                    f"an input of {definition.made[0].name} is not what was published: {'; '.join(faults)}",
                    expected=f"the files of {asset} {artifact.digest} as its manifest lists them",
                    do=f"Restore them from a backup, or materialize {asset} again; nothing was made from them",
                )
    return pinned


def _recipe(made: Made, definition: Definition, step: Step) -> Recipe:
    settings = {name: getattr(step.profile, name).model_dump(mode="json") for name in definition.settings}
    if step.drop is not None:
        settings["drop"] = step.drop
    parents = tuple(
        Parent(asset if drop is None else f"{asset}/{drop}", asset, artifact.digest)
        for asset, found in step.inputs.items()
        for drop, artifact in found
    )
    return Recipe(made.name, definition.code_version, settings, parents)


def _reused(
    definition: Definition, home: Home, attempts: Sequence[_Attempt]
) -> tuple[dict[str, Artifact], dict[str, Mapping[str, Any]]] | None:
    """What equal recipes gave before, if all of it is there and unaltered."""
    found = {attempt.made.name: home.store.find(attempt.recipe) for attempt in attempts} if definition.reusable else {}
    artifacts = {name: artifact for name, artifact in found.items() if artifact and not artifact.verify()}
    if len(artifacts) < len(attempts):
        return None
    return artifacts, {name: {"reused": True} for name in artifacts}


def _made(
    definition: Definition, step: Step, attempts: Sequence[_Attempt]
) -> tuple[dict[str, Artifact], dict[str, Mapping[str, Any]]]:
    """Run the body and publish what it wrote."""
    store = step.home.store
    with ExitStack() as stack:
        step.out = {attempt.made.name: stack.enter_context(store.staging()) for attempt in attempts}
        step.work = step.home.work_folder(attempts[0].recipe)
        step.work.mkdir(parents=True, exist_ok=True)
        stack.enter_context(attempts[0].run.following(step.metrics_path))
        answer = definition.body(step)
        outcomes = {attempts[0].made.name: answer} if isinstance(answer, Outcome) else answer
        artifacts = {
            attempt.made.name: store.publish(step.out[attempt.made.name], attempt.recipe, outcomes[attempt.made.name])
            for attempt in attempts
        }
    _remove(step.work)
    return artifacts, {name: outcome.remarks for name, outcome in outcomes.items()}


def _close(attempts: Sequence[_Attempt], reason: str, *, killed: bool) -> None:
    for attempt in attempts:
        if attempt.is_open:
            attempt.fail(reason, killed=killed)


def _remove(folder: Path) -> None:
    """Clear the work folder once its result is published; what a retry could resume from is no longer needed."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _process() -> dict[str, Any]:
    """Enough to tell later whether the process that opened an attempt still lives, also after a restart."""
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    return {
        "boot_id": boot_id.read_text(encoding="ascii").strip() if boot_id.exists() else None,
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }
