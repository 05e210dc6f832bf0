"""LLaMA-Factory ranking data: Alpaca fields, or ShareGPT turns, with a chosen and a rejected reply.

https://github.com/hiyouga/LLaMA-Factory (data/README.md)
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.alpaca import alpaca_prompt
from dpo_pipeline.annotations.formats.shared import preferred, share_with
from dpo_pipeline.annotations.formats.sharegpt import conversation_of
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Unusable, check_prompt, text_of, turns_of
from dpo_pipeline.annotations.rules import Rules

NAME = "llama_factory"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    alpaca = share_with(sample, "instruction", "chosen", "rejected")
    return 0.95 * max(alpaca, share_with(sample, "conversations", "chosen", "rejected"))


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per record."""
    if "conversations" in record:
        prompt = check_prompt(conversation_of(record))
        return (preferred(prompt, _reply(record, "chosen"), _reply(record, "rejected"), rules),)
    return (preferred(alpaca_prompt(record), text_of(record, "chosen"), text_of(record, "rejected"), rules),)


def _reply(record: Mapping[str, Any], name: str) -> str:
    turn = record.get(name)
    if isinstance(turn, str):
        return turn
    turns = turns_of([turn], name, role_key="from", content_key="value")
    if turns[0][0] != "assistant":
        raise Unusable(Reason.ROLE_ORDER, f"{name} is the {turns[0][0]}'s")
    return turns[0][1]
