"""What long work says while it runs: sentences for people, numbers by step for curves."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol


class Reporter(Protocol):
    """Where a stage sends its progress; the caller decides whether that is a terminal, a log or nothing."""

    def say(self, sentence: str) -> None:
        """One line for a person."""
        ...

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step, named like `loss` or `rewards/margin`."""
        ...

    def note(self, **facts: Any) -> None:
        """What turns out while the work runs and must be on record even if it fails: device, where it went on from."""
        ...


class Quiet:
    """A reporter that keeps nothing."""

    def say(self, sentence: str) -> None:
        """Ignore the sentence."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Ignore the numbers."""

    def note(self, **facts: Any) -> None:
        """Ignore the facts."""


class Aloud:
    """A reporter for a person at a terminal: sentences are spoken, numbers are not.

    Args:
        speak: Where a sentence goes.
    """

    def __init__(self, speak: Callable[[str], None]) -> None:
        self._speak = speak

    def say(self, sentence: str) -> None:
        """Pass the sentence on."""
        self._speak(sentence)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Ignore the numbers."""

    def note(self, **facts: Any) -> None:
        """Ignore the facts."""


def append_metrics(path: Path, step: int, values: Mapping[str, float]) -> None:
    """Add one line `{"step": ..., name: value}` to a metrics file; a number that is not finite becomes null."""
    line = {"step": step, **{name: value if math.isfinite(value) else None for name, value in values.items()}}
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def read_metrics(path: Path) -> list[dict[str, float | None]]:
    """The lines of a metrics file in the order they were written; empty where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
