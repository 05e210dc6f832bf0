"""Two witnesses beside the ledger: what MLflow and Dagster say of each attempt, compared field by field.

The library knows neither. Views are found by the entry-point group `dpo_pipeline.views`; one that is away makes the
check say so, and is never a pass.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.chain import Node
from dpo_pipeline.lineage.checks import Check

VIEWS = "dpo_pipeline.views"
RECONCILER = "dpo_pipeline.reconciler"
DONE = "FINISHED"


@dataclass(frozen=True, slots=True)
class Record:
    """What a view shows of one attempt.

    Attributes:
        attempt: The attempt's key; None where the view names none, as of a forged materialization.
        asset: The asset's name.
        partition: The drop, for partitioned assets.
        digest: Digest of the artifact it made; None while it is not done.
        status: FINISHED, FAILED, KILLED, RUNNING or DELETED.
        recipe: The recipe's digest; None where the view does not show it.
        where: The run or event, as a person would look it up.
        differs: What else it says that the ledger does not: the field, the view's value, the ledger's.
    """

    attempt: str | None
    asset: str
    partition: str | None
    digest: str | None
    status: str
    recipe: str | None
    where: str
    differs: tuple[tuple[str, str, str], ...] = ()


class View(Protocol):
    """Something that shows attempts."""

    name: str

    def records(self, home: Home) -> Iterable[Record]:
        """Every record it has of a home's attempts.

        Raises:
            ViewAwayError: If it cannot be asked.
        """
        ...

    def faults(self, home: Home, digests: Collection[str]) -> Iterable[str]:
        """What else it says of these artifacts that the ledger does not, a sentence each.

        Raises:
            ViewAwayError: If it cannot be asked.
        """
        ...


class Marker(Protocol):
    """A view that can show a warning beside an attempt."""

    def mark(self, home: Home, marks: Mapping[str, str]) -> list[str]:
        """Show each attempt's sentence; what was newly shown. A view that is away says so and raises nothing."""
        ...


class ViewAwayError(PipelineError):
    """A view that cannot be asked now; the sentence says why."""


def installed_views() -> list[View]:
    """One of each view the installed packages offer."""
    return [entry.load()() for entry in sorted(entry_points(group=VIEWS), key=lambda entry: entry.name)]


def installed_reconciler() -> Callable[[Home], list[str]] | None:
    """What joins ledger and views again after a crash; None where no package offers it."""
    return next((entry.load() for entry in entry_points(group=RECONCILER)), None)


def check_views(home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether MLflow and Dagster say of a chain's attempts what the ledger says."""
    name = "ledger, Dagster and MLflow agree"
    try:
        views = installed_views()
    except ImportError as error:
        return Check(name, "no view", not_run=f"a view cannot be loaded: {error}")
    if not views:
        return Check(name, "no view", not_run=f"no package offers `{VIEWS}`; install dpo-pipeline (`pip install -e .`)")
    looked_at, faults, away = [], [], []
    for view in views:
        try:
            records = list(view.records(home))
            faults += view.faults(home, {node.artifact.digest for node in nodes.values()})
        except ViewAwayError as error:
            away.append(f"{view.name}: {error}")
            continue
        found, missing = compare(home, nodes, view.name, records)
        faults += found
        away += missing
        looked_at.append(f"{len(records):,} records of {view.name}")
    return Check(name, ", ".join(looked_at) or "no view", tuple(faults), "; ".join(away) or None)


def compare(home: Home, nodes: Mapping[str, Node], view: str, records: Sequence[Record]) -> tuple[list[str], list[str]]:
    """What one view says against the ledger: the faults, and what the view was never told."""
    attempts = _attempts(home)
    by_attempt: dict[str | None, list[Record]] = {}
    for record in records:
        by_attempt.setdefault(record.attempt, []).append(record)
    faults, untold = [], []
    assets = set()
    for node in nodes.values():
        assets.add(node.artifact.kind)
        if node.attempt is None or "attempt" not in node.attempt:
            continue
        told = by_attempt.get(node.attempt["attempt"], [])
        if not told and view == "MLflow" and node.attempt.get("tracking") is None:
            untold.append(f"{view} was never told of {node.attempt['attempt']}; `lineage reconcile` tells it")
        else:
            faults += _of_attempt(view, node.attempt, told)
    for record in records:
        if record.asset in assets and record.attempt not in attempts and record.status != "DELETED":
            faults.append(
                f"{view} shows {record.where} for {record.asset} with artifact {record.digest}; "
                f"the ledger has no attempt {record.attempt}"
            )
    return faults, untold


def _attempts(home: Home) -> dict[str, Mapping[str, Any]]:
    """The newest ledger line of each attempt."""
    return {line["attempt"]: line for line in home.ledger.lines() if "attempt" in line}


def _of_attempt(view: str, line: Mapping[str, Any], told: Sequence[Record]) -> Iterator[str]:
    key = line["attempt"]
    if not told:
        yield f"{view} shows nothing of {key}; the ledger says it finished with {line['artifact']}"
    if len(told) > 1:
        yield f"{view} shows {len(told)} records of {key} ({', '.join(item.where for item in told)}), the ledger one"
    for record in told:
        pairs = {
            "asset": (record.asset, line["asset"]),
            "partition": (record.partition, line["partition"]),
            "artifact": (record.digest, line["artifact"]),
            "status": (record.status, DONE),
            "recipe": (record.recipe, line.get("recipe") if record.recipe is not None else None),
        }
        for name, (found, expected) in pairs.items():
            if found != expected:
                yield f"{view} {record.where} says {name} {found}, the ledger says {expected} ({key})"
        for name, found, expected in record.differs:
            yield f"{view} {record.where} says {name} {found}, the ledger says {expected} ({key})"
