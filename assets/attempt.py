"""One attempt at one asset: its lines in the ledger and its tracking run, opened before the work, closed after it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from assets.definition import Definition, Made
from assets.described import describe, describe_remarks, describe_versions
from assets.inputs import recipe_of
from assets.processes import this_process
from assets.step import Step
from dpo_pipeline.core.artifacts import Artifact, Recipe
from dpo_pipeline.core.environment import describe_code, describe_environment
from dpo_pipeline.core.home import Home
from resources.mlflow_tracking import AttemptFacts, TrackedRun, Tracking


@dataclass(slots=True)
class Attempt:
    """One attempt at one asset: its ledger lines and its tracking run."""

    key: str
    made: Made
    recipe: Recipe
    step: Step
    run: TrackedRun
    is_open: bool = True

    @classmethod
    def begin(cls, made: Made, definition: Definition, step: Step, profile: str, tracking: Tracking) -> "Attempt":
        """Write the ledger's `started` line, then open the tracking run."""
        recipe = recipe_of(made, definition, step)
        key = _key(step.context, made, step.partition)
        code = describe_code()
        step.home.ledger.append(
            "started",
            attempt=key,
            asset=made.name,
            partition=step.partition,
            dagster_run=step.context.run.run_id,
            profile=profile,
            recipe=recipe.digest,
            settings=dict(recipe.settings),
            code_version=recipe.code_version,
            parents=[{"role": parent.role, "kind": parent.kind, "digest": parent.digest} for parent in recipe.parents],
            code=code,
            environment=describe_environment(),
            process=this_process(),
        )
        facts = AttemptFacts(key, made.name, step.partition, step.context.run.run_id, profile, recipe, code)
        run = tracking.begin(facts, folder=step.home.mlflow, warn=step.context.log.warning)
        return cls(key, made, recipe, step, run)

    def finish(self, artifact: Artifact, remarks: Mapping[str, Any], seconds: float) -> None:
        """Write the ledger's `finished` line, then close the tracking run."""
        remarks = {**remarks, "seconds": round(seconds, 3)}
        self._close("finished", artifact=artifact.digest, remarks=remarks, tracking=self.run.url)
        self.run.finish(artifact, remarks=remarks)

    def fail(self, reason: str, *, killed: bool) -> None:
        """Write the ledger's `failed` or `killed` line, then close the tracking run."""
        self._close("killed" if killed else "failed", reason=reason, tracking=self.run.url)
        self.run.fail(reason, killed=killed)

    def metadata(self, artifact: Artifact, remarks: Mapping[str, Any], pages: str) -> dict[str, Any]:
        """What Dagster's UI shows of the materialization, with links to the lineage page and the tracking run."""
        found = describe(artifact, table=self.made.table, pages=pages)
        found.update(describe_remarks(remarks))
        if self.made.name == "raw_annotations" and self.step.partition is not None:
            found["versions"] = describe_versions(self.step.home, self.step.partition)
        found["attempt"] = self.key
        if self.run.url:
            found["MLflow run"] = dg.MetadataValue.url(self.run.url)
        return found

    def _close(self, event: str, **fields: Any) -> None:
        self.is_open = False
        self.step.home.ledger.append(
            event,
            attempt=self.key,
            asset=self.made.name,
            partition=self.step.partition,
            recipe=self.recipe.digest,
            **fields,
        )


def refuse(
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
            process=this_process(),
        )
        home.ledger.append("failed", **same, reason=reason, tracking=None)


def _key(context: dg.AssetExecutionContext, made: Made, drop: str | None) -> str:
    return "/".join([context.run.run_id, made.name, drop or "-", str(context.retry_number)])
