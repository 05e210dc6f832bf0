r"""Anthropic HH-RLHF: two whole dialogues as texts with "\n\nHuman:" and "\n\nAssistant:" before the turns.

https://huggingface.co/datasets/Anthropic/hh-rlhf; its card asks that the data not be used for supervised training of
dialogue agents, so its responses are never SFT demonstrations unless `drop.yaml` says so. Copies that hold the prompt
apart (https://huggingface.co/datasets/Dahoas/full-hh-rlhf) are read too.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.shared import preferred
from dpo_pipeline.annotations.formats.trl import split_at_last_turn
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Turns, Unusable, check_prompt, clean, text_of
from dpo_pipeline.annotations.rules import Rules

NAME = "hh_rlhf"

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLE = {"Human": "user", "Assistant": "assistant"}


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return sum(_holds_dialogue(record) for record in sample) / len(sample)


def _holds_dialogue(record: Mapping[str, Any]) -> bool:
    """Whether chosen and rejected are dialogues, or the prompt beside them is."""
    texts = [record.get(name) for name in ("chosen", "rejected")]
    if not all(isinstance(text, str) for text in texts):
        return False
    prompt = record.get("prompt")
    if isinstance(prompt, str):
        return prompt.lstrip().startswith("Human:") and prompt.rstrip().endswith("Assistant:")
    return all("\n\nHuman:" in text for text in texts if isinstance(text, str))


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per record, cut before the assistant's last turn."""
    apart = record.get("prompt")
    if isinstance(apart, str):
        prompt = open_dialogue(apart, "prompt")
        return (preferred(prompt, text_of(record, "chosen"), text_of(record, "rejected"), rules, sft_by_default=False),)
    ours, theirs = (turns_of_dialogue(text_of(record, name), name) for name in ("chosen", "rejected"))
    prompt, better, worse = split_at_last_turn(ours, theirs)
    return (preferred(prompt, better, worse, rules, sft_by_default=False),)


def turns_of_dialogue(text: str, name: str) -> Turns:
    """The turns of a dialogue as text.

    Raises:
        Unusable: If it does not start with one.
    """
    before, *pieces = _TURN.split(text)
    if before.strip() or not pieces:
        raise Unusable(Reason.PROMPT_MISSING, f"{name} does not start with a turn of Human or Assistant")
    return tuple((_ROLE[speaker], clean(said)) for speaker, said in zip(pieces[::2], pieces[1::2], strict=True))


def open_dialogue(text: str, name: str) -> Turns:
    """The prompt of a dialogue as text that ends with an open turn of the assistant.

    Raises:
        Unusable: If it is no prompt.
    """
    turns = turns_of_dialogue(f"\n\n{text.lstrip()}", name)
    return check_prompt(turns[:-1] if turns[-1] == ("assistant", "") else turns)
