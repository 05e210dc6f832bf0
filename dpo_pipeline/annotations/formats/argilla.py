"""Argilla exports of ranking and label questions: flattened and nested records of 2.x, and the records of 1.x.

https://docs.argilla.io (Record.to_dict with flatten=True or not). The flattened export is the one to ask for: the
nested one does not say which responses were submitted, so all of them are read and the drop's notes say how many.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dpo_pipeline.annotations.formats.kway import pairs_by_rank
from dpo_pipeline.annotations.formats.shared import prompt_of
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Judgment, Part, Turns, Unusable, kind_of, response_of, shown, text_of
from dpo_pipeline.annotations.rules import Rules

NAME = "argilla"

_PROMPTS = ("prompt", "instruction", "question", "context", "input")


class _Answer(NamedTuple):
    """One person's answer: field names, best first, with their ranks where the export has them; or a label."""

    value: Any
    ranks: Any = None
    user: Any = None
    status: str | None = None


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return 0.95 * sum(_question(record, None) is not None for record in sample) / len(sample)


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """The judgments of every submitted answer; an answer that cannot be used is a part of its own."""
    mapping = rules.file.mapping
    question = _question(record, mapping.verdict if mapping else None)
    if question is None:
        raise Unusable(Reason.NO_VERDICT, "no question holds a ranking of fields")
    fields = _fields(record)
    name = mapping.prompt if mapping else next((name for name in _PROMPTS if name in fields), _PROMPTS[0])
    prompt = prompt_of(fields.get(name), name)
    answers = list(_answers(record, question))
    if not answers:
        raise Unusable(Reason.NO_VERDICT, "nobody answered")
    parts: list[Part] = []
    for place, answer in enumerate(answers, start=1):
        try:
            parts += _parts(answer, place, prompt, fields, rules)
        except Unusable as problem:
            parts.append(Unusable(problem.reason, f"answer {place} of {len(answers)}: {problem.detail}"))
    return parts


def _fields(record: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = record.get("fields")
    return nested if isinstance(nested, dict) else record


def _question(record: Mapping[str, Any], wanted: str | None) -> str | None:
    """The name of the question that ranks fields, or whose label names one of two."""
    nested = record.get("responses")
    names = list(nested) if isinstance(nested, dict) else []
    names += [name.removesuffix(".responses") for name in record if name.endswith(".responses")]
    names += [name for name, value in record.items() if isinstance(value, list) and _is_old_answer(value)]
    if wanted is not None:
        return wanted if wanted in names else None
    fields = _fields(record)
    for name in names:
        for answer in _answers(record, name):
            if isinstance(answer.value, list) and answer.value and all(str(one) in fields for one in answer.value):
                return name
    return None


def _is_old_answer(value: Sequence[Any]) -> bool:
    return bool(value) and isinstance(value[0], dict) and isinstance(value[0].get("value"), dict)


def _answers(record: Mapping[str, Any], question: str) -> Iterator[_Answer]:
    nested = record.get("responses")
    if isinstance(nested, dict) and isinstance(nested.get(question), list):
        for answer in nested[question]:
            if isinstance(answer, dict):
                yield _Answer(answer.get("value"), user=answer.get("user_id"))
        return
    flat = record.get(f"{question}.responses")
    if isinstance(flat, list):
        users, statuses = (record.get(f"{question}.responses.{name}") for name in ("users", "status"))
        for place, value in enumerate(flat):
            yield _Answer(value, None, _at(users, place), _at(statuses, place))
        return
    old = record.get(question)
    for answer in old if isinstance(old, list) else ():
        if isinstance(answer, dict) and isinstance(held := answer.get("value"), dict):
            status = answer.get("status")
            yield _Answer(held.get("value"), held.get("rank"), answer.get("user_id"), status)


def _at(values: Any, place: int) -> Any:
    return values[place] if isinstance(values, list) and place < len(values) else None


def _parts(answer: _Answer, place: int, prompt: Turns, fields: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    if answer.status is None:
        rules.notes["status_unknown"] += 1
    elif answer.status != "submitted":
        raise Unusable(Reason.NOT_SUBMITTED, f"the status is {shown(answer.status)}")
    common = {
        "annotator": rules.annotator(answer.user),
        "guideline_version": rules.file.guideline_version,
        "sft_allowed": rules.sft_allowed(),
    }
    if not isinstance(answer.value, list):
        return [_labelled(answer.value, prompt, fields, rules, common)]
    names = [str(name) for name in answer.value]
    if len(set(names)) < len(names):
        raise Unusable(Reason.UNKNOWN_VERDICT, "the ranking names a field twice")
    ranks = answer.ranks if isinstance(answer.ranks, list) and len(answer.ranks) == len(names) else range(len(names))
    by_name = dict(zip(names, map(_rank, ranks), strict=True))
    listed = [name for name in fields if name in by_name]
    if len(listed) < len(names):
        raise Unusable(Reason.UNKNOWN_VERDICT, "the ranking names something that is no field")
    texts = [text_of(fields, name) for name in listed]
    return pairs_by_rank(prompt, texts, [by_name[name] for name in listed], group=str(place), **common)


def _rank(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise Unusable(Reason.UNKNOWN_VERDICT, f"a rank is {kind_of(value)}")


def _labelled(
    value: Any, prompt: Turns, fields: Mapping[str, Any], rules: Rules, common: Mapping[str, Any]
) -> Judgment:
    """A label question: its word is one of the mapping's responses, or one of the vocabulary."""
    mapping = rules.file.mapping
    if mapping is None or mapping.response_a is None or mapping.response_b is None:
        raise Unusable(Reason.UNKNOWN_VERDICT, f"the answer is {kind_of(value)}, a ranking of fields was expected")
    sides = {mapping.response_a: ("a", -2), mapping.response_b: ("b", 2)}
    named = sides.get(value) if isinstance(value, str) else None
    choice, strength = named or rules.verdict(value)
    a, b = (response_of(text_of(fields, name), name) for name in (mapping.response_a, mapping.response_b))
    return Judgment(prompt, a, b, choice, strength, **common)
