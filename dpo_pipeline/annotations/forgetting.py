"""Reading with some of it left out: every forgotten record is booked as such, and nothing of it is quoted."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from dpo_pipeline.annotations.forgotten import Matcher
from dpo_pipeline.annotations.quoting import leaves_of, quotes
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Unusable
from dpo_pipeline.annotations.sinks import UNREAD, Sink
from dpo_pipeline.annotations.tables import Origin

UNQUOTED = "not quoted: somebody, or something, that is forgotten may stand in it"


class ForgettingSink(Sink):
    """Passes on what is read, except what is forgotten.

    Records that could not be used anyway keep their reason; if a forgotten annotator or text stands in one, or if
    nobody can tell because it cannot be read, its detail and excerpt are left out.

    Args:
        inner: Where the rest goes.
        matcher: What is forgotten.
        namespaces: Prefixes under which the drop's files tell annotators apart.
    """

    def __init__(self, inner: Sink, matcher: Matcher, namespaces: Iterable[str]) -> None:
        self._inner, self._matcher, self._namespaces = inner, matcher, tuple(namespaces)
        self._openings = frozenset(matcher.forgotten.openings)
        self._origin = Origin("", UNREAD, "", "")

    def begin(self, table: str, sha256: str, source: str, private: frozenset[str] = frozenset()) -> None:
        """See `Sink`."""
        self._origin = Origin("", source, table, sha256)
        self._inner.begin(table, sha256, source, private)

    def keep(self, number: int, parts: Sequence[Part], raw: Any) -> None:
        """See `Sink`; a record of which every part is forgotten is one rejected record."""
        if whole := self._matcher.of_record(self._origin.id_of(number, 0)):
            self._inner.reject(number, _forgotten(whole), b"")
            return
        found = [None if isinstance(part, Unusable) else self._matcher.of_part(part) for part in parts]
        why = [reason for reason in found if reason]
        if why and len(why) == len(parts):
            self._inner.reject(number, _forgotten(why[0]), b"")
        elif why:
            left = [_forgotten(reason) if reason else part for part, reason in zip(parts, found, strict=True)]
            self._inner.keep(number, left, b"")
        elif any(isinstance(part, Unusable) for part in parts) and self._mentions(raw):
            self._inner.keep(number, [_unquoted(part) for part in parts], b"")
        else:
            self._inner.keep(number, parts, raw)

    def reject(self, number: int, problem: Unusable, raw: Any) -> None:
        """See `Sink`."""
        if whole := self._matcher.of_record(self._origin.id_of(number, 0)):
            self._inner.reject(number, _forgotten(whole), b"")
        elif self._mentions(raw):
            self._inner.reject(number, Unusable(problem.reason, UNQUOTED), b"")
        else:
            self._inner.reject(number, problem, raw)

    def note(self, notes: Counter[str]) -> None:
        """See `Sink`."""
        self._inner.note(notes)

    def _quotes(self, leaves: Sequence[str]) -> bool:
        key = self._matcher.key
        return bool(self._openings) and key is not None and quotes(leaves, self._openings, key)

    def _mentions(self, raw: Any) -> bool:
        """Whether a forgotten annotator or text may stand in a record."""
        of = self._matcher
        if not (of.forgotten.annotators or of.forgotten.openings) or raw == b"":
            return False
        leaves = leaves_of(raw)
        if leaves is None:
            return True
        ids = (space + leaf for leaf in leaves for space in self._namespaces) if of.forgotten.annotators else ()
        return any(of.of_annotator(of.pseudonym(one)) for one in ids) or self._quotes(leaves)


def _forgotten(why: str) -> Unusable:
    return Unusable(Reason.FORGOTTEN, why)


def _unquoted(part: Part) -> Part:
    return Unusable(part.reason, UNQUOTED) if isinstance(part, Unusable) else part
