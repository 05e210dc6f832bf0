"""Label Studio's JSON_MIN and CSV exports of pairwise and ranking tasks: one row per annotation, controls beside data.

https://labelstud.io/guide/export and label_studio_sdk's converter: a control's column holds a list of its results (as
JSON inside a CSV cell), choices and texts their bare word. Each row is read as the task of the JSON export it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats import label_studio, label_studio_ranking
from dpo_pipeline.annotations.formats.shared import share_with
from dpo_pipeline.annotations.records import Part
from dpo_pipeline.annotations.rules import Rules, object_in

NAME = "label_studio_flat"

_OWN = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")
_KINDS = {"selected": "pairwise", "ranker": "ranker", "choices": "choices", "text": "textarea", "rating": "rating"}


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    judged = any(
        one.keys() & {"selected", "ranker"}
        for record in sample
        for value in record.values()
        for one in _objects(value) or ()
    )
    return 0.95 * share_with(sample, "annotation_id", "annotator", "lead_time") if judged else 0.0


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """The judgments of one annotation."""
    data: dict[str, Any] = {}
    results: list[dict[str, Any]] = []
    for name, value in record.items():
        if name in _OWN:
            continue
        held = _objects(value)
        if held is None or any("id" in one for one in held):
            data[name] = value if held is None else held
            results += [_result(name, "choices", {"choices": [value]})] if isinstance(value, str) and value else []
        else:
            results += [_result(name, kind, one) for one in held for key, kind in _KINDS.items() if key in one]
    annotation = {
        "completed_by": record.get("annotator"),
        **{name: record.get(name) for name in ("lead_time", "created_at", "updated_at")},
        "result": results,
    }
    is_ranking = any(isinstance(value, list) for value in data.values())
    export = label_studio_ranking if is_ranking else label_studio
    return export.parse({"data": data, "annotations": [annotation]}, rules)


def _result(name: str, kind: str, value: Any) -> dict[str, Any]:
    return {"from_name": name, "type": kind, "value": value}


def _objects(value: Any) -> list[dict[str, Any]] | None:
    """The objects of a list, also of one that is JSON inside a cell; None where the value is no such list."""
    if isinstance(value, str) and value.startswith("[{"):
        value = (object_in(f'{{"of": {value}}}') or {}).get("of")  # as strictly read as a record
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return value
    return None
