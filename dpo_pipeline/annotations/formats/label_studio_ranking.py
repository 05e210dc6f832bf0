"""Label Studio's JSON export of ranking tasks: a list of items in the task, the order of their ids per annotation.

https://labelstud.io/tags/ranker: the result is the list of ids, best first, or an object whose only key names the
control. Items sorted into several buckets are no ranking and are rejected.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.kway import pairs_by_rank
from dpo_pipeline.annotations.formats.label_studio import PROMPTS, annotation_parts, data_of, results_of, value_of
from dpo_pipeline.annotations.formats.shared import prompt_of
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Unusable, shown
from dpo_pipeline.annotations.rules import Rules

NAME = "label_studio_ranking"

_TEXTS = ("body", "text", "response", "answer", "completion", "html", "title")


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return sum(
        isinstance(task.get("annotations"), list)
        and any(result.get("type") == "ranker" for one in task["annotations"] for result in results_of(one))
        for task in sample
    ) / len(sample)


def parse(task: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """A judgment per two items and annotation; an annotation that cannot be used is a part of its own."""
    data = data_of(task)
    mapping = rules.file.mapping
    name = mapping.prompt if mapping else next((name for name in PROMPTS if name in data), PROMPTS[0])
    prompt = prompt_of(data.get(name), f"data.{name}")
    items = _items(data)

    def ranking(annotation: Mapping[str, Any], place: int) -> Sequence[Part]:
        order = _order(annotation)
        unknown = [one for one in order if one not in items]
        if unknown:
            raise Unusable(Reason.UNKNOWN_VERDICT, f"the ranking names {shown(unknown[0])}, which is no item")
        if len(set(order)) < len(order):
            raise Unusable(Reason.UNKNOWN_VERDICT, "the ranking names an item twice")
        listed = [one for one in items if one in order]
        return pairs_by_rank(
            prompt,
            [items[one] for one in listed],
            [float(order.index(one)) for one in listed],
            group=str(place),
            annotator=rules.annotator(annotation.get("completed_by")),
            seconds=rules.seconds(annotation.get("lead_time")),
            judged_at=rules.time(annotation.get("updated_at") or annotation.get("created_at")),
            guideline_version=rules.file.guideline_version,
            sft_allowed=rules.sft_allowed(),
        )

    return annotation_parts(task, ranking)


def _items(data: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the task's items by their ids, in the order they are listed."""
    for value in data.values():
        if isinstance(value, list) and value and all(isinstance(item, dict) and "id" in item for item in value):
            return {str(item["id"]): _text(item) for item in value}
    raise Unusable(Reason.MISSING_FIELD, "data has no list of items with ids")


def _text(item: Mapping[str, Any]) -> str:
    for name in _TEXTS:
        if isinstance(item.get(name), str):
            return item[name]
    raise Unusable(Reason.MISSING_FIELD, f"an item has none of {', '.join(_TEXTS)}")


def _order(annotation: Mapping[str, Any]) -> list[str]:
    for result in results_of(annotation):
        if result.get("type") != "ranker":
            continue
        ranker = value_of(result).get("ranker")
        if isinstance(ranker, dict):
            named = [order for name, order in ranker.items() if name != "_" and order]
            if len(named) > 1:
                raise Unusable(Reason.UNSUPPORTED_CONTENT, "the items are sorted into buckets, not ranked")
            ranker = named[0] if named else None
        if isinstance(ranker, list) and ranker:
            return [str(one) for one in ranker]
    raise Unusable(Reason.NO_VERDICT, "nothing was ranked")
