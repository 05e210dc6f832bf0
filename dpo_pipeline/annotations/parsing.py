"""The records of one file through the format they are in, each to a sink with what became of it."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from dpo_pipeline.annotations.drop_rules import DropRules
from dpo_pipeline.annotations.joining import joined
from dpo_pipeline.annotations.json_records import Entry
from dpo_pipeline.annotations.reading import tables_of, weight_of
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable, shown
from dpo_pipeline.annotations.registry import ExportFormat, recognise
from dpo_pipeline.annotations.rules import Rules
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.sinks import UNREAD, Sink
from dpo_pipeline.annotations.sources import Source

SAMPLE_RECORDS = 64
"""Usable records looked at to recognise a format."""
SAMPLE_ENTRIES = 1_000
"""Entries gone through, usable or not, to find them."""
SAMPLE_BYTES = 16_000_000
"""Bytes of entries gone through."""


def read_source(source: Source, rules: DropRules, settings: AnnotationSettings, sink: Sink) -> None:
    """Read one file, or one member of an archive, into a sink."""
    rule = rules.rule_for(source.name)
    if rule.ignore:
        sink.begin(source.name, source.sha256, UNREAD)
        sink.reject(0, Unusable(Reason.IGNORED_FILE, "drop.yaml says ignore"), b"")
        return
    for table, entries in tables_of(source, settings, rule):
        _read_table(table, source.sha256, entries, Rules(rule, settings), sink)


def _read_table(table: str, sha256: str, entries: Iterator[Entry], rules: Rules, sink: Sink) -> None:
    head, sample = _look_ahead(entries)
    if not head:
        head.append((0, Unusable(Reason.EMPTY_FILE, "no record"), b""))
    export = recognise(sample, rules)
    column = rules.file.mapping.annotator if rules.file.mapping else None
    private = frozenset() if column is None else frozenset({column, column.rpartition(".")[2]})
    sink.begin(table, sha256, UNREAD if export is None else rules.file.source or export.NAME, private)
    every = chain(_drained(head), entries)
    if export is None:
        _reject_all(every, sink)
        return
    _read_entries(joined(every, export, rules), export, rules, sink)
    sink.note(rules.notes)


def _look_ahead(entries: Iterator[Entry]) -> tuple[deque[Entry], list[Mapping[str, Any]]]:
    """The first entries, and the usable records among them."""
    head: deque[Entry] = deque()
    sample: list[Mapping[str, Any]] = []
    size = 0
    for entry in islice(entries, SAMPLE_ENTRIES):
        head.append(entry)
        size += weight_of(entry[2])
        if isinstance(entry[1], dict):
            sample.append(entry[1])
        if len(sample) == SAMPLE_RECORDS or size > SAMPLE_BYTES:
            break
    return head, sample


def _drained(head: deque[Entry]) -> Iterator[Entry]:
    """The first entries once more, each given up as it is read."""
    while head:
        yield head.popleft()


def _read_entries(entries: Iterable[Entry], export: ExportFormat, rules: Rules, sink: Sink) -> None:
    parse, keep, reject = export.parse, sink.keep, sink.reject
    for number, value, raw in entries:
        if isinstance(value, Unusable):
            reject(number, value, raw)
            continue
        try:
            parts = parse(value, rules)
        except Unusable as problem:
            reject(number, problem, raw)
        except (TypeError, ValueError, LookupError, AttributeError, RecursionError, ArithmeticError) as error:
            # The formats check what they read; this is the net for shapes nobody thought of, never a crash.
            reject(number, Unusable(Reason.UNEXPECTED_SHAPE, f"{type(error).__name__}: {error}"[:200]), raw)
        else:
            keep(number, parts, raw)


def _reject_all(entries: Iterable[Entry], sink: Sink) -> None:
    """Reject every record of a file whose format nothing tells."""
    for number, value, raw in entries:
        if isinstance(value, Unusable):
            sink.reject(number, value, raw)
        else:
            names = ", ".join(shown(name, limit=30) for name in list(value)[:8])
            sink.reject(number, Unusable(Reason.UNKNOWN_FORMAT, f"the fields are {names or 'none'}"), raw)
