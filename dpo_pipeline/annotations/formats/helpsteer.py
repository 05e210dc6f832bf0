"""NVIDIA HelpSteer2-Preference and HelpSteer3: two responses, several people's strengths -3..3, no ids of theirs.

https://huggingface.co/datasets/nvidia/HelpSteer2, https://huggingface.co/datasets/nvidia/HelpSteer3. Negative means
response 1; -100 means that neither is valid. The single votes are read where they are published. Of HelpSteer3's other
parts, `edit` is an edited response over its original, `edit_quality` the edit that follows the feedback over the one
that does not; `feedback` says of each response how helpful it is in words and compares nothing.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.shared import parts_of_each, preferred, prompt_of, stripped_or_none
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import (
    Judgment,
    Part,
    Turns,
    Unusable,
    check_prompt,
    clean,
    response_of,
    shown,
    text_of,
)
from dpo_pipeline.annotations.rules import Rules, signed

NAME = "helpsteer"

_OVERALL = ("overall_preference", "preference_strength")
_VOTES = ("individual_preference", "all_preferences_unprocessed")
_EDITS = (("good_edited_response", "bad_edited_response"), ("edited_response", "original_response"))
_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
_ROLE = {"User": "user", "Assistant": "assistant"}


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return sum(_looks_so(record) for record in sample) / len(sample)


def _looks_so(record: Mapping[str, Any]) -> bool:
    """Either version's name of the verdict beside its names of the responses."""
    new = "response1" in record and ("overall_preference" in record or "feedback1" in record)
    edited = any(better in record and worse in record for better, worse in _EDITS)
    return new or edited or ("preference_strength" in record and "response_1" in record)


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per published vote, else one for the overall preference."""
    prompt = prompt_before(record)
    for better, worse in _EDITS:
        if better in record or (worse in record and "feedback" in record):
            return (preferred(prompt, text_of(record, better), text_of(record, worse), rules),)
    if "feedback1" in record and "overall_preference" not in record:
        raise Unusable(Reason.NO_VERDICT, "feedback on each response alone compares nothing")
    responses = tuple(
        response_of(text_of(record, names[0] if names[0] in record else names[1]), names[0])
        for names in (("response1", "response_1"), ("response2", "response_2"))
    )
    votes = next((record[name] for name in _VOTES if record.get(name)), None)
    if votes is None:
        overall = next((record[name] for name in _OVERALL if record.get(name) is not None), None)
        return (_judgment(prompt, responses, overall, record.get("preference_statement"), rules),)

    def vote(one: Mapping[str, Any], _: int) -> Sequence[Part]:
        strength, why = (
            one.get(new, one.get(old)) for new, old in (("score", "strength"), ("reasoning", "justification"))
        )
        return [_judgment(prompt, responses, strength, why, rules)]

    return parts_of_each(votes, "vote", vote)


def _judgment(prompt: Turns, responses: tuple[str, ...], strength: Any, why: Any, rules: Rules) -> Judgment:
    if strength == -100:
        choice, value = "not_rateable", 0
    elif isinstance(strength, (int, float)) and not isinstance(strength, bool) and strength in range(-3, 4):
        choice, value = signed(int(strength))
    elif strength is None:
        raise Unusable(Reason.MISSING_FIELD, "the preference is missing")
    else:
        raise Unusable(
            Reason.UNKNOWN_VERDICT, f"the preference is {shown(strength)}, a whole number from -3 to 3 was expected"
        )
    return Judgment(
        prompt,
        responses[0],
        responses[1],
        choice,
        value,
        justification=stripped_or_none(why),
        guideline_version=rules.file.guideline_version,
        sft_allowed=rules.sft_allowed(),
    )


def prompt_before(record: Mapping[str, Any]) -> Turns:
    """HelpSteer3's list of messages, or HelpSteer2's text, in which markers part the turns.

    Raises:
        Unusable: If they are no prompt.
    """
    if "context" in record:
        return prompt_of(record["context"], "context")
    text = text_of(record, "prompt")
    first, *pieces = _TURN.split(text)
    if not pieces:
        return prompt_of(text, "prompt")
    later = [(_ROLE[role], clean(said)) for role, said in zip(pieces[::2], pieces[1::2], strict=True)]
    return check_prompt((("user", clean(first)), *later) if clean(first) else tuple(later))
