"""Where read records go: what `read_source` tells of each, whoever listens."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dpo_pipeline.annotations.records import Part, Unusable

UNREAD = "unread"
"""The `source` of records whose format was never known."""


class Sink:
    """Hears what became of each record."""

    def begin(self, table: str, sha256: str, source: str, private: frozenset[str] = frozenset()) -> None:
        """A table of a file starts, read as this source; `private` fields name annotators and are never shown."""

    def keep(self, number: int, parts: Sequence[Part], raw: Any) -> None:
        """A record gave these parts; not all of them need be usable."""

    def reject(self, number: int, problem: Unusable, raw: Any) -> None:
        """A record, or a part of one, cannot be used."""

    def note(self, notes: Counter[str]) -> None:
        """Values left out of records that were kept, by kind."""
