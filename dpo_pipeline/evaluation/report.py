"""report.json: every figure of an evaluation as plain values; the page and the picture are made from it alone."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dpo_pipeline.core.digests import digest_of_json
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.evaluation import preferences
from dpo_pipeline.evaluation.evidence import Material, decide_all, target_words
from dpo_pipeline.evaluation.gate import stated_rule
from dpo_pipeline.evaluation.generations import generation_figures, last_user_turn, rules_met, shown_prompts
from dpo_pipeline.evaluation.held_out import HeldOut
from dpo_pipeline.evaluation.judges import judge_agreement
from dpo_pipeline.evaluation.preferences import Measure, PairScores
from dpo_pipeline.evaluation.settings import EvaluationSettings
from dpo_pipeline.evaluation.statistics import CONFIDENCE, bootstrap_mean
from dpo_pipeline.evaluation.warnings import warnings_of
from dpo_pipeline.evaluation.witness import Statement

SCHEMA = "dpo-pipeline/evaluation-report/4"


def build_report(material: Material, *, settings: EvaluationSettings, beta: float) -> dict[str, Any]:
    """Every figure of the evaluation, JSON-ready; equal material and settings give equal values.

    Args:
        material: What the models and judges said.
        settings: Margins, resamples, seed.
        beta: The beta the challenger was trained with; scales implicit rewards.
    """
    held_out = material.held_out
    measure = Measure(held_out.clusters, settings.bootstrap_samples, settings.seed)
    scores = {name: statement.scores_of(held_out.pairs) for name, statement in material.statements.items()}
    baseline, challenger = material.baseline, material.challenger
    figures = {
        "preferences": {
            name: _preference_figures(name, scores, baseline, beta=beta, measure=measure) for name in scores
        },
        "generations": {name: _generations(each, held_out, settings) for name, each in material.statements.items()},
        "perplexity": _perplexities(material, settings),
        "divergence": {name: _divergence(material, name, settings) for name in material.reference_samples},
    }
    decisions = decide_all(material, scores, figures, settings=settings)
    target = target_words(material, settings=settings)
    report = {
        "schema": SCHEMA,
        "baseline": baseline,
        "challenger": challenger,
        "opponents": list(material.opponents),
        "decision": decisions[baseline],
        "decisions": decisions,
        "target": target,
        "judged_decoding": settings.judged_decoding,
        "rule": stated_rule(settings.gate, target=target),
        "models": {name: dict(material.training.get(name, {})) for name in material.statements},
        "held_out": {
            "pairs": len(held_out.pairs),
            "pairs_sha256": digest_of_json([row["pair_id"] for row in held_out.pairs]),
            "pairs_left_out": held_out.left_out,
            "prompts_replied_to": len(held_out.prompts),
            "demonstrations": len(material.demonstrations),
            "contamination": dict(held_out.contamination),
        },
        **figures,
        "comparisons": {
            name: preferences.compare_rankings(own, scores[challenger], measure)
            for name, own in scores.items()
            if name != challenger
        },
        "gaps": preferences.histogram(
            {name: each.chosen - each.rejected for name, each in scores.items()},
            framed_by=[*material.opponents, challenger],
        ),
        "slices": _slices(material, scores, measure, beta=beta),
        "rubric": None if settings.rubric is None else {"name": settings.rubric.name, "passed": settings.rubric.passed},
        "judges": [each.as_dict(seed=settings.seed, samples=settings.bootstrap_samples) for each in material.judged],
        "judge_agreement": _judge_agreement(material, settings),
        "benchmarks": {name: [dict(row) for row in rows] for name, rows in material.benchmarks.items()},
        "notes": list(material.notes),
        "shown": _shown(material, settings),
        "settings": settings.model_dump(mode="json"),
        "confidence": CONFIDENCE,
    }
    return report | {"warnings": warnings_of(report, settings.gate)}


def _generations(statement: Statement, held_out: HeldOut, settings: EvaluationSettings) -> dict[str, Any]:
    cluster_of = {row["prompt_id"]: row["cluster_id"] for row in held_out.prompts}
    return {
        decoding: generation_figures(
            replies,
            rules_met(replies, held_out, rubric=settings.rubric),
            [cluster_of[reply.prompt_id] for reply in replies],
            seed=settings.seed,
            samples=settings.bootstrap_samples,
        )
        for decoding, replies in statement.replies.items()
        if replies
    }


def _preference_figures(
    name: str, scores: Mapping[str, PairScores], baseline: str, *, beta: float, measure: Measure
) -> dict[str, Any]:
    figures = preferences.ranking_figures(scores[name], measure)
    moved = None
    if name != baseline:
        moved = preferences.reference_figures(scores[name], scores[baseline], beta=beta, measure=measure)
    return figures | {"against_reference": moved}


def _slices(
    material: Material, scores: Mapping[str, PairScores], measure: Measure, *, beta: float
) -> list[dict[str, Any]]:
    """Ranking accuracy of each model, and implicit accuracy of each but the reference, per slice."""
    reference = scores[material.baseline]
    implicit = {
        name: beta * (own.chosen - reference.chosen - own.rejected + reference.rejected) > 0
        for name, own in scores.items()
        if name != material.baseline
    }
    return [
        {
            "family": family,
            "label": label,
            "count": int(mask.sum()),
            "ranking_accuracy": {
                name: measure.mean(each.ranks_right, where=mask).as_dict() for name, each in scores.items()
            },
            "implicit_accuracy": {name: measure.mean(right, where=mask).as_dict() for name, right in implicit.items()},
        }
        for family, masks in preferences.slices_of(material.held_out.pairs).items()
        for label, mask in masks.items()
    ]


def _perplexities(material: Material, settings: EvaluationSettings) -> dict[str, Any]:
    """Perplexity of each model on the held-out demonstrations that all of them could score, resampled by demonstration.

    Per token of the baseline's tokenizer for every model, so that models with other tokenizers can be compared.
    """
    said = {name: statement.demonstrations for name, statement in material.statements.items()}
    both = sorted(set.intersection(*(set(answers) for answers in said.values())), key=int)
    tokens = np.array([max(1, said[material.baseline][key].chosen_tokens) for key in both], dtype=np.float64)
    return {
        name: bootstrap_mean(
            np.array([-answers[key].chosen_logp for key in both], dtype=np.float64) / tokens,
            weights=tokens,
            seed=settings.seed,
            samples=settings.bootstrap_samples,
        )
        .mapped(_bounded_exp)
        .as_dict()
        for name, answers in said.items()
    }


def _divergence(material: Material, name: str, settings: EvaluationSettings) -> dict[str, Any]:
    """KL(model || baseline) from the model's own samples: mean log-ratio, per reply and per token, in nats."""
    own, reference = material.statements[name].own_samples, material.reference_samples[name]
    both = sorted(own.keys() & reference.keys())
    cluster_of = {row["prompt_id"]: row["cluster_id"] for row in material.held_out.prompts}
    groups = [cluster_of[key] for key in both]
    ratios = np.array([own[key].chosen_logp - reference[key].chosen_logp for key in both], dtype=np.float64)
    tokens = np.array([max(1, own[key].chosen_tokens) for key in both], dtype=np.float64)
    seed, samples = settings.seed, settings.bootstrap_samples
    return {
        "samples": len(both),
        "temperature": settings.sampling_temperature,
        "kl_per_reply": bootstrap_mean(ratios, seed=seed, samples=samples, groups=groups).as_dict(),
        "kl_per_token": bootstrap_mean(
            ratios / tokens, weights=tokens, seed=seed, samples=samples, groups=groups
        ).as_dict(),
    }


