"""LMSYS / LMArena battles: two models' conversations and the winner, as released from 33k to 140k and on Kaggle.

https://huggingface.co/datasets/lmsys/chatbot_arena_conversations,
https://huggingface.co/datasets/lmarena-ai/arena-human-preference-140k (100k, expert-5k and webdev alike),
https://huggingface.co/datasets/lmarena-ai/search-arena-24k (`messages_a`, `messages_b`),
https://www.kaggle.com/competitions/lmsys-chatbot-arena (lists of turns in cells),
https://www.kaggle.com/competitions/wsdm-cup-multilingual-chatbot-arena (texts); MT-bench's human judgments have the
same shape, https://huggingface.co/datasets/lmsys/mt_bench_human_judgments. In battles of several turns each model was
answered separately, so the contexts differ and only the battles whose contexts are equal become judgments.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dpo_pipeline.annotations.formats.shared import share_with
from dpo_pipeline.annotations.formats.trl import split_at_last_turn
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
    single_prompt,
    text_of,
    turns_of,
)
from dpo_pipeline.annotations.rules import Rules

NAME = "lmsys_arena"
ANNOTATORS_ARE = (
    "the judge or the session stands for the annotator, so one person in several sessions counts as several"
)

_CONVERSATIONS = (("conversation_a", "conversation_b"), ("messages_a", "messages_b"))
_WINNERS = {
    "model_a": ("a", -2),
    "model_b": ("b", 2),
    "tie": ("tie", 0),
    "tie (bothbad)": ("both_bad", 0),
    "both_bad": ("both_bad", 0),
    "bothbad": ("both_bad", 0),
}


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    kaggle = ("prompt", "response_a", "response_b")
    return max(
        *(share_with(sample, "winner", *names) for names in _CONVERSATIONS),
        share_with(sample, "winner_model_a", *kaggle),
        share_with(sample, "winner", "model_a", "model_b", *kaggle),
    )


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per battle; model A stood on the left."""
    names = next((names for names in _CONVERSATIONS if names[0] in record), None)
    prompt, a, b = _kaggle(record) if names is None else _conversations(record, names)
    choice, strength = _winner(record)
    return (
        Judgment(
            prompt,
            response_of(a, "model_a's reply"),
            response_of(b, "model_b's reply"),
            choice,
            strength,
            annotator=rules.annotator(record.get("judge", record.get("evaluation_session_id"))),
            shown_first="a",
            judged_at=rules.time(record.get("tstamp", record.get("timestamp"))),
            guideline_version=rules.file.guideline_version,
            sft_allowed=rules.sft_allowed(),
        ),
    )


def _winner(record: Mapping[str, Any]) -> tuple[str, int]:
    winner = record.get("winner")
    if winner is None and "winner_model_a" in record:
        flags = {"model_a": "winner_model_a", "model_b": "winner_model_b", "tie": "winner_tie"}
        won = [name for name, flag in flags.items() if str(record.get(flag)) in {"1", "1.0", "True", "true"}]
        winner = won[0] if len(won) == 1 else ", ".join(won) or None
    found = _WINNERS.get(winner) if isinstance(winner, str) else None
    if found is None:
        raise Unusable(Reason.UNKNOWN_VERDICT, f"the winner is {shown(winner)}")
    return found


def _conversations(record: Mapping[str, Any], names: tuple[str, str]) -> tuple[Turns, str, str]:
    """Both conversations up to the turn that was judged; MT-bench holds later ones as well."""
    judged = record.get("turn")
    end = 2 * judged if isinstance(judged, int) and judged > 0 else None
    ours, theirs = (turns_of(record.get(name), name)[:end] for name in names)
    return split_at_last_turn(ours, theirs, names=names)


def _kaggle(record: Mapping[str, Any]) -> tuple[Turns, str, str]:
    """The 55k release: prompt and responses are lists of turns' texts as JSON inside CSV cells; WSDM's: plain texts."""
    if "winner_model_a" not in record:
        return single_prompt(text_of(record, "prompt")), text_of(record, "response_a"), text_of(record, "response_b")
    prompts, ours, theirs = (_texts(record, name) for name in ("prompt", "response_a", "response_b"))
    if not len(prompts) == len(ours) == len(theirs) or not prompts:
        raise Unusable(Reason.ROLE_ORDER, f"{len(prompts)} prompts, {len(ours)} and {len(theirs)} responses")
    if ours[:-1] != theirs[:-1]:
        raise Unusable(Reason.UNEQUAL_CONTEXTS, f"the models replied differently before turn {len(prompts)}")
    turns: list[tuple[str, str]] = []
    for place, prompt in enumerate(prompts):
        turns.append(("user", prompt))
        if place < len(prompts) - 1:
            turns.append(("assistant", ours[place]))
    return check_prompt(tuple(turns)), ours[-1], theirs[-1]


def _texts(record: Mapping[str, Any], name: str) -> list[str]:
    cell = text_of(record, name)
    try:
        texts = msgspec.json.decode(cell, type=list[str | None])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unusable(Reason.WRONG_TYPE, f"{name} is no JSON list of texts") from error
    return [clean(text or "") for text in texts]
