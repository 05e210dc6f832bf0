"""Checks on the unpartitioned assets, each with its numbers and what to do when it fails."""

import math

import dagster as dg

from assets.described import books_as_markdown
from dpo_pipeline.core.metrics import Aloud
from resources.artifact_store import ArtifactHome
from resources.settings import PipelineSettings


@dg.asset_check(asset="preference_pairs", blocking=True, description="Judgments in = kept + merged + rejected.")
def pair_books_balance(home: ArtifactHome) -> dg.AssetCheckResult:
    """Whether every judgment of every drop is accounted for."""
    books = home.home.latest("preference_pairs").books
    assert books is not None
    return dg.AssetCheckResult(
        passed=books.is_balanced, metadata={"books": dg.MetadataValue.md(books_as_markdown(books))}
    )


@dg.asset_check(asset="preference_pairs", description="Hosted services name about 1,000 pairs as the least for DPO.")
def enough_pairs(home: ArtifactHome, settings: PipelineSettings) -> dg.AssetCheckResult:
    """Whether there are as many training pairs as the profile asks for."""
    pairs = home.home.latest("preference_pairs").counts["pairs_train"]
    least = settings.values.least_pairs
    return dg.AssetCheckResult(
        passed=pairs >= least,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"train pairs": pairs, "least": least},
        description=f"{pairs:,} pairs to train on, {least:,} advised. With fewer, expect wide intervals in the report; "
        "collect more judgments, or lower `least_pairs` in the profile if you know what you do.",
    )


@dg.asset_check(asset="preference_pairs", description="About as many prompts are held out as the profile asks for.")
def enough_held_out(home: ArtifactHome, settings: PipelineSettings) -> dg.AssetCheckResult:
    """Whether at least half of the share of prompts is held out that the profile asks for."""
    pairs, wanted = home.home.latest("preference_pairs"), settings.values.preferences.held_out_share
    share, like = pairs.facts["held_out_share_of_prompts"], pairs.counts.get("prompts_like_demonstrations", 0)
    return dg.AssetCheckResult(
        passed=2 * share >= wanted,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "held out of all prompts": share,
            "asked for": wanted,
            "prompts like demonstrations of earlier drops": like,
            "largest cluster of all prompts": pairs.facts["largest_cluster_share_of_prompts"],
        },
        description=f"{100 * share:.1f} % of prompts are held out, {100 * wanted:g} % were asked for. {like:,} prompts "
        "are like demonstrations of earlier drops, which a model may have learned, so they are trained on: "
        "`preferences.demonstrated_earlier: draw` lets them be held out, before a model is trained. A cluster of many "
        "near copies counts as one draw.",
    )


@dg.asset_check(asset="preference_pairs", blocking=True, description="No prompt, nor a near-duplicate, on both sides.")
def split_is_clean(
    context: dg.AssetCheckExecutionContext, home: ArtifactHome, settings: PipelineSettings
) -> dg.AssetCheckResult:
    """Whether a prompt, a prompt cluster or, compared anew, a near copy of a prompt stands in train and in held-out."""
    from dpo_pipeline.preferences.leakage import near_leaks, prompts_on_both_sides

    pairs, least = home.home.latest("preference_pairs").path, settings.values.preferences.prompt_cluster_jaccard
    shared = prompts_on_both_sides(pairs)
    near = near_leaks(pairs, jaccard=least, reporter=Aloud(context.log.info))
    return dg.AssetCheckResult(
        passed=not shared and not near,
        metadata={
            "prompts on both sides": len(shared),
            "examples": ", ".join(shared[:5]),
            "near-duplicate prompts across the split": len(near),
            "most alike": ", ".join(f"{left} ~ {right} ({alike:.2f})" for left, right, alike in near[:5]),
            "near-duplicate from": least,
        },
        description="A prompt on both sides makes held-out figures worthless, near copies make them flattering. The "
        "build leaves neither, so report this as a defect, with the ids; nothing is trained on such a table.",
    )


def _losses_finite(asset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(name="losses_finite", asset=asset, blocking=True, description="Every logged loss is a number.")
    def check(home: ArtifactHome) -> dg.AssetCheckResult:
        from dpo_pipeline.core.metrics import read_metrics

        losses = [line.get("loss") for line in read_metrics(home.home.latest(asset).path / "metrics.jsonl")]
        finite = [loss for loss in losses if loss is not None and math.isfinite(loss)]
        return dg.AssetCheckResult(
            passed=bool(losses) and len(finite) == len(losses),
            metadata={
                "steps": len(losses),
                "first loss": finite[0] if finite else "",
                "last loss": (finite or [""])[-1],
            },
            description="If not, lower the learning rate, or look at the pairs of the step where it happened.",
        )

    return check


@dg.asset_check(asset="evaluation_report", description="DPO ranks held-out pairs better than a coin.")
def accuracy_above_chance(home: ArtifactHome) -> dg.AssetCheckResult:
    """Whether the interval of the reward accuracy lies above one half."""
    facts = home.home.latest("evaluation_report").facts
    names = ("implicit_accuracy", "implicit_accuracy/low", "implicit_accuracy/high")
    return dg.AssetCheckResult(
        passed=facts.get("implicit_accuracy/low", 0.0) > 0.5,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={name: facts[name] for name in names if name in facts},
        description="Share of held-out pairs whose chosen reply gained more than the rejected one. If the interval "
        "reaches 0.5, there is no evidence that DPO learned the preference: check agreement, pairs and learning rate.",
    )


def _examined(name: str, description: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(name=name, asset="evaluation_report", blocking=True, description=description)
    def check(
        context: dg.AssetCheckExecutionContext, home: ArtifactHome, settings: PipelineSettings
    ) -> dg.AssetCheckResult:
        from dpo_pipeline.evaluation.examination import examine_one
        from dpo_pipeline.evaluation.standing import standing_of

        profile, jaccard = settings.values, settings.values.preferences.prompt_cluster_jaccard
        standing, reporter = standing_of(home.home), Aloud(context.log.info)
        found = examine_one(name, home.home, standing, settings=profile.champion, jaccard=jaccard, reporter=reporter)
        return dg.AssetCheckResult(
            passed=found.held is True,
            severity=dg.AssetCheckSeverity.ERROR
            if found.held is False and found.forbids
            else dg.AssetCheckSeverity.WARN,
            metadata={"found": found.found, "expected": found.expected, **found.numbers},
            description=found.found if found.held else f"{found.found}. {found.advice}",
        )

    return check


CHECKS = [
    pair_books_balance,
    enough_pairs,
    enough_held_out,
    split_is_clean,
    _losses_finite("sft_checkpoint"),
    _losses_finite("dpo_checkpoint"),
    accuracy_above_chance,
    _examined("report_is_complete", "Every model that is compared scored every pair and replied to every prompt."),
    _examined("held_out_is_intact", "What was scored is the held-out side of the table, and all of it."),
    _examined("nothing_leaked", "No held-out prompt, nor a near copy of one, was trained on."),
    _examined("nothing_forgotten", "Neither challenger nor champion learned from records that were taken back."),
]
