"""Appen (Figure Eight) reports: full (a row per judgment), aggregated (a row per unit) and JSON (a line per unit).

https://success.appen.com (Reports page). The names of the questions are the job author's, so `drop.yaml` must say which
column is what; who, when and how long stand under Appen's own names. Test questions and tainted judgments are no votes;
IP address, city and country of the worker are never read.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from dpo_pipeline.annotations.formats import columns
from dpo_pipeline.annotations.formats.shared import parts_of_each
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Judgment, Part, Unusable, shown
from dpo_pipeline.annotations.rules import Rules

NAME = "appen"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    reports = sum("_unit_id" in record and ("_trust" in record or "_trusted_judgments" in record) for record in sample)
    return max(reports, sum(_judgments(record) is not None for record in sample)) / len(sample)


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per row, or per judgment of a unit; one that is no vote is a part of its own."""
    if rules.file.mapping is None:
        raise Unusable(Reason.UNKNOWN_FORMAT, "an Appen report needs a mapping in drop.yaml: its columns are the job's")
    judgments = _judgments(record)
    if judgments is None:
        return [_row(record, rules)]
    return parts_of_each(judgments, "judgment", lambda judgment, _: [_nested(record, judgment, rules)])


def _judgments(record: Mapping[str, Any]) -> Any:
    results = record.get("results")
    judgments = results.get("judgments") if isinstance(results, dict) else None
    return judgments if isinstance(judgments, list) and isinstance(record.get("data"), dict) else None


def _row(record: Mapping[str, Any], rules: Rules) -> Judgment:
    """A row of the full or of the aggregated report."""
    _refuse_no_votes(record.get("_golden"), record.get("_tainted"))
    judgment = _judgment(record, rules)
    if "_trusted_judgments" in record:
        return msgspec.structs.replace(judgment, votes=_votes(record["_trusted_judgments"]))
    return _signed(judgment, record, "_", rules)


def _nested(record: Mapping[str, Any], judgment: Mapping[str, Any], rules: Rules) -> Judgment:
    """One judgment of a unit of the JSON report."""
    _refuse_no_votes(judgment.get("golden"), judgment.get("tainted"))
    return _signed(_judgment(_answered(record, judgment), rules), judgment, "", rules)


def mapped_rows(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a mapping is given of a record: a row of a report, or per judgment of a unit its data and the answers."""
    judgments = _judgments(record)
    if judgments is None:
        return [{name: value for name, value in record.items() if not name.startswith("_")}]
    return [_answered(record, one) for one in judgments if isinstance(one, dict)]


def _answered(record: Mapping[str, Any], judgment: Mapping[str, Any]) -> Mapping[str, Any]:
    answers = judgment.get("data")
    answers = answers if isinstance(answers, dict) else {}
    single = {name: value[0] if isinstance(value, list) and value else value for name, value in answers.items()}
    return {**record["data"], **single}


def _judgment(record: Mapping[str, Any], rules: Rules) -> Judgment:
    (judgment,) = columns.parse(record, rules)
    assert isinstance(judgment, Judgment)
    return judgment


def _signed(judgment: Judgment, record: Mapping[str, Any], prefix: str, rules: Rules) -> Judgment:
    """The judgment with who, when and how long, under the names Appen gives them."""
    ended, started = (rules.time(record.get(f"{prefix}{name}")) for name in ("created_at", "started_at"))
    return msgspec.structs.replace(
        judgment,
        annotator=judgment.annotator or rules.annotator(record.get(f"{prefix}worker_id")),
        seconds=judgment.seconds if judgment.seconds is not None else _seconds_between(started, ended),
        judged_at=judgment.judged_at or ended,
    )


def _seconds_between(started: datetime | None, ended: datetime | None) -> float | None:
    if started is None or ended is None or ended < started:
        return None
    return (ended - started).total_seconds()


def _refuse_no_votes(golden: Any, tainted: Any) -> None:
    if str(golden).casefold() == "true":
        raise Unusable(Reason.TEST_QUESTION, "golden is true")
    if str(tainted).casefold() == "true":
        raise Unusable(Reason.TAINTED, "tainted is true")


def _votes(value: Any) -> int:
    try:
        votes = int(value)
    except (TypeError, ValueError):
        votes = 0
    if not 1 <= votes <= 10_000:
        raise Unusable(Reason.NO_VERDICT, f"_trusted_judgments is {shown(value)}")
    return votes
