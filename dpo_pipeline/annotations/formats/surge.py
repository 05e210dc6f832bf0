"""Surge AI tasks as its API gives them: the task's fields, and a response per worker with the answers by question.

https://github.com/surge-ai/surge-python (surge/tasks.py). Fields and questions are the project's own, so `drop.yaml`
must say which is what: `fields.prompt`, `data.Which is better?`. Who, when and how long stand under Surge's own names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dpo_pipeline.annotations.formats import columns
from dpo_pipeline.annotations.formats.shared import parts_of_each
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Judgment, Part, Unusable
from dpo_pipeline.annotations.rules import Rules

NAME = "surge"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return sum(_is_task(record) for record in sample) / len(sample)


def _is_task(record: Mapping[str, Any]) -> bool:
    responses = record.get("responses")
    fields = isinstance(record.get("fields"), dict) and "project_id" in record
    return fields and isinstance(responses, list) and all(isinstance(one, dict) and "data" in one for one in responses)


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """The judgments of one task, each worker's response one; one that cannot be used is a part of its own."""
    if rules.file.mapping is None:
        detail = "a Surge task needs a mapping in drop.yaml: its fields and questions are the project's"
        raise Unusable(Reason.UNKNOWN_FORMAT, detail)
    if record.get("is_gold_standard") is True:
        raise Unusable(Reason.TEST_QUESTION, "is_gold_standard is true")
    return parts_of_each(record.get("responses"), "response", lambda one, _: _response(record, one, rules))


def mapped_rows(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a mapping is given of a task: per response the task's fields and the worker's answers."""
    responses = record.get("responses")
    held = responses if isinstance(responses, list) else []
    return [_row(record, one) for one in held if isinstance(one, dict)]


def _row(task: Mapping[str, Any], response: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"fields": task.get("fields"), "data": response.get("data")}


def _response(task: Mapping[str, Any], response: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    parts = columns.parse(_row(task, response), rules)
    return [_signed(part, response, rules) if isinstance(part, Judgment) else part for part in parts]


def _signed(judgment: Judgment, response: Mapping[str, Any], rules: Rules) -> Judgment:
    """The judgment with who, when and how long, under the names Surge gives them."""
    seconds = judgment.seconds if judgment.seconds is not None else rules.seconds(response.get("time_spent_in_secs"))
    return msgspec.structs.replace(
        judgment,
        annotator=judgment.annotator or rules.annotator(response.get("worker_id")),
        seconds=seconds,
        judged_at=judgment.judged_at or rules.time(response.get("completed_at")),
    )
