"""Alpaca SFT data: instruction, optional input, output; with LLaMA-Factory's optional system and history.

https://github.com/tatsu-lab/stanford_alpaca, https://github.com/hiyouga/LLaMA-Factory (data/README.md)
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.shared import share_with
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import (
    Demonstration,
    Part,
    Turns,
    Unusable,
    check_conversation,
    check_prompt,
    clean,
    kind_of,
    text_of,
)
from dpo_pipeline.annotations.rules import Rules

NAME = "alpaca"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return 0.85 * share_with(sample, "instruction", "output")


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:  # noqa: ARG001
    """One demonstration per record."""
    reply = clean(text_of(record, "output"))
    return (Demonstration(check_conversation((*alpaca_prompt(record), ("assistant", reply)))),)


def alpaca_prompt(record: Mapping[str, Any]) -> Turns:
    """System, history, and the instruction with its input below it, as a prompt.

    Raises:
        Unusable: If one of them is of another kind or nothing is left of the instruction.
    """
    turns = []
    for name in ("system", "input", "history"):
        if record.get(name) is not None and not isinstance(record[name], list if name == "history" else str):
            raise Unusable(Reason.WRONG_TYPE, f"{name} is {kind_of(record[name])}")
    if clean(record.get("system") or ""):
        turns.append(("system", clean(record["system"])))
    for exchange in record.get("history") or ():
        if not isinstance(exchange, list) or [type(text) for text in exchange] != [str, str]:
            raise Unusable(Reason.WRONG_TYPE, "history is no list of [question, reply]")
        turns += [("user", clean(exchange[0])), ("assistant", clean(exchange[1]))]
    instruction, given = clean(text_of(record, "instruction")), clean(record.get("input") or "")
    question = "\n".join(part for part in (instruction, given) if part)
    if not question:
        raise Unusable(Reason.PROMPT_MISSING, "the instruction is empty")
    return check_prompt((*turns, ("user", question)))
