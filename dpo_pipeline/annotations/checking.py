"""A dry run over a drop: what would be kept, what rejected and why, and what `drop.yaml` should say."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpo_pipeline.annotations.drop_rules import FileRule
from dpo_pipeline.annotations.encodings import guess_encoding
from dpo_pipeline.annotations.markup import is_markup
from dpo_pipeline.annotations.parsing import read_source
from dpo_pipeline.annotations.proposing import propose_for, sample_of
from dpo_pipeline.annotations.read import checked_rules
from dpo_pipeline.annotations.reading import excerpt_of
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Judgment, Part, Unusable
from dpo_pipeline.annotations.registry import FORMATS, recognise
from dpo_pipeline.annotations.rules import Rules
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.sinks import UNREAD, Sink
from dpo_pipeline.annotations.sources import Source, sources_of

SHOWN_PER_REASON = 3
GUESSED_FROM_BYTES = 1 << 20
TEXT_KINDS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")


def check_drop(folder: Path, settings: AnnotationSettings) -> dict[str, Any]:
    """What reading a drop's folder would give; nothing is written.

    Returns:
        `records_in`, `judgment_records`, `judgments`, `demonstrations`, `rejected` (count per reason),
        `files`: per file its `source`, the same counts, `choices` (judgments per choice), `annotators` (how many are
        named), `without_annotator` and `with_markup` (judgments), `values_left_out`, and `rejected` as a list of
        reason, `sentence`, `count` and `examples` (record number, detail, excerpt); for a file that no format fits,
        whose format needs a mapping, or that is no UTF-8, `proposal` holds a rule for `drop.yaml` and what to ask.

    Raises:
        SettingsError: If the folder's `drop.yaml` does not fit.
    """
    rules = checked_rules(folder)
    sink = _CheckSink()
    for source in sources_of(folder, settings):
        read_source(source, rules, settings, sink)
    files = {name: tally.as_dict() for name, tally in sorted(sink.tallies.items())}
    for source in sources_of(folder, settings):
        # A workbook's sheets are tables of their own; a rule holds for the whole file.
        tables = [name for name in sink.tallies if name == source.name or name.startswith(f"{source.name}!")]
        is_mapped = rules.rule_for(source.name).mapping is not None
        is_read = is_mapped and any(sink.tallies[name].source != UNREAD for name in tables)
        # Beside the sheet a mapping is for, a workbook may hold others, such as sums, that no mapping is for.
        reasons = {
            reason
            for name in tables
            for reason in sink.tallies[name].rejected
            if not (is_read and reason == Reason.UNKNOWN_FORMAT)
        }
        rule, sheets = rules.rule_for(source.name), len(tables)
        if source.problem is None and (proposal := _proposal(source, reasons, rule, settings, sheets=sheets)):
            files[tables[0]]["proposal"] = proposal
    rejected: Counter[str] = sum((tally.rejected for tally in sink.tallies.values()), Counter())
    totals = {name: sum(file[name] for file in files.values()) for name in _Tally.COUNTS}
    return {**totals, "rejected": dict(sorted(rejected.items())), "files": files}


def _proposal(
    source: Source, reasons: set[str], rule: FileRule, settings: AnnotationSettings, *, sheets: int
) -> dict[str, Any]:
    """A rule that may help a file of which records were rejected for these reasons; empty where none would."""
    encoding = rule.encoding
    if encoding is None and Reason.INVALID_UTF8 in reasons and source.open is not None and source.kind in TEXT_KINDS:
        with source.open() as stream:
            encoding = guess_encoding(stream.read(GUESSED_FROM_BYTES))
    proposal: dict[str, Any] = {"match": source.name, "encoding": encoding}
    sample = sample_of(source, settings, rule.model_copy(update={"encoding": encoding}))
    export = recognise(sample, Rules(rule))
    if Reason.UNKNOWN_FORMAT in reasons or (encoding != rule.encoding and export is None):
        return proposal | propose_for(sample, export, sheets=sheets)
    question = f"Is it {encoding}? Look at a few letters in the tables: nothing else tells."
    return proposal | {"open_questions": [question]} if encoding != rule.encoding else {}


class _Tally:
    """What became of the records of one file."""

    COUNTS = ("records_in", "judgment_records", "judgments", "demonstrations")

    def __init__(self, source: str) -> None:
        self.source = source
        self.records_in = self.judgment_records = self.judgments = self.demonstrations = 0
        self.choices: Counter[str] = Counter()
        self.annotators: set[str] = set()
        self.without_annotator = self.with_markup = 0
        self.rejected: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.examples: dict[str, list[dict[str, Any]]] = {}

    def as_dict(self) -> dict[str, Any]:
        rejected = [
            {"reason": name, "sentence": Reason(name).sentence, "count": count, "examples": self.examples[name]}
            for name, count in sorted(self.rejected.items())
        ]
        return {
            "source": self.source,
            **{name: getattr(self, name) for name in self.COUNTS},
            "choices": dict(sorted(self.choices.items())),
            "annotators": len(self.annotators),
            "annotators_are": getattr(FORMATS.get(self.source), "ANNOTATORS_ARE", None),
            "without_annotator": self.without_annotator,
            "with_markup": self.with_markup,
            "values_left_out": dict(sorted(self.notes.items())),
            "rejected": rejected,
        }


class _CheckSink(Sink):
    """Counts instead of writing."""

    def __init__(self) -> None:
        self.tallies: dict[str, _Tally] = {}
        self._tally = _Tally(UNREAD)
        self._private: frozenset[str] = frozenset()

    def begin(self, table: str, sha256: str, source: str, private: frozenset[str] = frozenset()) -> None:  # noqa: ARG002
        self._private = private
        self._tally = self.tallies.setdefault(table, _Tally(source))

    def keep(self, number: int, parts: Sequence[Part], raw: Any) -> None:
        tally = self._tally
        judgments = [part for part in parts if isinstance(part, Judgment)]
        unusable = [part for part in parts if isinstance(part, Unusable)]
        tally.judgments += len(judgments)
        tally.choices.update(judgment.choice for judgment in judgments)
        tally.annotators.update(judgment.annotator for judgment in judgments if judgment.annotator is not None)
        tally.without_annotator += sum(judgment.annotator is None for judgment in judgments)
        tally.with_markup += sum(is_markup(one.response_a) or is_markup(one.response_b) for one in judgments)
        if len(unusable) < len(parts):
            tally.records_in += 1
            tally.judgment_records += bool(judgments)
            tally.demonstrations += not judgments
        for part in unusable:
            self.reject(number, part, raw)

    def reject(self, number: int, problem: Unusable, raw: Any) -> None:
        tally, reason = self._tally, problem.reason.value
        tally.records_in += 1
        tally.rejected[reason] += 1
        examples = tally.examples.setdefault(reason, [])
        if len(examples) < SHOWN_PER_REASON:
            excerpt = excerpt_of(raw, private=self._private)
            examples.append({"record_number": number, "detail": excerpt_of(problem.detail), "excerpt": excerpt})

    def note(self, notes: Counter[str]) -> None:
        self._tally.notes.update(notes)
