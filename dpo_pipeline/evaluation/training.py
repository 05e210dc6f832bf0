"""What a checkpoint tells of its training: settings, cost, curves, and which demonstrations it kept aside."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.metrics import Reporter, read_metrics
from dpo_pipeline.evaluation.held_out import Conversation, HeldOut, read_held_out
from dpo_pipeline.evaluation.settings import EvaluationSettings
from dpo_pipeline.modeling.settings import ModelSettings
from dpo_pipeline.sft.demonstrations import Demonstrations, read_demonstrations
from dpo_pipeline.sft.settings import SftSettings

CURVES = (
    *("loss", "validation/loss", "rewards/margin", "rewards/accuracy", "validation/accuracy"),
    *("logps/chosen", "logps/rejected", "grad_norm", "learning_rate"),
)
CURVE_POINTS = 160


def describe_training(checkpoint: Path) -> dict[str, Any]:
    """Counts, facts and curves of a checkpoint's training; empty where its folder says nothing of it."""
    training = _read_training(checkpoint)
    return {
        "counts": training.get("counts", {}),
        "facts": training.get("facts", {}),
        "curves": thinned_curves(read_metrics(checkpoint / "metrics.jsonl")),
    }


def model_settings_of(checkpoint: Path) -> ModelSettings:
    """The model settings a checkpoint was trained with.

    Raises:
        ArtifactError: If the checkpoint does not say.
    """
    return ModelSettings.parse(_setting(checkpoint, "model"), where=f"{checkpoint / 'training.json'}")


def demonstrations_of(checkpoint: Path, demonstrations: Sequence[Path], pairs: Path) -> Demonstrations:
    """The demonstrations a checkpoint learned from and kept aside, by the settings it was trained with.

    Args:
        checkpoint: The sft_checkpoint artifact folder.
        demonstrations: The demonstrations artifact folders it was trained on.
        pairs: The preference_pairs artifact folder.

    Raises:
        ArtifactError: If the checkpoint does not say with which settings it was trained.
    """
    settings = SftSettings.parse(_setting(checkpoint, "sft"), where="the SFT checkpoint")
    return read_demonstrations(demonstrations, pairs, settings=settings, seed=_setting(checkpoint, "model")["seed"])


def what_is_asked(
    pairs: Path,
    demonstrations: Sequence[Path],
    sft: Path,
    reference: Path,
    evaluation: EvaluationSettings,
    reporter: Reporter | None = None,
) -> tuple[HeldOut, Sequence[Conversation]]:
    """The held-out pairs and prompts of an evaluation, and the demonstrations SFT kept aside.

    Args:
        pairs: The preference_pairs artifact folder.
        demonstrations: Demonstration artifact folders of all drops, as SFT got them.
        sft: The sft_checkpoint artifact folder.
        reference: The reference_logprobs artifact folder.
        evaluation: How many prompts and demonstrations.
        reporter: As of `read_held_out`.
    """
    conversations = demonstrations_of(sft, demonstrations, pairs)
    held_out = read_held_out(
        pairs,
        reference,
        prompt_count=evaluation.generation_count,
        learned=conversations.train,
        reporter=reporter,
    )
    return held_out, conversations.held_out[: evaluation.demonstration_count]


def _setting(checkpoint: Path, section: str) -> Any:
    try:
        return _read_training(checkpoint)["settings"][section]
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{checkpoint / 'training.json'} does not say '{section}' of its training",
            expected="the settings of its stage and of the model",
            do="Materialize the checkpoint again",
        ) from error


def thinned_curves(history: Sequence[Mapping[str, float | None]]) -> dict[str, list[list[Any]]]:
    """(step, mean value) points per metric, at most 160: means over equal stretches, so that noise thins out too.

    >>> thinned_curves([{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}, {"step": 3, "loss": 1.0}])
    {'loss': [[1, 2.0], [3, 1.0]]}
    """
    curves = {}
    for name in CURVES:
        known = [(line["step"], float(value)) for line in history if (value := line.get(name)) is not None]
        size = -(-len(known) // CURVE_POINTS) or 1
        stretches = [known[at : at + size] for at in range(0, len(known), size)]
        if stretches:
            curves[name] = [[stretch[-1][0], _mean([value for _, value in stretch])] for stretch in stretches]
    return curves


def _mean(values: Sequence[float]) -> float:
    return float(f"{sum(values) / len(values):.6g}")


def _read_training(checkpoint: Path) -> dict[str, Any]:
    try:
        values = json.loads((checkpoint / "training.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
