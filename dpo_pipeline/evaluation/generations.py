"""Figures over a model's replies, the rows of replies.parquet, and the replies shown side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.evaluation.held_out import HeldOut, Row
from dpo_pipeline.evaluation.replies import Reply, is_empty, is_refusal, ngrams, repetition, words_of
from dpo_pipeline.evaluation.resampling import distinct_estimate
from dpo_pipeline.evaluation.rubric import check_reply, passes
from dpo_pipeline.evaluation.settings import Rubric
from dpo_pipeline.evaluation.statistics import bootstrap_mean

Rules = Mapping[str, bool]


def last_user_turn(conversation: Sequence[Mapping[str, str]]) -> str:
    """The text of the last user turn; empty where there is none.

    >>> last_user_turn([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    'Hi'
    """
    return next((turn["content"] for turn in reversed(conversation) if turn["role"] == "user"), "")


def rules_met(replies: Sequence[Reply], held_out: HeldOut, *, rubric: Rubric | None) -> list[Rules]:
    """Per reply, in order, each rule and whether it is met; empty mappings without a rubric."""
    if rubric is None:
        return [{} for _ in replies]
    questions = {row["prompt_id"]: last_user_turn(row["prompt"]) for row in held_out.prompts}
    return [check_reply(rubric, question=questions[reply.prompt_id], reply=reply.text) for reply in replies]


def generation_figures(
    replies: Sequence[Reply], met: Sequence[Rules], clusters: Sequence[str], *, seed: int, samples: int
) -> dict[str, Any]:
    """Length, repetition, diversity, emptiness, refusals and rules met of one model under one decoding.

    Args:
        replies: One per prompt.
        met: The rules each meets, in the same order.
        clusters: Prompt cluster of each, in the same order; resampled whole.
        seed: Seed of the resampling.
        samples: Resamples behind the intervals.
    """
    texts = [reply.text for reply in replies]

    def mean(values: Sequence[float]) -> dict[str, Any]:
        return bootstrap_mean(values, seed=seed, samples=samples, groups=clusters).as_dict()

    names = list(met[0]) if met else []
    return {
        "count": len(replies),
        "words": mean([len(words_of(text)) for text in texts]),
        "tokens": mean([reply.token_count for reply in replies]),
        "finished": mean([reply.is_finished for reply in replies]),
        "empty": mean([is_empty(text) for text in texts]),
        "refusals": mean([is_refusal(text) for text in texts]),
        "repetition": mean([repetition(text) for text in texts]),
        **{f"distinct_{n}": distinct_estimate([ngrams(text, n=n) for text in texts]).as_dict() for n in (1, 2)},
        "different_replies": len(set(texts)),
        "passed": mean([passes(rules) for rules in met]) if names else None,
        "rules": {name: mean([rules[name] for rules in met]) for name in names},
    }


def reply_rows(replies: Sequence[Reply], met: Sequence[Rules], held_out: HeldOut) -> list[dict[str, Any]]:
    """The replies as rows of replies.parquet."""
    prompts = {row["prompt_id"]: row for row in held_out.prompts}
    return [
        {
            "prompt_id": reply.prompt_id,
            "cluster_id": prompts[reply.prompt_id]["cluster_id"],
            "model": reply.model,
            "decoding": reply.decoding,
            "prompt": prompts[reply.prompt_id]["prompt"],
            "reply": reply.text,
            "token_count": reply.token_count,
            "word_count": len(words_of(reply.text)),
            "is_finished": reply.is_finished,
            "is_empty": is_empty(reply.text),
            "is_refusal": is_refusal(reply.text),
            "repetition": repetition(reply.text),
            "key": reply.key,
            "rules": [{"rule": name, "met": held} for name, held in rules.items()],
        }
        for reply, rules in zip(replies, met, strict=True)
    ]


def shown_prompts(prompts: Sequence[Row], outcomes: Mapping[str, str], *, count: int) -> list[Row]:
    """Which prompts the report shows: up to a third each of losses and ties where there are any, the rest wins.

    A browser full of wins would flatter; a browser full of losses would mislead. Order within each kind is by
    prompt_id, which is a hash: no picking by hand.
    """
    kinds: dict[str, list[Row]] = {"loss": [], "tie": [], "win": []}
    for row in prompts:
        kinds.setdefault(outcomes.get(row["prompt_id"], "tie"), []).append(row)
    share = -(-count // 3)
    chosen = kinds["loss"][:share] + kinds["tie"][:share]
    chosen += kinds["win"][: count - len(chosen)]
    spare = kinds["loss"][share:] + kinds["tie"][share:]
    return (chosen + spare)[:count]
