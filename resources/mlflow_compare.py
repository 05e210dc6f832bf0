"""An MLflow run against the ledger, field by field: status, times, tags, params, inputs, last values of metrics."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.witnesses import Record
from resources.mlflow_shown import STATUS, closing_of, opening_of

NAMED_BY_RECORD = {"attempt", "dagster.asset", "dagster.partition", "recipe", "artifact.digest"}


@dataclass(frozen=True, slots=True)
class Told:
    """What the ledger says of one attempt: how it started, how it ended if it did."""

    start: Mapping[str, Any]
    end: Mapping[str, Any] | None


def attempts_of(home: Home) -> dict[str, Told]:
    """Every attempt of the ledger by its key, in order."""
    found: dict[str, Told] = {}
    for line in home.ledger.lines():
        key = line.get("attempt")
        if line["event"] == "started" and key is not None:
            found[key] = Told(line, None)
        elif line["event"] in STATUS and key in found:
            found[key] = Told(found[key].start, line)
    return found


def record_of(run: Any, home: Home, attempts: Mapping[str, Told]) -> Record:
    """What a run says, with every difference from the ledger that is not in the record's own fields."""
    tags, info = run.data.tags, run.info
    told = attempts.get(tags.get("attempt", ""))
    return Record(
        attempt=tags.get("attempt"),
        asset=tags.get("dagster.asset", ""),
        partition=tags.get("dagster.partition") or None,
        digest=tags.get("artifact.digest"),
        status="DELETED" if info.lifecycle_stage == "deleted" else info.status,
        recipe=tags.get("recipe") or None,
        where=f"run {info.run_id}",
        differs=() if told is None else tuple(_differences(run, home, told)),
    )


def artifact_of(home: Home, end: Mapping[str, Any]) -> Artifact | None:
    """What an attempt made; None where it made nothing or that is gone."""
    try:
        return home.store.get(end["asset"], end["artifact"]) if "artifact" in end else None
    except ArtifactError:
        return None


def _differences(run: Any, home: Home, told: Told) -> Iterator[tuple[str, str, str]]:
    opening = opening_of(told.start)
    yield from _unlike("start", run.info.start_time, opening.started)
    yield from _fields("params", run.data.params, opening.params)
    yield from _fields("tags", _only(run.data.tags, opening.tags), _without(opening.tags))
    inputs = {given.dataset.name: _sha256(given) for given in (run.inputs.dataset_inputs if run.inputs else [])}
    yield from _fields("inputs", inputs, opening.inputs)
    if told.end is None or run.info.status == "RUNNING":
        return
    artifact = artifact_of(home, told.end)
    closing = closing_of(told.end, artifact)
    yield from _unlike("end", run.info.end_time, closing.ended)
    yield from _fields("tags", _only(run.data.tags, closing.tags), _without(closing.tags))
    expected = {**closing.metrics, **closing.curves}
    is_all = "curves" in told.end and (artifact is not None or "artifact" not in told.end)
    yield from _fields("metrics", run.data.metrics if is_all else _only(run.data.metrics, expected), expected)


def _fields(kind: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name in sorted(found.keys() | expected.keys()):
        yield from _unlike(f"{kind} {name}", found.get(name), expected.get(name))


def _unlike(name: str, found: Any, expected: Any) -> Iterator[tuple[str, str, str]]:
    if found != expected:
        yield name, "nothing" if found is None else str(found), "nothing" if expected is None else str(expected)


def _only(values: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in _without(names) if name in values}


def _without(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in NAMED_BY_RECORD}


def _sha256(given: Any) -> str | None:
    return next((tag.value for tag in given.tags if tag.key == "sha256"), given.dataset.digest)
