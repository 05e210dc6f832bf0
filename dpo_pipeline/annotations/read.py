"""A drop's raw files in; judgments, demonstrations and rejected records out, with the books of every file."""

import json
import time
from pathlib import Path

from dpo_pipeline.annotations.drop_rules import DropRules
from dpo_pipeline.annotations.drops import load_rules
from dpo_pipeline.annotations.filing import DropOutcomes, TablesSink, outcomes_of
from dpo_pipeline.annotations.forgetting import ForgettingSink
from dpo_pipeline.annotations.forgotten import Forgotten, Matcher
from dpo_pipeline.annotations.parsing import read_source
from dpo_pipeline.annotations.registry import FORMATS
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.sources import sources_of
from dpo_pipeline.annotations.tables import DemonstrationsFile, JudgmentsFile, Pseudonyms, RejectedFile
from dpo_pipeline.core.books import total
from dpo_pipeline.core.errors import SettingsError
from dpo_pipeline.core.metrics import Reporter

NOTHING = Forgotten()


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
    sink = TablesSink(
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
    return outcomes_of(sink, books, seconds)


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
