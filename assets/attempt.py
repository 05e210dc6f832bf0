"""One attempt at one asset: its lines in the ledger and its tracking run, opened before the work, closed after it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from assets.definition import Definition, Made
from assets.described import describe, describe_remarks, describe_versions
from assets.inputs import recipe_of
from assets.step import Step
from dpo_pipeline.core.artifacts import Artifact, Recipe
from dpo_pipeline.core.environment import describe_code, describe_environment, keep_installed
from dpo_pipeline.core.home import Home
from resources.processes import this_process
from resources.spool import Spool
from resources.tracking import TrackedRun, Tracking


@dataclass(slots=True)
class Attempt:
    """One attempt, open until it is finished or failed."""

    made: Made
    recipe: Recipe
    step: Step
    start: Mapping[str, Any]
    tracking: Tracking
    run: TrackedRun | None = None
    is_open: bool = True

    @classmethod
    def begin(cls, made: Made, definition: Definition, step: Step, profile: str, tracking: Tracking) -> "Attempt":
        """Write the ledger's `started` line, with everything that is known before the work."""
        recipe = recipe_of(made, definition, step)
        parents = [{"role": parent.role, "kind": parent.kind, "digest": parent.digest} for parent in recipe.parents]
        start = _started(
            step.home,
            step.context,
            made,
            step.partition,
            profile=profile,
            recipe=recipe.digest,
            settings=dict(recipe.settings),
            seeds=dict(_seeds(recipe.settings)),
            code_version=recipe.code_version,
            parents=parents,
        )
        return cls(made, recipe, step, start, tracking)

    @property
    def spool(self) -> Spool:
        """Where the work leaves its numbers and notes."""
        return Spool.of(self.step.home, self.start["attempt"])

    def track(self) -> TrackedRun:
        """Open the tracking run.

        Raises:
            TrackingError: If the tracking server is away and the profile insists on it.
        """
        required = self.step.profile.tracking.when_away == "refuse"
        warn = self.step.context.log.warning
        self.run = self.tracking.begin(self.start, home=self.step.home, warn=warn, required=required)
        return self.run

    def finish(self, artifact: Artifact, remarks: Mapping[str, Any], seconds: float) -> None:
        """Write the ledger's `finished` line, then close the tracking run."""
        remarks = {**remarks, "seconds": round(seconds, 3)}
        books = artifact.books.as_dict() if artifact.books else None
        self._close("finished", artifact, artifact=artifact.digest, remarks=remarks, books=books)

    def fail(self, reason: str, *, killed: bool) -> None:
        """Write the ledger's `failed` or `killed` line, then close the tracking run."""
        self._close("killed" if killed else "failed", None, reason=_readable(reason))

    def metadata(self, artifact: Artifact, remarks: Mapping[str, Any], pages: str) -> dict[str, Any]:
        """What Dagster's UI shows of the materialization, with links to the lineage page and the tracking run."""
        tracked = {"MLflow run": dg.MetadataValue.url(self.run.url)} if self.run is not None and self.run.url else {}
        found = tracked | describe(artifact, table=self.made.table, pages=pages)
        found.update(describe_remarks(remarks))
        if self.made.name == "raw_annotations" and self.step.partition is not None:
            found["versions"] = describe_versions(self.step.home, self.step.partition)
        return found | {"attempt": self.start["attempt"]}

    def _close(self, event: str, made: Artifact | None, **fields: Any) -> None:
        self.is_open = False
        tracking = self.run.url if self.run else None
        line = end_line(self.step.home, self.start, event, tracking=tracking, **fields)
        if self.run is not None:
            self.run.end(line, made)


def end_line(home: Home, start: Mapping[str, Any], event: str, **fields: Any) -> Mapping[str, Any]:
    """Write the line that ends an attempt, with the notes and the last numbers its work left behind.

    Args:
        home: Where ledger and spool lie.
        start: The attempt's `started` line.
        event: `finished`, `failed` or `killed`.
        fields: What else is known.
    """
    spool = Spool.of(home, start["attempt"])
    same = {name: start[name] for name in ("attempt", "asset", "partition", "recipe")}
    return home.ledger.append(event, **same, noted=spool.notes(), curves=spool.curves(), **fields)


def refuse(
    definition: Definition,
    context: dg.AssetExecutionContext,
    home: Home,
    partition: str | None,
    *,
    profile: str,
    tracking: Tracking,
    reason: str,
    killed: bool = False,
) -> None:
    """Book an attempt that ended before it had a recipe: a profile that does not fit, an input that was altered."""
    event = "killed" if killed else "failed"
    unknown = {"recipe": None, "settings": {}, "seeds": {}, "parents": []}
    for made in definition.made:
        start = _started(
            home, context, made, partition, profile=profile, code_version=definition.code_version, **unknown
        )
        run = tracking.begin(start, home=home, warn=context.log.warning)
        run.end(end_line(home, start, event, reason=_readable(reason), tracking=run.url), None)


def _started(
    home: Home, context: dg.AssetExecutionContext, made: Made, partition: str | None, **known: Any
) -> Mapping[str, Any]:
    keep_installed(home.ledger.path.with_name("environments"))
    return home.ledger.append(
        "started",
        attempt="/".join([context.run.run_id, made.name, partition or "-", str(context.retry_number)]),
        asset=made.name,
        partition=partition,
        dagster_run=context.run.run_id,
        code=describe_code(),
        environment=describe_environment(),
        process=this_process(),
        **known,
    )


def _readable(reason: str) -> str:
    """A reason as UTF-8 holds it: it may quote a file name that is not UTF-8."""
    return reason.encode("utf-8", "backslashreplace").decode()


def _seeds(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, int]]:
    """Every setting called `seed`, by its place: `model.seed`."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _seeds(value, f"{prefix}{name}.")
        elif name == "seed":
            yield f"{prefix}{name}", value
