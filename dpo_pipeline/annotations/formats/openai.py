"""OpenAI, Azure and Together preference fine-tuning: input, preferred_output, non_preferred_output.

https://platform.openai.com/docs/guides/direct-preference-optimization,
https://docs.together.ai/docs/fine-tuning/preference-tuning
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.shared import preferred, share_with
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Unusable, check_prompt, kind_of, turns_of
from dpo_pipeline.annotations.rules import Rules

NAME = "openai_preference"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return share_with(sample, "input", "preferred_output")


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per record."""
    given = record.get("input")
    if not isinstance(given, dict):
        reason = Reason.MISSING_FIELD if given is None else Reason.WRONG_TYPE
        raise Unusable(reason, f"input is {kind_of(given)}, an object with messages was expected")
    prompt = check_prompt(turns_of(given.get("messages"), "input.messages"))
    return (preferred(prompt, _only(record, "preferred_output"), _only(record, "non_preferred_output"), rules),)


def _only(record: Mapping[str, Any], name: str) -> str:
    turns = turns_of(record.get(name), name)
    if len(turns) != 1:
        raise Unusable(Reason.ROLE_ORDER, f"{name} holds {len(turns)} messages, one of the assistant was expected")
    role, content = turns[0]
    if role != "assistant":
        raise Unusable(Reason.ROLE_ORDER, f"{name} is the {role}'s")
    return content
