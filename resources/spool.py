"""An attempt's numbers and notes on disk, until MLflow has confirmed that it holds them.

One file per attempt under `<home>/mlflow/spool/`, appended to by whoever does the work, read by the attempt that
follows it and, after a crash or while MLflow is away, by the reconciler. A line is `{"step", "time", name: value}` or
`{"note", "time"}`; every line carries the time at which it was measured, so that it can be sent later as it was, and
sent twice without doubling (MLflow keeps one point per run, name, step, time and value).
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_pipeline.core.home import Home


@dataclass(frozen=True, slots=True)
class Point:
    """One measured number."""

    name: str
    step: int
    milliseconds: int
    value: float


class Spool:
    """The numbers and notes of one attempt.

    Args:
        path: The file; made when first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, home: Home, attempt: str) -> "Spool":
        """The spool of an attempt by its key; the key's slashes become tildes, which no part of it contains."""
        return cls(home.mlflow / "spool" / f"{attempt.replace('/', '~')}.jsonl")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append the numbers of one step; a number that is not finite becomes null and is never sent."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._append({**finite, "step": step})

    def note(self, facts: Mapping[str, Any]) -> None:
        """Append what is to be on record even if the work fails."""
        self._append({"note": dict(facts)})

    def read(self, offset: int = 0) -> tuple[list[Point], int]:
        """The points in whole lines after `offset`, and the offset after them; a torn last line waits."""
        lines, end = self._lines(offset)
        return [point for line in lines for point in _points(line)], end

    def notes(self) -> dict[str, Any]:
        """All notes, later ones over earlier ones."""
        merged: dict[str, Any] = {}
        for line in self._lines(0)[0]:
            merged.update(line.get("note") or {})
        return merged

    def curves(self) -> dict[str, dict[str, Any]]:
        """What the ledger keeps of each curve: how many points, and the last of them as MLflow counts.

        "Last" is the highest step, then the latest time, then the highest value.
        """
        curves: dict[str, dict[str, Any]] = {}
        for point in sorted(self.read()[0], key=lambda point: (point.step, point.milliseconds, point.value)):
            count = curves.get(point.name, {"points": 0})["points"]
            curves[point.name] = {"points": count + 1, "step": point.step, "value": point.value}
        return curves

    def remove(self) -> None:
        """Forget all of it: MLflow holds it now."""
        self.path.unlink(missing_ok=True)

    def _append(self, line: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**line, "time": time.time()}) + "\n")

    def _lines(self, offset: int) -> tuple[list[Mapping[str, Any]], int]:
        try:
            with self.path.open("rb") as stream:
                stream.seek(offset)
                data = stream.read()
        except FileNotFoundError:
            return [], offset
        whole = data[: data.rfind(b"\n") + 1]
        return [line for text in whole.splitlines() if (line := _parsed(text))], offset + len(whole)


def _parsed(text: bytes) -> Mapping[str, Any] | None:
    """A line as it was written; one garbled by a power cut is passed over, for it was never acknowledged."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("time"), float) else None


def _points(line: Mapping[str, Any]) -> Iterator[Point]:
    if isinstance(line.get("step"), int):
        for name, value in line.items():
            if name not in {"step", "time"} and isinstance(value, int | float):
                yield Point(name, line["step"], int(line["time"] * 1000), float(value))
