"""The release: weights that load elsewhere, a card that says what they are, the pairs in other tools' formats."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpo_pipeline.core.artifacts import MANIFEST, Outcome
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.modeling.settings import ModelSettings
from dpo_pipeline.release.cards import write_model_card
from dpo_pipeline.release.datasets import write_dataset
from dpo_pipeline.release.pair_files import write_pair_files
from dpo_pipeline.release.settings import ReleaseSettings


def release_model(
    checkpoint: Path,
    report: Path,
    pairs: Path,
    out: Path,
    *,
    release: ReleaseSettings,
    model: ModelSettings,
    promotion: Mapping[str, Any],
    reporter: Reporter,
) -> Outcome:
    """Write `model/` (weights, tokenizer, README.md), `pairs/<format>/{train,held_out}.jsonl` and `dataset/`.

    Args:
        checkpoint: The dpo_checkpoint artifact folder.
        report: The evaluation_report artifact folder.
        pairs: The preference_pairs artifact folder.
        out: Empty folder to write into.
        release: Settings of this stage.
        model: Names the base.
        promotion: Whether the gate promoted the checkpoint, how and why.
        reporter: Hears what is written.
    """
    is_adapter = (checkpoint / "model" / "adapter_config.json").exists()
    if is_adapter and release.merge_adapter:
        reporter.say("folding the adapter into the base weights")
        _merge(checkpoint / "model", out / "model")
    else:
        shutil.copytree(checkpoint / "model", out / "model")
    for pair_format in release.pair_formats:
        write_pair_files(pairs, out / "pairs" / pair_format.value, pair_format=pair_format)
    counts = {split: _manifest(pairs)["counts"][f"pairs_{split}"] for split in ("train", "held_out")}
    write_model_card(
        out / "model" / "README.md",
        base=_base_in_words(model),
        digests={folder.parent.name: folder.name for folder in (checkpoint, pairs, report)},
        # Evaluated were the held-out pairs that could be scored, a golden set's included.
        pair_counts={**counts, "held_out": _manifest(report)["counts"]["held_out_pairs"]},
        evaluation=_manifest(report)["facts"],
        promotion=promotion,
        training=_manifest(checkpoint)["settings"],
        release=release,
    )
    if release.dataset:
        write_dataset(pairs, out / "dataset", release=release)
    weights = sum(path.stat().st_size for path in (out / "model").glob("*.safetensors"))
    facts = {
        "is_adapter": is_adapter and not release.merge_adapter,
        "is_promoted": promotion["promoted"],
        "checkpoint": checkpoint.name,
    }
    if not promotion["promoted"]:
        reporter.say(f"NOT PROMOTED, the card says so: {promotion['reason']}")
    return Outcome(
        counts={"weight_bytes": weights, **{f"pairs_{split}": n for split, n in counts.items()}}, facts=facts
    )


def _merge(adapter: Path, out: Path) -> None:
    from dpo_pipeline.modeling.policy import load_policy

    policy, tokenizer = load_policy(adapter, device="cpu")
    policy.merge_and_unload().save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)


def _base_in_words(model: ModelSettings) -> str:
    if model.scratch is not None:
        return "random weights (no base model)"
    return model.hub or "a base model in a local folder"


def _manifest(folder: Path) -> Mapping[str, Any]:
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
