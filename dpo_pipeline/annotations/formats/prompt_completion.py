"""TRL's prompt-completion SFT data; its unpaired preferences (KTO), which compare nothing, are told apart and refused.

https://huggingface.co/docs/trl/dataset_formats
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.shared import prompt_of, share_with
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import (
    Demonstration,
    Part,
    Unusable,
    check_conversation,
    response_of,
    text_of,
    turns_of,
)
from dpo_pipeline.annotations.rules import Rules

NAME = "trl_prompt_completion"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return 0.8 * share_with(sample, "prompt", "completion")


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:  # noqa: ARG001
    """One demonstration per record."""
    if isinstance(record.get("label"), bool):
        detail = "a thumbs up or down on one response compares nothing; two responses to one prompt are needed"
        raise Unusable(Reason.NO_VERDICT, detail)
    prompt, completion = prompt_of(record.get("prompt"), "prompt"), record.get("completion")
    if isinstance(completion, list):
        return (Demonstration(check_conversation((*prompt, *turns_of(completion, "completion")))),)
    reply = response_of(text_of(record, "completion"), "completion")
    return (Demonstration(check_conversation((*prompt, ("assistant", reply)))),)
