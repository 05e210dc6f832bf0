"""Axolotl preference data: chat_template.default, chatml.intel, .icr, .argilla, .prompt_pairs, and zephyr.nectar.

https://github.com/axolotl-ai-cloud/axolotl (docs/rlhf.qmd). distilabel's orca pairs
(https://huggingface.co/datasets/argilla/distilabel-intel-orca-dpo-pairs) are of this shape and mark ties in `status`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dpo_pipeline.annotations.formats.hh_rlhf import open_dialogue
from dpo_pipeline.annotations.formats.kway import pairs_by_rank
from dpo_pipeline.annotations.formats.shared import preferred, share_with
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import (
    Part,
    Turns,
    Unusable,
    check_prompt,
    kind_of,
    shown,
    single_prompt,
    text_of,
    turns_of,
)
from dpo_pipeline.annotations.rules import Rules

NAME = "axolotl"

_QUESTIONS = ("question", "instruction", "input", "prompt")
_REPLIES = (("chosen", "rejected"), ("chosen_response", "rejected_response"))


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    shapes = (
        ("question", "chosen", "rejected"),
        ("chosen_response", "rejected_response"),
        ("system", "input", "chosen", "rejected"),
        ("system", "prompt", "chosen", "rejected"),
        ("prompt", "answers"),
    )
    # With whole conversations under `chosen`, as in UltraFeedback binarized, `messages` is one of them and no prompt.
    after_messages = sum("messages" in record and isinstance(record.get("chosen"), dict) for record in sample)
    return 0.9 * max(after_messages / len(sample), *(share_with(sample, *shape) for shape in shapes))


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per record; of nectar's ranked answers one per two."""
    if "answers" in record:
        return _nectar(record, rules)
    chosen, rejected = next((names for names in _REPLIES if names[0] in record), _REPLIES[0])
    judgment = preferred(_prompt(record), _reply(record, chosen), _reply(record, rejected), rules)
    if record.get("status") == "tie":
        judgment = msgspec.structs.replace(judgment, choice="tie", strength=0)
    return (judgment,)


def _prompt(record: Mapping[str, Any]) -> Turns:
    if "messages" in record:
        return check_prompt(turns_of(record["messages"], "messages"))
    name = next((name for name in _QUESTIONS if name in record), None)
    if name is None:
        raise Unusable(Reason.PROMPT_MISSING, f"none of {', '.join(_QUESTIONS)}")
    system = record.get("system")
    return single_prompt(text_of(record, name), system=system if isinstance(system, str) else None)


def _reply(record: Mapping[str, Any], name: str) -> str:
    """A text, one message, or messages whose last is the reply (`.ultra`)."""
    value = record.get(name)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return text_of(record, name)
    turns = turns_of(value, name)
    if not turns or turns[-1][0] != "assistant":
        raise Unusable(Reason.ROLE_ORDER, f"{name} does not end with the assistant")
    return turns[-1][1]


def _nectar(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    answers = record.get("answers")
    if not isinstance(answers, list) or not all(isinstance(one, dict) for one in answers):
        raise Unusable(Reason.WRONG_TYPE, f"answers is {kind_of(answers)}, a list of objects was expected")
    ranks = []
    for answer in answers:
        rank = answer.get("rank")
        if not isinstance(rank, (int, float)) or isinstance(rank, bool):
            raise Unusable(Reason.UNKNOWN_VERDICT, f"a rank is {shown(rank)}")
        ranks.append(float(rank))
    prompt = text_of(record, "prompt")
    return pairs_by_rank(
        open_dialogue(prompt, "prompt")
        if prompt.startswith(("\n\nHuman:", "\n\nAssistant:"))
        else single_prompt(prompt),
        [text_of(answer, "answer") for answer in answers],
        ranks,
        group="ranking",
        guideline_version=rules.file.guideline_version,
        sft_allowed=rules.sft_allowed(),
    )
