"""Label Studio's JSON export of pairwise tasks: one task with two texts, an annotation per person.

https://labelstud.io/guide/task_format. A `<Pairwise>` control has no tie, so projects add `<Choices>` beside it, for
ties, strength and rubric dimensions, under names of their own: `drop.yaml`'s mapping says which control is the verdict.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dpo_pipeline.annotations.formats.shared import parts_of_each, prompt_of, stripped_or_none
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Judgment, Part, Turns, Unusable, kind_of, response_of
from dpo_pipeline.annotations.rules import Rules

NAME = "label_studio_pairwise"

PROMPTS = ("prompt", "question", "instruction", "input", "context", "text")
_RESPONSES = (
    ("text1", "text2"),
    ("response_a", "response_b"),
    ("response1", "response2"),
    ("response_1", "response_2"),
    ("answer1", "answer2"),
    ("answer_a", "answer_b"),
    ("option_a", "option_b"),
    ("left", "right"),
)


class _Names(NamedTuple):
    """Which data field and which control holds what."""

    prompt: str
    response_a: str
    response_b: str
    verdict: str | None = None
    justification: str | None = None
    dimensions: Mapping[str, str | list[str]] = {}


_TIE_WORDS = {"tie", "both_bad", "not_rateable"}


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    tasks = [record for record in sample if isinstance(record.get("annotations"), list) and "data" in record]
    paired = sum(_has_pair(task) for task in tasks)
    return 0.95 * paired / len(sample)


def _has_pair(task: Mapping[str, Any]) -> bool:
    results = [result for annotation in task["annotations"] for result in results_of(annotation)]
    data = task["data"] if isinstance(task["data"], dict) else {}
    return any(result.get("type") == "pairwise" for result in results) or any(
        a in data and b in data for a, b in _RESPONSES
    )


def parse(task: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per annotation; an annotation that cannot be used is a part of its own."""
    data = data_of(task)
    names = _stated(rules) or _guessed(data)
    prompt = prompt_of(data.get(names.prompt), f"data.{names.prompt}")
    responses = (_response(data, names.response_a), _response(data, names.response_b))
    return annotation_parts(task, lambda annotation, _: [_judgment(annotation, prompt, responses, names, rules)])


def data_of(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """The task's own fields.

    Raises:
        Unusable: If there are none.
    """
    data = task.get("data")
    if not isinstance(data, dict):
        reason = Reason.MISSING_FIELD if data is None else Reason.WRONG_TYPE
        raise Unusable(reason, f"data is {kind_of(data)}, an object was expected")
    return data


def annotation_parts(
    task: Mapping[str, Any], read: Callable[[Mapping[str, Any], int], Sequence[Part]]
) -> Sequence[Part]:
    """What `read` makes of each annotation that is a vote, and why the others are none.

    Raises:
        Unusable: If the task has no annotations.
    """

    def read_vote(annotation: Mapping[str, Any], place: int) -> Sequence[Part]:
        if annotation.get("ground_truth") is True:
            raise Unusable(Reason.TEST_QUESTION, "ground_truth is set")
        return read(annotation, place)

    return parts_of_each(task.get("annotations"), "annotation", read_vote)


def _stated(rules: Rules) -> _Names | None:
    """The names `drop.yaml` gives."""
    mapping = rules.file.mapping
    if mapping is None or mapping.response_a is None or mapping.response_b is None:
        return None
    return _Names(
        mapping.prompt,
        mapping.response_a,
        mapping.response_b,
        mapping.verdict,
        mapping.justification,
        mapping.dimensions,
    )


def _guessed(data: Mapping[str, Any]) -> _Names:
    """The usual names of the task's texts."""
    for a, b in _RESPONSES:
        if a in data and b in data:
            for prompt in PROMPTS:
                if prompt in data:
                    return _Names(prompt, a, b)
            raise Unusable(Reason.PROMPT_MISSING, f"data has none of {', '.join(PROMPTS)}")
    raise Unusable(Reason.MISSING_FIELD, f"data has no two responses, it has {', '.join(sorted(map(str, data))[:8])}")


def _response(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if value is None:
        raise Unusable(Reason.MISSING_FIELD, f"data.{name} is missing")
    if not isinstance(value, str):
        raise Unusable(Reason.WRONG_TYPE, f"data.{name} is {kind_of(value)}, a text was expected")
    return response_of(value, f"data.{name}")


def _judgment(
    annotation: Mapping[str, Any], prompt: Turns, responses: tuple[str, str], names: _Names, rules: Rules
) -> Judgment:
    controls = _controls(annotation)
    if annotation.get("was_cancelled") is True:
        choice, strength = "skipped", 0
    else:
        choice, strength = _verdict(annotation, controls, names, rules)
    why = controls.get(names.justification) if names.justification else _first_text(annotation)
    return Judgment(
        prompt,
        *responses,
        choice,
        strength,
        annotator=rules.annotator(annotation.get("completed_by")),
        dimensions=rules.dimensions(names.dimensions, controls.get),
        justification=stripped_or_none(why),
        shown_first="a",  # Label Studio always shows the first-named text on the left
        seconds=rules.seconds(annotation.get("lead_time")),
        judged_at=rules.time(annotation.get("updated_at") or annotation.get("created_at")),
        guideline_version=rules.file.guideline_version,
        sft_allowed=rules.sft_allowed(),
    )


def _verdict(
    annotation: Mapping[str, Any], controls: Mapping[str, Any], names: _Names, rules: Rules
) -> tuple[str, int]:
    """The named control's word; else the side picked, or a choice that says tie; else skipped."""
    if names.verdict:
        if (word := controls.get(names.verdict)) is not None:
            return rules.verdict(word)
        raise Unusable(Reason.MISSING_FIELD, f"the control {names.verdict} holds nothing")
    sides = [value_of(result).get("selected") for result in results_of(annotation) if result.get("type") == "pairwise"]
    if sides and sides[0] is not None:
        return rules.verdict(sides[0])
    for word in controls.values():
        try:
            choice, strength = rules.verdict(word)
        except Unusable:
            continue
        if choice in _TIE_WORDS:
            return choice, strength
    return "skipped", 0


def _controls(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """What each control of the form holds: a choice's word, a text, a rating, the side of a pair."""
    found = {}
    for result in results_of(annotation):
        name, value = result.get("from_name"), value_of(result)
        if not isinstance(name, str):
            continue
        for kind in ("choices", "text", "rating", "number", "selected"):
            held = value.get(kind)
            if isinstance(held, list):
                held = held[0] if len(held) == 1 else "\n".join(map(str, held)) if held else None
            if held is not None and not isinstance(held, (dict, list)):
                found[name] = held
    return found


def _first_text(annotation: Mapping[str, Any]) -> Any:
    for result in results_of(annotation):
        if result.get("type") == "textarea":
            text = value_of(result).get("text")
            return text[0] if isinstance(text, list) and text else text
    return None


def results_of(annotation: Any) -> list[Mapping[str, Any]]:
    """The results of an annotation that are objects; none where it is no annotation."""
    results = annotation.get("result") if isinstance(annotation, dict) else None
    return [result for result in results if isinstance(result, dict)] if isinstance(results, list) else []


def value_of(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a result holds; nothing where it holds no object."""
    value = result.get("value")
    return value if isinstance(value, dict) else {}
