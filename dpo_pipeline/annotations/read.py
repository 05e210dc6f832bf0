"""A drop's raw files in; judgments, demonstrations and rejected records out, with the books of every file."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from dpo_pipeline.annotations.drop_rules import DropRules
from dpo_pipeline.annotations.drops import load_rules
from dpo_pipeline.annotations.forgetting import ForgettingSink
from dpo_pipeline.annotations.forgotten import Forgotten, Matcher
from dpo_pipeline.annotations.json_records import Entry
from dpo_pipeline.annotations.reading import excerpt_of, tables_of
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Judgment, Part, Unusable, shown
from dpo_pipeline.annotations.registry import FORMATS, ExportFormat, recognise
from dpo_pipeline.annotations.rules import Rules
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.sinks import UNREAD, Sink
from dpo_pipeline.annotations.sources import Source, sources_of
from dpo_pipeline.annotations.tables import DemonstrationsFile, JudgmentsFile, Origin, Pseudonyms, RejectedFile
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.books import Books, total
from dpo_pipeline.core.errors import SettingsError
from dpo_pipeline.core.metrics import Reporter

SAMPLE_RECORDS = 64
"""Usable records looked at to recognise a format."""
SAMPLE_ENTRIES = 1_000
"""Entries gone through, usable or not, to find them."""
SAMPLE_BYTES = 16_000_000
"""Bytes of entries gone through."""
SAY_EVERY = 100_000
NOTHING = Forgotten()


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


def read_drop(  # noqa: PLR0913 - three inputs, three tables, whom to tell, whom to leave out
    raw: Path,
    *,
    drop: str,
    settings: AnnotationSettings,
    pseudonym_key: bytes,
    judgments: Path,
    rejected: Path,
    demonstrations: Path,
    reporter: Reporter,
    forgotten: Forgotten = NOTHING,
) -> DropOutcomes:
    """Read every file of a drop into `judgments.parquet`, `rejected_records.parquet`, `demonstrations.parquet`.

    Rows stand in the order of file names (members of a tar archive: of the archive), then of records. Memory does not
    grow with the size of the files. `rejected/books.json` holds the books of every file.

    Args:
        raw: A `raw_annotations` artifact: files under `files/`, among them perhaps `drop.yaml`.
        drop: Name of the delivery.
        settings: Bounds and defaults.
        pseudonym_key: Secret that turns annotator ids into pseudonyms.
        judgments: Folder to write the judgments into; `rejected` and `demonstrations` likewise.
        rejected: See above.
        demonstrations: See above.
        reporter: Is told about progress.
        forgotten: Who and what is left out, booked as `forgotten` and quoted nowhere.

    Raises:
        SettingsError: If `drop.yaml` does not fit. Broken records raise nothing: they are rejected with a reason.
    """
    started = time.monotonic()
    rules = checked_rules(raw / "files")
    sink = _Sink(
        drop,
        JudgmentsFile(judgments / "judgments.parquet", Pseudonyms(pseudonym_key)),
        RejectedFile(rejected / "rejected_records.parquet"),
        DemonstrationsFile(demonstrations / "demonstrations.parquet"),
        reporter,
    )
    spaces = {rule.annotator_namespace for rule in (rules, *rules.files)}
    into = ForgettingSink(sink, Matcher(forgotten, pseudonym_key), spaces) if forgotten else sink
    try:
        for source in sources_of(raw / "files", settings):
            read_source(source, rules, settings, into)
    finally:
        sink.close()
    books = total(sink.books.values())
    books.assert_balanced(of=f"drop {drop}")
    per_file = {name: book.as_dict() for name, book in sorted(sink.books.items())}
    text = json.dumps({"drop": books.as_dict(), "files": per_file}, indent=1, sort_keys=True, ensure_ascii=False)
    (rejected / "books.json").write_text(text + "\n", encoding="utf-8")
    seconds = time.monotonic() - started
    reporter.say(
        f"drop {drop}: {books.records_in} records in, {books.kept_count} kept, {books.rejected_count} rejected, "
        f"{sink.judgments.row_count} judgments, {seconds:.1f} s"
    )
    return _outcomes(sink, books, seconds)


def checked_rules(folder: Path) -> DropRules:
    """The drop's rules, with every format they state known.

    Raises:
        SettingsError: If `drop.yaml` does not fit, or states a format there is no reader for.
    """
    rules = load_rules(folder)
    faults = [
        f"format is {rule.format!r}: known are {', '.join(sorted(FORMATS))}"
        for rule in (rules, *rules.files)
        if rule.format is not None and rule.format not in FORMATS
    ]
    if faults:
        raise SettingsError("drop.yaml", faults)
    return rules


class _Sink(Sink):
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
        self._private = private
        self._origin = Origin(self.drop, source, table, sha256)
        self._books = self.books.setdefault(table, Books())
        self.sources[table] = source

    def keep(self, number: int, parts: Sequence[Part], raw: Any) -> None:
        if len(parts) == 1 and type(parts[0]) is Judgment and parts[0].group_id is None:
            kind = "judgment_records"
            self.judgments.add(self._origin, number, parts[0], self._origin.id_of(number, 0), _weight(raw))
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
        kind, origin, weight = None, self._origin, _weight(raw)
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
        self._books.records_in += 1
        self._books.rejected[problem.reason.value] += 1
        row = (problem.reason.value, _printable(problem.detail), excerpt_of(raw, private=self._private))
        self.rejected.add(self._origin, number, row)

    def note(self, notes: Counter[str]) -> None:
        self.notes.update(notes)

    def close(self) -> None:
        for table in (self.judgments, self.rejected, self.demonstrations):
            table.close()


def read_source(source: Source, rules: DropRules, settings: AnnotationSettings, sink: Sink) -> None:
    """Read one file, or one member of an archive, into a sink."""
    rule = rules.rule_for(source.name)
    if rule.ignore:
        sink.begin(source.name, source.sha256, UNREAD)
        sink.reject(0, Unusable(Reason.IGNORED_FILE, "drop.yaml says ignore"), b"")
        return
    for table, entries in tables_of(source, settings):
        _read_table(table, source.sha256, entries, Rules(rule, settings), sink)


def _read_table(table: str, sha256: str, entries: Iterator[Entry], rules: Rules, sink: Sink) -> None:
    head, sample = _look_ahead(entries)
    if not head:
        head.append((0, Unusable(Reason.EMPTY_FILE, "no record"), b""))
    export = recognise(sample, rules)
    column = rules.file.mapping.annotator if rules.file.mapping else None
    private = frozenset() if column is None else frozenset({column, column.rpartition(".")[2]})
    if export is None:
        sink.begin(table, sha256, UNREAD, private)
        _reject_all(head, entries, sink)
        return
    sink.begin(table, sha256, rules.file.source or export.NAME, private)
    _read_entries(iter(head), export, rules, sink)
    head.clear()
    _read_entries(entries, export, rules, sink)
    sink.note(rules.notes)


def _look_ahead(entries: Iterator[Entry]) -> tuple[list[Entry], list[Mapping[str, Any]]]:
    """The first entries, and the usable records among them."""
    head: list[Entry] = []
    sample: list[Mapping[str, Any]] = []
    size = 0
    for entry in islice(entries, SAMPLE_ENTRIES):
        head.append(entry)
        size += _weight(entry[2])
        if isinstance(entry[1], dict):
            sample.append(entry[1])
        if len(sample) == SAMPLE_RECORDS or size > SAMPLE_BYTES:
            break
    return head, sample


def _weight(raw: Any) -> int:
    """About how many bytes a record holds."""
    if type(raw) is bytes:
        return len(raw)
    return sum(len(value) if isinstance(value, str) else 50 for value in raw.values()) if isinstance(raw, dict) else 0


def _read_entries(entries: Iterator[Entry], export: ExportFormat, rules: Rules, sink: Sink) -> None:
    parse, keep, reject = export.parse, sink.keep, sink.reject
    for number, value, raw in entries:
        if isinstance(value, Unusable):
            reject(number, value, raw)
            continue
        try:
            parts = parse(value, rules)
        except Unusable as problem:
            reject(number, problem, raw)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError) as error:
            # The formats check what they read; this is the net for shapes nobody thought of, never a crash.
            reject(number, Unusable(Reason.UNEXPECTED_SHAPE, f"{type(error).__name__}: {error}"[:200]), raw)
        else:
            keep(number, parts, raw)


def _reject_all(head: list[Entry], entries: Iterator[Entry], sink: Sink) -> None:
    """Reject every record of a file whose format nothing tells."""
    for group in (head, entries):
        for number, value, raw in group:
            if isinstance(value, Unusable):
                sink.reject(number, value, raw)
            else:
                names = ", ".join(shown(name, limit=30) for name in list(value)[:8])
                sink.reject(number, Unusable(Reason.UNKNOWN_FORMAT, f"the fields are {names or 'none'}"), raw)


def _printable(detail: str) -> str:
    """A detail as it may stand in a table: no control characters, bounded."""
    return excerpt_of(detail)


def _outcomes(sink: _Sink, books: Books, seconds: float) -> DropOutcomes:
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