def _judge_agreement(material: Material, settings: EvaluationSettings) -> list[Mapping[str, Any]]:
    """Agreement of each two judges on the comparisons with the baseline."""
    own = [each for each in material.judged if each.opponent == material.baseline]
    verdicts = {each.judge: each.judged.verdicts for each in own}
    return judge_agreement(verdicts, seed=settings.seed, samples=settings.bootstrap_samples)


def _shown(material: Material, settings: EvaluationSettings) -> list[dict[str, Any]]:
    """Prompts with every model's judged reply, what people chose and rejected, and the rules each reply meets."""
    judged = next((each for each in material.judged if each.opponent == material.baseline), None)
    points = {} if judged is None else judged.points
    words = {1.0: "win", 0.5: "tie", 0.0: "loss"}
    outcomes = {prompt_id: words[point] for prompt_id, point in points.items()}
    replies = {name: _shown_replies(each, material, settings) for name, each in material.statements.items()}
    return [
        {
            "prompt_id": row["prompt_id"],
            "prompt": [dict(turn) for turn in row["prompt"]],
            "question": last_user_turn(row["prompt"]),
            "outcome": outcomes.get(row["prompt_id"]),
            "replies": {name: own[row["prompt_id"]] for name, own in replies.items() if row["prompt_id"] in own},
            "chosen": row["chosen"],
            "rejected": row["rejected"],
        }
        for row in shown_prompts(material.held_out.prompts, outcomes, count=settings.shown_replies)
    ]


def _shown_replies(statement: Statement, material: Material, settings: EvaluationSettings) -> dict[str, Any]:
    judged = statement.replies.get(settings.judged_decoding, [])
    met = rules_met(judged, material.held_out, rubric=settings.rubric)
    return {
        reply.prompt_id: {"text": reply.text, "rules": dict(rules)} for reply, rules in zip(judged, met, strict=True)
    }


def _bounded_exp(loss: float) -> float:
    return math.exp(min(loss, 700.0))


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write report.json: indented for people, the same bytes for the same values; NaN and infinities are refused."""
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_report(path: Path) -> dict[str, Any]:
    """The values of a report.json.

    Raises:
        ArtifactError: If the file cannot be read or is of another schema.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", do="Materialize evaluation_report again") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        found = report.get("schema") if isinstance(report, dict) else type(report).__name__
        raise ArtifactError(f"{path} is of schema {found}", expected=SCHEMA, do="Materialize evaluation_report again")
    return report
