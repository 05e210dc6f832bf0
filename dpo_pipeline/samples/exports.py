"""Items and demonstrations in the shapes annotation platforms export: Label Studio JSON, a side-by-side CSV, JSONL."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from dpo_pipeline.samples.items import Item
from dpo_pipeline.samples.judges import Verdict
from dpo_pipeline.samples.replies import Dimension

LABEL_STUDIO_VERDICTS = {
    -3: "left is much better",
    -2: "left is better",
    -1: "left is slightly better",
    1: "right is slightly better",
    2: "right is better",
    3: "right is much better",
}
LABEL_STUDIO_DROP = """\
# How to read this project's export. The platform knows neither our scale nor the names of our controls.
files:
  - match: "project-14-*.json"
    format: label_studio_pairwise
    guideline_version: "2026-08"
    mapping:
      prompt: prompt
      response_a: text1
      response_b: text2
      verdict: comparison
      justification: why
      dimensions: {concise: concise, acknowledges: acknowledges, specific: specific, actionable: actionable, tone: tone}
    vocabulary:
      left is much better: -3
      left is better: -2
      left is slightly better: -1
      about the same: tie
      right is slightly better: 1
      right is better: 2
      right is much better: 3
      both unusable: both_bad
      left: -2
      right: 2
      same: tie
"""
SIDE_BY_SIDE_COLUMNS = (
    "task_id", "worker_id", "worker_email", "ip_address", "conversation", "response_1", "response_2", "shown_left",
    "overall", *Dimension, "reason", "time_spent_s", "submitted_at", "guidelines",
)  # fmt: skip
SIDE_BY_SIDE_DROP = """\
# How to read the vendor's spreadsheet: its columns, and its 1-7 scale (1 = response 1 much better).
files:
  - match: "*.csv"
    source: side_by_side
    mapping:
      prompt: conversation
      response_a: response_1
      response_b: response_2
      verdict: overall
      annotator: worker_id
      seconds: time_spent_s
      judged_at: submitted_at
      justification: reason
      shown_first: shown_left
      guideline_version: guidelines
      dimensions: {concise: concise, acknowledges: acknowledges, specific: specific, actionable: actionable, tone: tone}
    vocabulary:
      "1": -3
      "2": -2
      "3": -1
      "4": tie
      "5": 1
      "6": 2
      "7": 3
      both unusable: both_bad
      skipped: skipped
"""


def label_studio_task(item: Item, number: int) -> dict[str, Any]:
    """One task of a Label Studio export: the pair, and an annotation per verdict."""
    annotations = [_annotation(verdict, number * 10 + place) for place, verdict in enumerate(item.verdicts)]
    last = max(verdict.at for verdict in item.verdicts)
    return {
        "id": number,
        "data": {"prompt": item.prompt, "text1": item.a, "text2": item.b},
        "annotations": annotations,
        "predictions": [],
        "project": 14,
        "updated_at": _stamp(last),
    }


def label_studio_array(elements: Sequence[bytes]) -> bytes:
    """Encoded tasks as the one JSON array Label Studio writes."""
    return b"[\n" + b",\n".join(elements) + b"\n]\n"


def side_by_side_rows(item: Item, number: int) -> list[list[str]]:
    """One row per verdict, in the order of `SIDE_BY_SIDE_COLUMNS`."""
    return [_row(item, verdict, number) for verdict in item.verdicts]


def csv_line(row: Sequence[str]) -> bytes:
    """A row as CSV, quoted where it must be."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(row)
    return stream.getvalue().encode()


def json_line(record: Any) -> bytes:
    """A record as one line of JSON, without the line's end."""
    return json.dumps(record, ensure_ascii=False).encode()


def _annotation(verdict: Verdict, number: int) -> dict[str, Any]:
    is_skipped = verdict.choice == "skipped"
    return {
        "id": number,
        "completed_by": {"id": verdict.annotator.number, "email": verdict.annotator.email},
        "was_cancelled": is_skipped,
        "ground_truth": False,
        "lead_time": verdict.seconds,
        "created_at": _stamp(verdict.at),
        "result": [] if is_skipped else _results(verdict),
    }


def _results(verdict: Verdict) -> list[dict[str, Any]]:
    words = {"tie": "about the same", "both_bad": "both unusable"}
    comparison = words.get(verdict.choice) or LABEL_STUDIO_VERDICTS[verdict.signed]
    sides = {"a": "left", "b": "right", "same": "same"}
    results = [_choice("comparison", comparison)]
    if verdict.choice in {"a", "b"}:
        selected = {"selected": sides[verdict.choice]}
        results.insert(0, {"from_name": "pair", "to_name": "text1,text2", "type": "pairwise", "value": selected})
    results += [_choice(dimension, sides[side]) for dimension, side in verdict.dimensions.items()]
    if verdict.justification:
        value = {"text": [verdict.justification]}
        results.append({"from_name": "why", "to_name": "prompt", "type": "textarea", "value": value})
    return results


def _choice(control: str, word: str) -> dict[str, Any]:
    return {"from_name": control, "to_name": "prompt", "type": "choices", "value": {"choices": [word]}}


def _row(item: Item, verdict: Verdict, number: int) -> list[str]:
    overall = {"both_bad": "both unusable", "skipped": "skipped"}.get(verdict.choice) or str(verdict.signed + 4)
    scores = {"a": "2", "b": "6", "same": "4"}
    return [
        f"SXS-{number:05d}",
        str(verdict.annotator.number),
        verdict.annotator.email,
        f"203.0.113.{verdict.annotator.number}",
        item.prompt,
        item.a,
        item.b,
        "response_1" if item.shown_first == "a" else "response_2",
        overall,
        *("" if verdict.choice == "skipped" else scores[verdict.dimensions[dimension]] for dimension in Dimension),
        verdict.justification,
        str(verdict.seconds),
        verdict.at.isoformat(sep=" ", timespec="seconds"),
        "2026-10",
    ]


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
