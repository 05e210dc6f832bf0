"""Losses that are not finite stop a training before they touch a weight; the message names their examples."""

from collections.abc import Sequence

import torch

from dpo_pipeline.core.errors import TrainingError


def guard(losses: torch.Tensor, *, step: int, names: Sequence[str], lower: str) -> None:
    """Stop before the backward pass if an example's loss is not finite.

    Args:
        losses: One of each example.
        step: The step, 0-based.
        names: What the examples are called, in the order of the losses.
        lower: Which settings to lower if the examples are sound.

    Raises:
        TrainingError: Naming the examples.
    """
    is_finite = torch.isfinite(losses)
    if bool(is_finite.all()):
        return
    bad = [name for name, is_sound in zip(names, is_finite.tolist(), strict=True) if not is_sound]
    raise TrainingError(
        f"the loss of step {step + 1} is not finite for {', '.join(bad)}",
        expected="finite numbers",
        do=f"Look at these rows of the table; lower {lower} if they are sound",
    )
