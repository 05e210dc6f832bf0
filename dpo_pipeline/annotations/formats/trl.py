"""TRL preference data, and SageMaker's: prompt, chosen, rejected; texts or messages, the prompt apart or inside both.

https://huggingface.co/docs/trl/dataset_formats,
https://docs.aws.amazon.com/sagemaker/latest/dg/customizing-models-dpo.html
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.shared import preferred
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import (
    Part,
    Turns,
    Unusable,
    check_prompt,
    clean,
    single_prompt,
    text_of,
    turns_of,
)
from dpo_pipeline.annotations.rules import Rules

NAME = "trl_preference"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    fits = sum(type(record.get("chosen")) in (str, list) and "rejected" in record for record in sample)
    return 0.8 * fits / len(sample)


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per record: nobody's name, middling strength, chosen listed first."""
    chosen, rejected, prompt = record.get("chosen"), record.get("rejected"), record.get("prompt")
    if type(chosen) is list or type(rejected) is list:
        turns, better, worse = _conversational(prompt, chosen, rejected)
    else:
        turns, better, worse = _standard(prompt, text_of(record, "chosen"), text_of(record, "rejected"))
    return (preferred(turns, better, worse, rules),)


def _standard(prompt: Any, chosen: str, rejected: str) -> tuple[Turns, str, str]:
    if type(prompt) is list:
        return check_prompt(turns_of(prompt, "prompt")), chosen, rejected
    if prompt is not None:
        return single_prompt(text_of({"prompt": prompt}, "prompt")), chosen, rejected
    return _split_at_common_start(chosen, rejected)


def _split_at_common_start(chosen: str, rejected: str) -> tuple[Turns, str, str]:
    """Prompt and responses of two texts that start alike: cut at the last white space both share.

    Unlike a cut at the last shared character this never splits a word; where the responses themselves start with the
    same words those still count as prompt, because nothing in the texts tells them apart.
    """
    end = 0
    for ours, theirs in zip(chosen, rejected, strict=False):
        if ours != theirs:
            break
        end += 1
    if end == len(chosen) == len(rejected):
        raise Unusable(Reason.PROMPT_MISSING, "chosen and rejected are the same, so no prompt can be told apart")
    common = chosen[:end]
    while common and not common[-1].isspace():
        common = common[:-1]
    if not common.strip():
        raise Unusable(Reason.PROMPT_MISSING, "there is no prompt, and chosen and rejected start differently")
    return (("user", clean(common)),), chosen[len(common) :], rejected[len(common) :]


def _conversational(prompt: Any, chosen: Any, rejected: Any) -> tuple[Turns, str, str]:
    ours, theirs = turns_of(chosen, "chosen"), turns_of(rejected, "rejected")
    if prompt is None or prompt == []:
        return split_at_last_turn(ours, theirs)
    before = (
        turns_of(prompt, "prompt") if type(prompt) is list else single_prompt(text_of({"prompt": prompt}, "prompt"))
    )
    if len(ours) > 1 and len(ours) == len(theirs):
        # Some exports repeat the prompt inside both lists beside giving it apart; as a text it is the last question, or
        # of a longer conversation the first (Tulu 3).
        turns, better, worse = split_at_last_turn(ours, theirs)
        if turns[-1] != before[-1] and (type(prompt) is list or before[-1] not in turns):
            raise Unusable(Reason.UNEQUAL_CONTEXTS, "prompt and the turns before the responses differ")
        return turns, better, worse
    return check_prompt(before), _only_turn(ours, "chosen"), _only_turn(theirs, "rejected")


def split_at_last_turn(
    ours: Turns, theirs: Turns, *, names: tuple[str, str] = ("chosen", "rejected")
) -> tuple[Turns, str, str]:
    """Prompt and the two responses of two conversations that must be equal up to the assistant's last turn.

    Raises:
        Unusable: If they are not, or one does not end with the assistant.
    """
    for turns, name in zip((ours, theirs), names, strict=True):
        if not turns:
            raise Unusable(Reason.EMPTY_RESPONSE, f"{name} has no turns")
        if turns[-1][0] != "assistant":
            raise Unusable(Reason.ROLE_ORDER, f"{name} ends with the {turns[-1][0]}, not the assistant")
    if ours[:-1] != theirs[:-1]:
        raise Unusable(Reason.UNEQUAL_CONTEXTS, _difference(ours[:-1], theirs[:-1], names))
    return check_prompt(ours[:-1]), ours[-1][1], theirs[-1][1]


def _difference(ours: Turns, theirs: Turns, names: tuple[str, str]) -> str:
    if len(ours) != len(theirs):
        return f"turns before the response: {len(ours)} in {names[0]}, {len(theirs)} in {names[1]}"
    place = next(place for place, (one, other) in enumerate(zip(ours, theirs, strict=True), 1) if one != other)
    return f"turn {place} differs between {names[0]} and {names[1]}"


def _only_turn(turns: Turns, name: str) -> str:
    if len(turns) != 1 or turns[0][0] != "assistant":
        held = f"a turn of the {turns[0][0]}" if len(turns) == 1 else f"{len(turns)} turns"
        raise Unusable(Reason.ROLE_ORDER, f"{name} holds {held}, one of the assistant was expected")
    return turns[0][1]
