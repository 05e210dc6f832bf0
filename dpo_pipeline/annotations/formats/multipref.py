"""AI2's MultiPref: two completions, four people's verdicts in five steps, overall and on three dimensions.

https://huggingface.co/datasets/allenai/multipref. Crowd workers and experts stand in lists of their own and are both
read; whoever wants one of them alone leaves out the other's list.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.shared import parts_of_each, share_with, stripped_or_none
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import (
    Judgment,
    Part,
    Turns,
    Unusable,
    kind_of,
    response_of,
    shown,
    single_prompt,
    text_of,
)
from dpo_pipeline.annotations.rules import Rules, Verdict

NAME = "multipref"

_LISTS = ("normal_worker_annotations", "expert_worker_annotations")
_DIMENSIONS = ("helpful", "truthful", "harmless")
_VERDICTS: Mapping[str, Verdict] = {
    "a-is-clearly-better": ("a", -3),
    "a-is-slightly-better": ("a", -1),
    "tie": ("tie", 0),
    "b-is-slightly-better": ("b", 1),
    "b-is-clearly-better": ("b", 3),
}


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return max(share_with(sample, "completion_a", "completion_b", name) for name in _LISTS)


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per annotation; one that cannot be used is a part of its own."""
    prompt = single_prompt(text_of(record, "text"))
    a, b = (response_of(text_of(record, name), name) for name in ("completion_a", "completion_b"))
    held: list[Any] = []
    for name in _LISTS:
        annotations = record.get(name)
        if annotations is not None and not isinstance(annotations, list):
            raise Unusable(Reason.WRONG_TYPE, f"{name} is {kind_of(annotations)}, a list was expected")
        held += annotations or []
    return parts_of_each(held, "annotation", lambda one, _: [_judgment(prompt, a, b, one, rules)])


def _judgment(prompt: Turns, a: str, b: str, annotation: Mapping[str, Any], rules: Rules) -> Judgment:
    choice, strength = _verdict(annotation.get("overall_pref"))
    given = [(name, annotation.get(f"{name}_pref")) for name in _DIMENSIONS]
    reasons = (stripped_or_none(annotation.get(f"{name}_own_reason")) for name in ("overall", *_DIMENSIONS))
    return Judgment(
        prompt,
        a,
        b,
        choice,
        strength,
        annotator=rules.annotator(annotation.get("evaluator")),
        dimensions=tuple((name, float(_verdict(value)[1])) for name, value in given if value is not None),
        justification=" ".join(reason for reason in reasons if reason) or None,
        seconds=rules.seconds(annotation.get("time_spent")),
        judged_at=rules.time(annotation.get("timestamp")),
        guideline_version=rules.file.guideline_version,
        sft_allowed=rules.sft_allowed(),
    )


def _verdict(value: Any) -> Verdict:
    found = _VERDICTS.get(value.strip().casefold()) if isinstance(value, str) else None
    if found is None:
        reason = Reason.NO_VERDICT if value is None else Reason.UNKNOWN_VERDICT
        raise Unusable(reason, f"the preference is {shown(value)}, tie or such as A-is-slightly-better was expected")
    return found
