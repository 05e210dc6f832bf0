"""ShareGPT SFT data: `conversations` of turns with from and value.

https://github.com/hiyouga/LLaMA-Factory (data/README.md)
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.shared import share_with
from dpo_pipeline.annotations.records import Demonstration, Part, Turns, check_conversation, clean, turns_of
from dpo_pipeline.annotations.rules import Rules

NAME = "sharegpt"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return 0.85 * share_with(sample, "conversations")


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:  # noqa: ARG001
    """One demonstration per record."""
    return (Demonstration(check_conversation(conversation_of(record))),)


def conversation_of(record: Mapping[str, Any]) -> Turns:
    """The turns under `conversations`, after a system instruction where the record has one apart.

    Raises:
        Unusable: If it is no list of turns, or a role is unknown.
    """
    turns = turns_of(record.get("conversations"), "conversations", role_key="from", content_key="value")
    system = record.get("system")
    if isinstance(system, str) and clean(system) and not (turns and turns[0][0] == "system"):
        return (("system", clean(system)), *turns)
    return turns
