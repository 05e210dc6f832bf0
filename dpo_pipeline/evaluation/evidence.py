"""From what models and judges said to the evidence the gate weighs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dpo_pipeline.evaluation.benchmark_answers import BenchmarkAnswer
from dpo_pipeline.evaluation.gate import Evidence, decide_promotion
from dpo_pipeline.evaluation.generations import rules_met
from dpo_pipeline.evaluation.held_out import Conversation, HeldOut
from dpo_pipeline.evaluation.judging import JudgeResult
from dpo_pipeline.evaluation.preferences import PairScores
from dpo_pipeline.evaluation.rubric import passes
from dpo_pipeline.evaluation.settings import EvaluationSettings
from dpo_pipeline.evaluation.witness import Answer, Statement


@dataclass(frozen=True, slots=True)
class Material:
    """Everything a report is made of.

    Attributes:
        held_out: What was asked.
        statements: What each model said, by name, in the order shown.
        reference_samples: Log-probs under the baseline of the other models' sampled replies: model -> prompt_id.
        judged: What the judges said of the challenger's replies against the baseline's.
        demonstrations: Held-out demonstrations the loss was taken on.
        training: Per model, what it is in words, facts of its training for the cost figures, and its curves.
        baseline: Name of the model the challenger is compared with.
        challenger: Name of the model under test.
        opponents: The models it is decided against, the baseline first.
        notes: What a reader should know of who takes part.
        benchmarks: Per model, rows of standard benchmarks as plain values; empty where none were asked for.
        benchmark_answers: Per model, what it did on each question of them.
    """

    held_out: HeldOut
    statements: Mapping[str, Statement]
    reference_samples: Mapping[str, Mapping[str, Answer]]
    judged: Sequence[JudgeResult]
    demonstrations: Sequence[Conversation]
    training: Mapping[str, Mapping[str, Any]]
    baseline: str
    challenger: str
    opponents: Sequence[str]
    notes: Sequence[str] = ()
    benchmarks: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    benchmark_answers: Mapping[str, Sequence[BenchmarkAnswer]] = field(default_factory=dict)


def target_words(material: Material, *, settings: EvaluationSettings) -> str:
    """The target figure in words, for the stated rule."""
    if settings.rubric is not None:
        return f"the share of {settings.judged_decoding} replies that meet every rule of “{settings.rubric.name}”"
    if material.judged:
        return f"the win rate by {material.judged[0].judge}"
    return "the ranking accuracy on held-out pairs, for want of a judge"


def decide_all(
    material: Material,
    scores: Mapping[str, PairScores],
    figures: Mapping[str, Any],
    *,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """The challenger's decision against each opponent as plain values, by that model's name.

    Args:
        material: What the models and judges said.
        scores: Log-probs of the held-out pairs by model.
        figures: The report's `preferences`, `generations`, `divergence` and `perplexity`.
        settings: Margins, resamples, seed.
    """
    clusters = {row["pair_id"]: row["cluster_id"] for row in material.held_out.pairs}
    clusters |= {row["prompt_id"]: row["cluster_id"] for row in material.held_out.prompts}
    decisions = {}
    for opponent in material.opponents:
        targets = _targets(material, opponent, scores, settings)
        challenger, champion = (
            Evidence(
                model=name,
                target=targets[name],
                rankings=_rankings(material.held_out, scores[name]),
                clusters=clusters,
                **guarded_figures(figures, name),
            )
            for name in (material.challenger, opponent)
        )
        decision = decide_promotion(
            challenger, champion, settings.gate, seed=settings.seed, samples=settings.bootstrap_samples
        )
        decisions[opponent] = decision.as_dict()
    return decisions


def guarded_figures(figures: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The figures the gate guards, of one model of a report, as keywords of `Evidence`.

    A figure that was to be measured and did not come out as a number is NaN, which breaks its guard; one that nobody
    asked for is None, which leaves the guard out.
    """
    ways = figures["generations"][model]
    greedy, sampled = ways.get("greedy", {}), ways.get("sampled", {})
    perplexity, divergence = figures["perplexity"][model], figures["divergence"].get(model)
    kl = None if divergence is None or not sampled else _number(divergence["kl_per_token"])
    return {
        "not_finite": figures["preferences"][model]["not_finite"],
        "empty_share": _number(greedy["empty"]) if greedy else None,
        "unfinished_share": 1 - _number(greedy["finished"]) if greedy else None,
        "repetition": _number(greedy["repetition"]) if greedy else None,
        "distinct_2": sampled["distinct_2"]["value"] if sampled else None,
        "log_loss": float(np.log(_number(perplexity))) if perplexity["count"] else None,
        "kl_per_token": kl,
    }


def _number(figure: Mapping[str, Any]) -> float:
    return math.nan if figure["value"] is None else float(figure["value"])


def _targets(
    material: Material, opponent: str, scores: Mapping[str, PairScores], settings: EvaluationSettings
) -> dict[str, dict[str, float]]:
    """The target figure per item of challenger and opponent: rules all met, else a judge's points, else ranking."""
    names = (material.challenger, opponent)
    if settings.rubric is not None:
        return {name: _passes(material, name, settings) for name in names}
    points = next((each.points for each in material.judged if each.opponent == opponent), None)
    if points is not None:
        return {names[0]: points, names[1]: {key: 1 - value for key, value in points.items()}}
    return {
        name: {key: float(right) for key, right in _rankings(material.held_out, scores[name]).items()} for name in names
    }


def _passes(material: Material, name: str, settings: EvaluationSettings) -> dict[str, float]:
    replies = material.statements[name].replies.get(settings.judged_decoding, [])
    met = rules_met(replies, material.held_out, rubric=settings.rubric)
    return {reply.prompt_id: float(passes(rules)) for reply, rules in zip(replies, met, strict=True)}


def _rankings(held_out: HeldOut, scores: PairScores) -> dict[str, bool]:
    return {row["pair_id"]: bool(right) for row, right in zip(held_out.pairs, scores.ranks_right, strict=True)}
