"""Amazon Nova DPO: Converse-style messages whose last turn has candidates with a preference label.

https://docs.aws.amazon.com/sagemaker/latest/dg/nova-dpo.html. SageMaker's other shape, whole conversations under
`chosen` and `rejected`, is TRL's with an implicit prompt and read by `trl`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.shared import preferred
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Turns, Unusable, check_prompt, kind_of, shown, turns_of
from dpo_pipeline.annotations.rules import Rules

NAME = "aws_nova"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return sum(_candidates(record) is not None for record in sample) / len(sample)


def _candidates(record: Mapping[str, Any]) -> Any:
    messages = record.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return last.get("candidates") if isinstance(last, dict) else None


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per record."""
    candidates = _candidates(record)
    if not isinstance(candidates, list):
        raise Unusable(Reason.MISSING_FIELD, "the last message has no candidates")
    labelled: dict[str, str] = {}
    for candidate in candidates:
        if not isinstance(candidate, dict):
            raise Unusable(Reason.WRONG_TYPE, f"a candidate is {kind_of(candidate)}")
        label = candidate.get("preferenceLabel")
        if label not in ("preferred", "non-preferred") or label in labelled:
            raise Unusable(Reason.UNKNOWN_VERDICT, f"a candidate is labelled {shown(label)}")
        labelled[label] = _text(candidate)
    if len(labelled) < 2:
        raise Unusable(Reason.TOO_FEW_RESPONSES, "one preferred and one non-preferred candidate were expected")
    prompt = check_prompt(_system(record) + turns_of(record["messages"][:-1], "messages"))
    return (preferred(prompt, labelled["preferred"], labelled["non-preferred"], rules),)


def _text(candidate: Mapping[str, Any]) -> str:
    ((_, content),) = turns_of([{"role": "assistant", "content": candidate.get("content")}], "candidates")
    return content


def _system(record: Mapping[str, Any]) -> Turns:
    system = record.get("system")
    return turns_of([{"role": "system", "content": system}], "system") if system else ()
