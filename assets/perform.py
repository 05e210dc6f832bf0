"""One attempt from start to end: pin and re-hash inputs, reuse or make, publish, close ledger and tracking.

The order is the promise: ledger `started` -> tracking run -> work -> publish -> ledger `finished` -> tracking closed ->
what follows from it (`settle`) -> Dagster's event. A crash between any two leaves a state the ledger explains.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import dagster as dg

from assets.attempt import Attempt, refuse
from assets.definition import Definition
from assets.inputs import pin_inputs, recipe_of
from assets.step import Step
from dpo_pipeline.core.artifacts import Artifact, Outcome
from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.core.home import Home
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.settings import PipelineSettings
from resources.tracking import Tracking


def perform(
    definition: Definition,
    context: dg.AssetExecutionContext,
    settings: PipelineSettings,
    where: ArtifactHome,
    tracking: Tracking,
    gpu: Gpu,
) -> Iterator[dg.MaterializeResult]:
    """Make what a definition makes, once; every way it can end is in the ledger before Dagster hears of it."""
    home = where.home
    partition = context.partition_key if definition.by_drop or definition.profile_of else None
    known = {"profile": settings.profile, "tracking": tracking}
    try:
        profile = definition.profile_of(settings.values, partition or "") if definition.profile_of else settings.values
        drop = partition if definition.by_drop else None
        inputs = pin_inputs(definition, home, profile, drop, name=settings.profile)
        step = Step(context, profile, home, gpu, partition, inputs)
        step.shaped = _also_shaped(definition, step)
    except PipelineError as error:
        refuse(definition, context, home, partition, reason=str(error), **known)
        raise dg.Failure(description=str(error), allow_retries=False) from error
    except BaseException as error:
        killed, reason = not isinstance(error, Exception), f"{type(error).__name__}: {error}"
        refuse(definition, context, home, partition, reason=reason, killed=killed, **known)
        raise
    attempts = [Attempt.begin(item, definition, step, settings.profile, tracking) for item in definition.made]
    started = time.monotonic()
    try:
        for attempt in attempts:
            attempt.track()
        artifacts, remarks = _reused(definition, home, attempts) or _made(definition, step, attempts)
        for attempt in attempts:
            attempt.finish(artifacts[attempt.made.name], remarks[attempt.made.name], time.monotonic() - started)
            if definition.settle:
                definition.settle(step, artifacts[attempt.made.name], tracking)
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


def _also_shaped(definition: Definition, step: Step) -> Mapping[str, Any]:
    """What shapes the recipe beside profile and inputs: a person's word in the run's config, the state of the home."""
    said = {"said": dict(step.context.op_execution_context.op_config)} if definition.takes_config else {}
    if definition.also_shaped is None:
        return said
    return said | dict(definition.also_shaped(step.home, recipe_of(definition.made[0], definition, step)))


def _reused(
    definition: Definition, home: Home, attempts: Sequence[Attempt]
) -> tuple[dict[str, Artifact], dict[str, Mapping[str, Any]]] | None:
    """What equal recipes gave before, if all of it is there and unaltered."""
    found = {attempt.made.name: home.store.find(attempt.recipe) for attempt in attempts} if definition.reusable else {}
    artifacts = {name: artifact for name, artifact in found.items() if artifact and not artifact.verify()}
    if len(artifacts) < len(attempts):
        return None
    return artifacts, {name: {"reused": True} for name in artifacts}


def _made(
    definition: Definition, step: Step, attempts: Sequence[Attempt]
) -> tuple[dict[str, Artifact], dict[str, Mapping[str, Any]]]:
    """Run the body and publish what it wrote."""
    store = step.home.store
    with ExitStack() as stack:
        step.out = {attempt.made.name: stack.enter_context(store.staging()) for attempt in attempts}
        step.work = step.home.work_folder(attempts[0].recipe)
        step.work.mkdir(parents=True, exist_ok=True)
        step.spool = attempts[0].spool
        if attempts[0].run is not None:
            stack.enter_context(attempts[0].run.following())
        answer = definition.body(step)
        outcomes = {attempts[0].made.name: answer} if isinstance(answer, Outcome) else answer
        artifacts = {
            attempt.made.name: store.publish(step.out[attempt.made.name], attempt.recipe, outcomes[attempt.made.name])
            for attempt in attempts
        }
    shutil.rmtree(step.work, ignore_errors=True)  # what a retry could resume from is no longer needed
    return artifacts, {name: outcome.remarks for name, outcome in outcomes.items()}


def _close(attempts: Sequence[Attempt], reason: str, *, killed: bool) -> None:
    for attempt in attempts:
        if attempt.is_open:
            attempt.fail(reason, killed=killed)
