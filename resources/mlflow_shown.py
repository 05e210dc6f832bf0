"""What MLflow is to show of an attempt, from the ledger's lines alone: written once, and compared with ever after.

Everything is made fit for MLflow here, in the open: it refuses some names, and would cut long values silently.
Limits: `mlflow.utils.validation` (keys 250 characters, params 6,000, tags 8,000, dataset digests 36).
"""

import json
import math
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.digests import digest_of_json, short

STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
LONGEST_NAME, LONGEST_PARAM, LONGEST_TAG = 250, 6_000, 8_000
DIGEST_CHARACTERS = 32  # of a dataset's digest MLflow takes at most 36; the whole one goes into a tag


@dataclass(frozen=True, slots=True)
class Opening:
    """What a run says from its start on.

    Attributes:
        started: Milliseconds since 1970, as in the ledger.
        tags: Who, what and with which code.
        params: Settings, flattened: `dpo.optimizer.learning_rate`.
        inputs: The full digest of each input by its role.
        kinds: The kind of each input by its role.
    """

    started: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    inputs: Mapping[str, str]
    kinds: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Closing:
    """What a run says when it has ended.

    Attributes:
        ended: Milliseconds since 1970, as in the ledger.
        status: FINISHED, FAILED or KILLED.
        tags: Digest and kind of what was made, or the reason why nothing was; notes of the work.
        metrics: Counts, numeric facts and remarks.
        curves: The last value of each number that was followed step by step.
    """

    ended: int
    status: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    curves: Mapping[str, float]


def opening_of(start: Mapping[str, Any]) -> Opening:
    """What MLflow shows of an attempt that has begun.

    Args:
        start: The ledger's `started` line.
    """
    asset, partition = start["asset"], start["partition"]
    tags = {
        "mlflow.runName": asset if partition is None else f"{asset} {partition}",
        "attempt": start["attempt"],
        "dagster.run": start["dagster_run"],
        "dagster.asset": asset,
        "dagster.partition": partition or "",
        "profile": start["profile"],
        "recipe": start["recipe"] or "",
        "code_version": start["code_version"],
        **{f"code.{name}": value for name, value in _flat(start["code"]) if value is not None},
        **{f"environment.{name}": value for name, value in _flat(start.get("environment") or {}) if value is not None},
    }
    return Opening(
        started=milliseconds(start["time"]),
        tags=_fit(tags, LONGEST_TAG),
        params=_fit(dict(_flat(start["settings"])), LONGEST_PARAM),
        inputs={parent["role"]: parent["digest"] for parent in start["parents"]},
        kinds={parent["role"]: parent["kind"] for parent in start["parents"]},
    )


def closing_of(end: Mapping[str, Any], artifact: Artifact | None) -> Closing:
    """What MLflow shows of an attempt that has ended.

    Args:
        end: The ledger's `finished`, `failed` or `killed` line.
        artifact: What was made; None where nothing was, or where it is gone.
    """
    made = {"artifact.digest": end["artifact"], "artifact.kind": end["asset"]} if "artifact" in end else {}
    failure = {"failure": end["reason"]} if "reason" in end else {}
    notes = {f"noted.{name}": value for name, value in (end.get("noted") or {}).items()}
    curves = {name_for_mlflow(name): curve["value"] for name, curve in (end.get("curves") or {}).items()}
    told = {**artifact.counts, **_numeric(artifact.facts)} if artifact else {}
    numbers = {name_for_mlflow(name): float(value) for name, value in {**told, **_numeric(end.get("remarks"))}.items()}
    return Closing(
        ended=milliseconds(end["time"]),
        status=STATUS[end["event"]],
        tags=_fit({**made, **failure, **notes}, LONGEST_TAG),
        metrics={name: value for name, value in numbers.items() if name not in curves},
        curves=curves,
    )


def milliseconds(time: str) -> int:
    """A ledger line's time as MLflow counts it."""
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def name_for_mlflow(name: str) -> str:
    """A name MLflow takes: letters, digits and `_-. /`, no path that leads elsewhere, at most 250 characters.

    >>> name_for_mlflow("rewards/margin"), name_for_mlflow("a//b:c"), len(name_for_mlflow("x" * 300))
    ('rewards/margin', 'a/_/b_c', 250)
    """
    allowed = "".join(character if character.isalnum() or character in "_-./ " else "_" for character in name)
    parts = [part if part not in {"", ".", ".."} else "_" for part in allowed.split("/")]
    name = "/".join(parts)
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 13]}~{short(digest_of_json(name))}".replace("~", "_")
    assert posixpath.normpath(name) == name
    return name


def fit(value: Any, longest: int) -> str:
    """A value as text MLflow takes; one that is too long says so, and its whole can be told by its digest.

    >>> fit("x" * 9000, 8000)[-87:-64]
    '000 characters, sha256 '
    """
    text = value if isinstance(value, str) else json.dumps(value) if isinstance(value, list | dict) else str(value)
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    if len(text) <= longest:
        return text
    mark = f" ... in all {len(text)} characters, sha256 {digest_of_json(text)}"
    return text[: longest - len(mark)] + mark


def _fit(values: Mapping[str, Any], longest: int) -> dict[str, str]:
    """Names and values made fit; a name that becomes another's is told apart by its digest."""
    fitted: dict[str, str] = {}
    for name, value in values.items():
        clean = name_for_mlflow(name)
        if clean in fitted:
            clean = f"{clean[:237]}_{short(digest_of_json(name))}"
        fitted[clean] = fit(value, longest)
    return fitted


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _numeric(values: Mapping[str, Any] | None) -> dict[str, float]:
    found = (values or {}).items()
    return {name: value for name, value in found if isinstance(value, int | float) and math.isfinite(value)}
