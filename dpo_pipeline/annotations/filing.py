"""Where the records of a drop are filed: three tables, and books that balance per file."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from dpo_pipeline.annotations.reading import excerpt_of, weight_of
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Judgment, Part, Unusable
from dpo_pipeline.annotations.sinks import UNREAD, Sink
from dpo_pipeline.annotations.tables import DemonstrationsFile, JudgmentsFile, Origin, RejectedFile
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.books import Books
from dpo_pipeline.core.metrics import Reporter

SAY_EVERY = 100_000


class DropOutcomes(NamedTuple):
    """What reading a drop gave.

    Attributes:
        judgments: Counts `judgments`, `judgment_records`; facts `formats` (per file) and `values_left_out` (how many
            times, dimensions and the like of kept records could not be read).
        rejected: Counts `rejected` and one per reason; fact `reasons` (their sentences).
        demonstrations: Count `demonstrations`; fact `formats`.
        books: The drop's books: in = judgment records + demonstrations + rejected. A record that gives several
            judgments counts once; each part of it that cannot be used counts as a record of its own.
    """

    judgments: Outcome
    rejected: Outcome
    demonstrations: Outcome
    books: Books


class TablesSink(Sink):
    """Writes the three tables and keeps the books."""

    def __init__(
        self,
        drop: str,
        judgments: JudgmentsFile,
        rejected: RejectedFile,
        demonstrations: DemonstrationsFile,
        reporter: Reporter,
    ) -> None:
        self.drop, self.reporter = drop, reporter
        self.judgments, self.rejected, self.demonstrations = judgments, rejected, demonstrations
        self.books: dict[str, Books] = {}
        self.sources: dict[str, str] = {}
        self.notes: Counter[str] = Counter()
        self._books = Books()
        self._private: frozenset[str] = frozenset()
        self._origin = Origin(drop, UNREAD, "", "")

    def begin(self, table: str, sha256: str, source: str, private: frozenset[str] = frozenset()) -> None:
        """See `Sink`."""
        self._private = private
        self._origin = Origin(self.drop, source, table, sha256)
        self._books = self.books.setdefault(table, Books())
        self.sources[table] = source

    def keep(self, number: int, parts: Sequence[Part], raw: Any) -> None:
        """See `Sink`."""
        if len(parts) == 1 and type(parts[0]) is Judgment and parts[0].group_id is None:
            kind = "judgment_records"
            self.judgments.add(self._origin, number, parts[0], self._origin.id_of(number, 0), weight_of(raw))
        else:
            kind = self._keep_each(number, parts, raw)
        if kind is not None:
            books = self._books
            books.records_in += 1
            books.kept[kind] += 1
            if books.records_in % SAY_EVERY == 0:
                self.reporter.say(f"{self._origin.file}: {books.records_in} records read")

    def _keep_each(self, number: int, parts: Sequence[Part], raw: Any) -> str | None:
        """File the parts of a record; what the record counts as, None where no part of it is usable."""
        kind, origin, weight = None, self._origin, weight_of(raw)
        for position, part in enumerate(parts):
            if type(part) is Judgment:
                kind = "judgment_records"
                judgment = self._in_group(number, part)
                self.judgments.add(origin, number, judgment, origin.id_of(number, position), weight)
            elif isinstance(part, Unusable):
                self.reject(number, part, raw)
            else:
                kind = "demonstrations"
                self.demonstrations.add(origin, number, part, origin.id_of(number, position), weight)
        return kind

    def _in_group(self, number: int, judgment: Judgment) -> Judgment:
        """The judgment with its ranking's id, which the format knows only within the record."""
        if judgment.group_id is None:
            return judgment
        return msgspec.structs.replace(judgment, group_id=self._origin.group_of(number, judgment.group_id))

    def reject(self, number: int, problem: Unusable, raw: Any) -> None:
        """See `Sink`."""
        self._books.records_in += 1
        self._books.rejected[problem.reason.value] += 1
        row = (problem.reason.value, excerpt_of(problem.detail), excerpt_of(raw, private=self._private))
        self.rejected.add(self._origin, number, row)

    def note(self, notes: Counter[str]) -> None:
        """See `Sink`."""
        self.notes.update(notes)

    def close(self) -> None:
        """Finish the tables."""
        for table in (self.judgments, self.rejected, self.demonstrations):
            table.close()


def outcomes_of(sink: TablesSink, books: Books, seconds: float) -> DropOutcomes:
    """What the tables of a drop hold, after reading it took some seconds."""
    formats = {name: source for name, source in sorted(sink.sources.items()) if source != UNREAD}
    facts = {"formats": formats, "values_left_out": dict(sorted(sink.notes.items()))}
    remarks = {"seconds": round(seconds, 3)}
    return DropOutcomes(
        Outcome(
            counts={"judgments": sink.judgments.row_count, "judgment_records": books.kept["judgment_records"]},
            facts=facts,
            books=books,
            remarks=remarks,
        ),
        Outcome(
            counts={"rejected": books.rejected_count, **dict(sorted(books.rejected.items()))},
            facts={"reasons": {name: Reason(name).sentence for name in sorted(books.rejected)}},
            books=books,
        ),
        Outcome(counts={"demonstrations": books.kept["demonstrations"]}, facts={"formats": formats}, books=books),
        books,
    )
