"""Records that are damaged on purpose, each with the reason under which it should be rejected."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dpo_pipeline.samples.exports import SIDE_BY_SIDE_COLUMNS, csv_line, json_line, label_studio_task, side_by_side_rows
from dpo_pipeline.samples.items import Item


class Broken(NamedTuple):
    """A damaged record as bytes, how it was damaged, and the reason code reading should give."""

    kind: str
    reason: str
    content: bytes


def broken_tasks(items: Sequence[Item]) -> list[Broken]:
    """Label Studio tasks, one per item, each with the next kind of damage in turn."""
    ways = list(_TASK_DAMAGE.items())
    return [_spoil(ways, place, label_studio_task(item, 9_000 + place)) for place, item in enumerate(items)]


def broken_rows(items: Sequence[Item]) -> list[Broken]:
    """Rows of the side-by-side CSV, one per item, each with the next kind of damage in turn."""
    ways = list(_ROW_DAMAGE.items())
    return [_spoil(ways, place, side_by_side_rows(item, 9_000 + place)[0]) for place, item in enumerate(items)]


def broken_demonstrations(conversations: Sequence[Mapping[str, Any]]) -> list[Broken]:
    """Lines of the demonstrations file, one per conversation, each with the next kind of damage in turn."""
    ways = list(_LINE_DAMAGE.items())
    return [_spoil(ways, place, dict(conversation)) for place, conversation in enumerate(conversations)]


def _spoil(ways: Sequence[tuple[str, tuple[str, Callable[[Any], bytes]]]], place: int, record: Any) -> Broken:
    kind, (reason, damage) = ways[place % len(ways)]
    return Broken(kind, reason, damage(record))


def _with_bad_utf8(content: bytes) -> bytes:
    middle = content.index(b" ", len(content) // 3)
    return content[:middle] + b" caf\xe9 " + content[middle + 1 :]


def _trailing_comma(record: dict[str, Any]) -> bytes:
    return json_line(record)[:-1] + b",}"


def _without_second_response(task: dict[str, Any]) -> bytes:
    data = {name: text for name, text in task["data"].items() if name != "text2"}
    return json_line({**task, "data": data})


def _unheard_of_verdict(task: dict[str, Any]) -> bytes:
    annotation = dict(task["annotations"][0])
    choice = {"from_name": "comparison", "type": "choices", "value": {"choices": ["left-ish"]}}
    return json_line({**task, "annotations": [{**annotation, "was_cancelled": False, "result": [choice]}]})


def _forged_annotator(task: dict[str, Any]) -> bytes:
    return json_line(task).replace(b'"completed_by": ', b'"completed_by": 101, "completed_by": ', 1)


def _lone_surrogate(task: dict[str, Any]) -> bytes:
    data = {**task["data"], "text1": task["data"]["text1"] + " \ud83d"}
    return json.dumps({**task, "data": data}).encode()


def _cell(name: str, text: str) -> Callable[[list[str]], bytes]:
    place = SIDE_BY_SIDE_COLUMNS.index(name)
    return lambda row: csv_line([*row[:place], text, *row[place + 1 :]])


def _last_turn_missing(conversation: dict[str, Any]) -> bytes:
    return json_line({**conversation, "messages": conversation["messages"][:-1]})


def _empty_reply(conversation: dict[str, Any]) -> bytes:
    return json_line({**conversation, "messages": [conversation["messages"][0], {"role": "assistant", "content": ""}]})


_TASK_DAMAGE: dict[str, tuple[str, Callable[[Any], bytes]]] = {
    "bad_json": ("invalid_json", _trailing_comma),
    "invalid_utf8": ("invalid_utf8", lambda task: _with_bad_utf8(json_line(task))),
    "missing_field": ("missing_field", _without_second_response),
    "unknown_verdict": ("unknown_verdict", _unheard_of_verdict),
    "duplicate_key": ("duplicate_key", _forged_annotator),
    "lone_surrogate": ("lone_surrogate", _lone_surrogate),
}
_ROW_DAMAGE: dict[str, tuple[str, Callable[[Any], bytes]]] = {
    "invalid_utf8": ("invalid_utf8", lambda row: _with_bad_utf8(csv_line(row))),
    "missing_field": ("missing_field", _cell("conversation", "")),
    "unknown_verdict": ("unknown_verdict", _cell("overall", "8")),
    "short_row": ("wrong_cell_count", lambda row: csv_line(row[:5])),
}
_LINE_DAMAGE: dict[str, tuple[str, Callable[[Any], bytes]]] = {
    "bad_json": ("invalid_json", lambda record: json_line(record)[:-20]),
    "invalid_utf8": ("invalid_utf8", lambda record: _with_bad_utf8(json_line(record))),
    "missing_field": ("missing_field", lambda record: json_line({"conversation_id": record["conversation_id"]})),
    "role_order": ("role_order", _last_turn_missing),
    "empty_reply": ("empty_response", _empty_reply),
}
