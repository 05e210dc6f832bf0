"""The model card: what the model is, what it learned from, how it did, in numbers taken from the artifacts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dpo_pipeline.core.digests import short

FIGURES = {
    "sft/passed": "replies within the rubric, SFT",
    "dpo/passed": "replies within the rubric, DPO",
    "implicit_accuracy": "held-out pairs whose chosen reply gained more",
    "kl_per_reply": "divergence from SFT, nats per reply",
    "share_chosen_fell": "held-out pairs whose chosen reply became less likely",
}


def write_model_card(
    path: Path,
    *,
    base: str,
    digests: Mapping[str, str],
    pair_counts: Mapping[str, int],
    evaluation: Mapping[str, Any],
    promotion: Mapping[str, Any],
) -> None:
    """Write a Hugging Face model card.

    Args:
        path: The README.md to write.
        base: What the model was made from, in words.
        digests: Artifact digest by kind: checkpoint, pairs, report.
        pair_counts: Pairs per split.
        evaluation: The evaluation report's facts.
        promotion: Whether the gate promoted the checkpoint, how and why.
    """
    front = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["dpo", "dpo-pipeline"]}
    rows = [
        f"| {label} | {evaluation[name]:.3f} | {evaluation[f'{name}/low']:.3f} to {evaluation[f'{name}/high']:.3f} |"
        for name, label in FIGURES.items()
        if name in evaluation
    ]
    made = (
        f"Made from {base} by supervised fine-tuning and direct preference optimization on "
        f"{pair_counts['train']:,} preference pairs; evaluated on {pair_counts['held_out']:,} held-out pairs."
    )
    check = (
        f"`dpo-pipeline lineage show dpo_checkpoint/{short(digests['dpo_checkpoint'])}` names the annotation files "
        "behind it; `dpo-pipeline lineage verify` re-hashes them."
    )
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=True)}---",
        "# Model card",
        made,
        _standing(promotion),
        f"**Verdict of the evaluation: {evaluation['outcome'].replace('_', ' ')}.** {evaluation['reason']}",
        "\n".join(["| figure | value | 95 % interval |", "|---|---|---|", *rows]),
        "## Lineage",
        "\n".join(f"- {kind}: `{digest}`" for kind, digest in digests.items()),
        check,
    ]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _standing(promotion: Mapping[str, Any]) -> str:
    """One paragraph: champion by the rule, champion by hand, or not promoted."""
    reason = " ".join(str(promotion["reason"]).replace("<", "&lt;").split())
    if not promotion["promoted"]:
        return f"**Not promoted: this model is not for use.** {reason}"
    how = "by a person's decision" if promotion["mode"] == "manual" else "by the stated rule"
    return f"**Champion, promoted {how}.** {reason}"
