"""What several formats share: prompts however they are held, and the judgment a chosen-rejected record stands for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import (
    Judgment,
    Part,
    Turns,
    Unusable,
    check_prompt,
    kind_of,
    response_of,
    single_prompt,
    text_of,
    turns_of,
)
from dpo_pipeline.annotations.rules import Rules, Verdict


def prompt_of(value: Any, name: str, *, system: Any = None) -> Turns:
    """The prompt a field holds.

    Raises:
        Unusable: If the field is missing, of another kind, or no prompt.
    """
    instruction = system if isinstance(system, str) else None
    if type(value) is str:
        if value.startswith("[{") and (messages := _messages_in(value)) is not None:
            return check_prompt(_with_system(messages, instruction))
        if not value.strip():
            raise Unusable(Reason.MISSING_FIELD, f"{name} is empty")
        return single_prompt(value, system=instruction)
    if type(value) is list:
        return check_prompt(_with_system(turns_of(value, name), instruction))
    if value is None:
        raise Unusable(Reason.MISSING_FIELD, f"{name} is missing")
    raise Unusable(Reason.WRONG_TYPE, f"{name} is {kind_of(value)}, a text or a list of messages was expected")


def _messages_in(cell: str) -> Turns | None:
    try:
        return turns_of(msgspec.json.decode(cell), "the cell")
    except (msgspec.DecodeError, Unusable, RecursionError):
        return None


def _with_system(turns: Turns, instruction: str | None) -> Turns:
    if instruction and instruction.strip() and not (turns and turns[0][0] == "system"):
        return (("system", instruction.strip()), *turns)
    return turns


def preferred(prompt: Turns, chosen: str, rejected: str, rules: Rules, *, sft_by_default: bool = True) -> Judgment:
    """The judgment a record of chosen and rejected stands for: nobody's name, middling strength, chosen listed first.

    Raises:
        Unusable: If a response is empty.
    """
    return Judgment(
        prompt,
        response_of(chosen, "chosen"),
        response_of(rejected, "rejected"),
        "a",
        -2,
        guideline_version=rules.file.guideline_version,
        sft_allowed=rules.sft_allowed(default=sft_by_default),
    )


def judged(
    prompt: Turns, record: Mapping[str, Any], names: tuple[str, str], verdict: Verdict, rules: Rules, **fields: Any
) -> Judgment:
    """A verdict on two responses that stand in fields of their own.

    Raises:
        Unusable: If a response is missing, empty or no text.
    """
    a, b = (response_of(text_of(record, name), name) for name in names)
    return Judgment(
        prompt,
        a,
        b,
        *verdict,
        guideline_version=rules.file.guideline_version,
        sft_allowed=rules.sft_allowed(),
        **fields,
    )


def parts_of_each(held: Any, name: str, read: Callable[[Mapping[str, Any], int], Sequence[Part]]) -> Sequence[Part]:
    """What `read` makes of each object in a list and its 1-based place; of an unusable one a part that says why.

    Raises:
        Unusable: If it is no list, or an empty one.
    """
    if not isinstance(held, list):
        reason = Reason.MISSING_FIELD if held is None else Reason.WRONG_TYPE
        raise Unusable(reason, f"the {name}s are {kind_of(held)}, a list was expected")
    if not held:
        raise Unusable(Reason.NO_VERDICT, f"there are no {name}s")
    parts: list[Part] = []
    for place, one in enumerate(held, start=1):
        try:
            parts += read(_object(one), place)
        except Unusable as problem:
            parts.append(Unusable(problem.reason, f"{name} {place} of {len(held)}: {problem.detail}"))
    return parts


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Unusable(Reason.WRONG_TYPE, f"it is {kind_of(value)}, an object was expected")
    return value


def stripped_or_none(value: Any) -> str | None:
    """A text that may be missing: None where it is, or is blank, or no text."""
    return value.strip() or None if type(value) is str else None


def share_with(sample: Sequence[Mapping[str, Any]], *needed: str) -> float:
    """Share of records that have all of these fields."""
    return sum(all(name in record for name in needed) for record in sample) / len(sample)
