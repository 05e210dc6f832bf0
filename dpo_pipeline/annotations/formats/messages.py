"""SFT conversations as `messages` with role and content: the shape of TRL, OpenAI and most chat fine-tuning.

https://huggingface.co/docs/trl/dataset_formats, https://platform.openai.com/docs/guides/fine-tuning
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.records import Demonstration, Part, check_conversation, turns_of
from dpo_pipeline.annotations.rules import Rules

NAME = "messages"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    fits = sum(
        isinstance(messages := record.get("messages"), list)
        and bool(messages)
        and isinstance(messages[0], dict)
        and "role" in messages[0]
        and "rejected" not in record
        for record in sample
    )
    return 0.85 * fits / len(sample)


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:  # noqa: ARG001
    """One demonstration per record."""
    return (Demonstration(check_conversation(turns_of(record.get("messages"), "messages"))),)
