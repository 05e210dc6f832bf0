"""From what models and judges said to the evidence the gate weighs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpo_pipeline.evaluation.gate import Evidence, decide_promotion
from dpo_pipeline.evaluation.generations import rules_met
from dpo_pipeline.evaluation.held_out import Conversation, HeldOut
from dpo_pipeline.evaluation.judging import JudgeResult
from dpo_pipeline.evaluation.preferences import PairScores
from dpo_pipeline.evaluation.rubric import passes
from dpo_pipeline.evaluation.settings import EvaluationSettings, Rubric
from dpo_pipeline.evaluation.witness import Answer, Statement


@dataclass(frozen=True, slots=True)
class Material:
    """Everything a report is made of.

    Attributes:
        held_out: What was asked.
        statements: What each model said, by name; the baseline first, the challenger second.
        reference_samples: Log-probs under the baseline of the other models' sampled replies: model -> prompt_id.
        judged: What the judges said of the challenger's replies against the baseline's.
        demonstrations: Held-out demonstrations the loss was taken on.
        training: Per model, facts of its training for the cost figures, and its curves.
    """

    held_out: HeldOut
    statements: Mapping[str, Statement]
    reference_samples: Mapping[str, Mapping[str, Answer]]
    judged: Sequence[JudgeResult]
    demonstrations: Sequence[Conversation]
    training: Mapping[str, Mapping[str, Any]]

    @property
    def baseline(self) -> str:
        """Name of the model the challenger is compared with."""
        return next(iter(self.statements))

    @property
    def challenger(self) -> str:
        """Name of the model under test."""
        return list(self.statements)[1]


def target_words(material: Material, *, settings: EvaluationSettings) -> str:
    """The target figure in words, for the stated rule."""
    if settings.rubric is not None:
        return f"the share of greedy replies that meet every rule of {settings.rubric.name!r}"
    if material.judged:
        return f"the win rate by {material.judged[0].judge}"
    return "the ranking accuracy on held-out pairs, for want of a judge"


def decide_all(
    material: Material,
    scores: Mapping[str, PairScores],
    generations: Mapping[str, Mapping[str, Any]],
    divergence: Mapping[str, Mapping[str, Any]],
    *,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """The challenger's decision against each other model as plain values, by that model's name.

    Args:
        material: What the models and judges said.
        scores: Log-probs of the held-out pairs by model.
        generations: `generation_figures` by model and decoding.
        divergence: KL figures by model.
        settings: Margins, resamples, seed.
    """
    decisions = {}
    for opponent in material.statements:
        if opponent == material.challenger:
            continue
        targets = _targets(material, opponent, scores, settings)
        challenger, champion = (
            _evidence(name, targets[name], material, scores[name], generations[name], divergence.get(name, {}))
            for name in (material.challenger, opponent)
        )
        decision = decide_promotion(
            challenger, champion, settings.gate, seed=settings.seed, samples=settings.bootstrap_samples
        )
        decisions[opponent] = decision.as_dict()
    return decisions


def _targets(
    material: Material, opponent: str, scores: Mapping[str, PairScores], settings: EvaluationSettings
) -> dict[str, dict[str, float]]:
    """The target figure per item of challenger and opponent: rules all met, else a judge's points, else ranking."""
    names = (material.challenger, opponent)
    if settings.rubric is not None:
        return {name: _passes(material, name, settings.rubric) for name in names}
    points = next((each.points for each in material.judged if each.opponent == opponent), None)
    if points is not None:
        return {names[0]: points, names[1]: {key: 1 - value for key, value in points.items()}}
    return {
        name: {key: float(right) for key, right in _rankings(material.held_out, scores[name]).items()} for name in names
    }


def _evidence(
    name: str,
    target: Mapping[str, float],
    material: Material,
    scores: PairScores,
    generations: Mapping[str, Any],
    divergence: Mapping[str, Any],
) -> Evidence:
    statement, pairs = material.statements[name], material.held_out.pairs
    greedy, sampled = generations.get("greedy", {}), generations.get("sampled", {})
    clusters = {row["pair_id"]: row["cluster_id"] for row in pairs}
    clusters |= {row["prompt_id"]: row["cluster_id"] for row in material.held_out.prompts}
    tokens = statement.loss_tokens.sum()
    return Evidence(
        model=name,
        target=target,
        rankings=_rankings(material.held_out, scores),
        clusters=clusters,
        not_finite=int((~scores.is_finite).sum()),
        empty_share=_value(greedy.get("empty")),
        repetition=_value(greedy.get("repetition")),
        distinct_2=sampled.get("distinct_2"),
        log_loss=float(statement.log_losses.sum() / tokens) if tokens else None,
        kl_per_token=_value(divergence.get("kl_per_token")),
    )


def _passes(material: Material, name: str, rubric: Rubric) -> dict[str, float]:
    replies = material.statements[name].replies.get("greedy", [])
    met = rules_met(replies, material.held_out, rubric=rubric)
    return {reply.prompt_id: float(passes(rules)) for reply, rules in zip(replies, met, strict=True)}


def _rankings(held_out: HeldOut, scores: PairScores) -> dict[str, bool]:
    return {row["pair_id"]: bool(right) for row, right in zip(held_out.pairs, scores.ranks_right, strict=True)}


def _value(figure: Mapping[str, Any] | None) -> float | None:
    return None if figure is None else figure["value"]
