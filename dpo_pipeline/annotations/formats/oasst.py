"""OpenAssistant message trees: replies to the same message, ranked by volunteers (rank 0 is best).

https://github.com/LAION-AI/Open-Assistant (oasst-data/oasst_data/schemas.py),
https://huggingface.co/datasets/OpenAssistant/oasst2. Deleted and unranked replies are no part of
a ranking; a tree without two ranked replies of the assistant anywhere is rejected.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.kway import MAX_RESPONSES, pairs_by_rank
from dpo_pipeline.annotations.formats.shared import share_with
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import ROLES, Part, Turns, Unusable, check_prompt, clean, shown
from dpo_pipeline.annotations.rules import Rules

NAME = "oasst_tree"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return share_with(sample, "message_tree_id", "prompt")


def parse(tree: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """A judgment per two ranked replies of the assistant to the same message."""
    state = tree.get("tree_state", "ready_for_export")
    if state != "ready_for_export":
        raise Unusable(Reason.DELETED, f"tree_state is {shown(state)}")
    root = tree.get("prompt")
    if not isinstance(root, dict):
        raise Unusable(Reason.MISSING_FIELD, "prompt is missing")
    fields = {"guideline_version": rules.file.guideline_version, "sft_allowed": rules.sft_allowed()}
    parts: list[Part] = []
    for number, (turns, ranked) in enumerate(_rankings(root)):
        texts = [clean(reply["text"]) for reply in ranked]
        ranks = [float(reply["rank"]) for reply in ranked]
        try:
            prompt = check_prompt(turns)
            parts += pairs_by_rank(prompt, texts, ranks, group=str(number), **fields)
        except Unusable as problem:
            parts.append(Unusable(problem.reason, f"replies at depth {len(turns)}: {problem.detail}"))
    if not parts:
        raise Unusable(Reason.TOO_FEW_RESPONSES, "no message has two ranked replies")
    return parts


def _rankings(root: Mapping[str, Any]) -> Iterator[tuple[Turns, Sequence[Mapping[str, Any]]]]:
    """Every conversation with two or more ranked assistant replies to its last turn, from the root down."""
    waiting: list[tuple[Turns, Mapping[str, Any]]] = [((), root)]
    while waiting:
        before, message = waiting.pop()
        role, text = ROLES.get(str(message.get("role"))), message.get("text")
        if message.get("deleted") is True or role is None or not isinstance(text, str):
            continue
        turns = (*before, (role, clean(text)))
        replies = message.get("replies")
        replies = [reply for reply in replies if isinstance(reply, dict)] if isinstance(replies, list) else []
        ranked = [reply for reply in replies if _is_ranked(reply)]
        if len(ranked) > 1:
            yield turns, ranked[: MAX_RESPONSES + 1]
        waiting += [(turns, reply) for reply in reversed(replies)]


def _is_ranked(reply: Mapping[str, Any]) -> bool:
    rank = reply.get("rank")
    return (
        isinstance(rank, (int, float))
        and not isinstance(rank, bool)
        and reply.get("deleted") is not True
        and ROLES.get(str(reply.get("role"))) == "assistant"
        and isinstance(reply.get("text"), str)
    )
