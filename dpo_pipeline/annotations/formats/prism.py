"""PRISM: one person's dialogue with several models at once, every reply scored from 1 to 100, one chosen to go on with.

https://huggingface.co/datasets/HannahRoseKirk/prism-alignment (`conversations.jsonl`). The replies of one turn are
compared by score, read as stars (20 points are one step of strength); the next turn goes on from the chosen reply.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from dpo_pipeline.annotations.formats.kway import pairs_by_rating
from dpo_pipeline.annotations.formats.shared import share_with, stripped_or_none
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Turns, Unusable, check_prompt, kind_of, shown, turns_of
from dpo_pipeline.annotations.rules import Rules

NAME = "prism"

POINTS_PER_STAR = 20


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return share_with(sample, "conversation_history", "conversation_id")


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """The pairs of every turn; a turn that cannot be used is a part of its own."""
    history = record.get("conversation_history")
    if not isinstance(history, list) or not all(isinstance(one, dict) for one in history):
        raise Unusable(Reason.WRONG_TYPE, f"conversation_history is {kind_of(history)}, a list of turns was expected")
    if not history:
        raise Unusable(Reason.NO_VERDICT, "the conversation has no turns")
    fields = {
        "annotator": rules.annotator(record.get("user_id")),
        "justification": stripped_or_none(record.get("open_feedback")),
        "judged_at": rules.time(record.get("generated_datetime")),
        "guideline_version": rules.file.guideline_version,
        "sft_allowed": rules.sft_allowed(),
    }
    before: Turns | None = ()
    parts: list[Part] = []
    for number, (turn, entries) in enumerate(groupby(history, key=lambda one: str(one.get("turn"))), start=1):
        said, before = before, None
        try:
            prompt, replies = _turn(said, list(entries))
            before = (*prompt, ("assistant", next((text for text, one in replies if one.get("if_chosen") is True), "")))
            stars = [_score(entry) / POINTS_PER_STAR for _, entry in replies]
            texts = [text for text, _ in replies]
            parts += pairs_by_rating(prompt, texts, stars, group=f"turn {turn}", step=rules.file.rating_step, **fields)
        except Unusable as problem:
            parts.append(Unusable(problem.reason, f"turn {number}: {problem.detail}"))
    return parts


def _turn(
    before: Turns | None, entries: Sequence[Mapping[str, Any]]
) -> tuple[Turns, list[tuple[str, Mapping[str, Any]]]]:
    """What was asked in one turn, with all that was said before it (None: nobody can tell), and the replies."""
    if before is None:
        raise Unusable(Reason.PROMPT_MISSING, "the turn before it cannot be used, so what was said before is not known")
    turns = turns_of(list(entries), "conversation_history")
    asked = [turn for turn in turns if turn[0] == "user"]
    if len(asked) != 1:
        raise Unusable(Reason.ROLE_ORDER, f"{len(asked)} turns of the user, one was expected")
    replies = [(text, entry) for (role, text), entry in zip(turns, entries, strict=True) if role == "assistant"]
    return check_prompt((*before, *asked)), replies


def _score(entry: Mapping[str, Any]) -> float:
    score = entry.get("score")
    if not isinstance(score, (int, float)) or isinstance(score, bool) or not 0 <= score <= 100:
        raise Unusable(Reason.UNKNOWN_VERDICT, f"a score is {shown(score)}, a number from 1 to 100 was expected")
    return float(score)
