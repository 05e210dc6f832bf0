"""When a training stops early: a function of its history, so that a resumed one stops where a straight one does."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.modeling.batches import Group


class Watched(StrEnum):
    """The number on examples kept aside by which a stage tells whether it still gets better."""

    ACCURACY = "validation/accuracy"
    LOSS = "validation/loss"

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self is Watched.ACCURACY else -1


def is_kept_aside(group: Group, *, share: float, seed: int) -> bool:
    """Whether a prompt is for validation: a function of its tokens, so that more examples move no earlier one."""
    return share > 0 and seed_for(seed, "validation", group.prompt.tobytes().hex()) < share * 2**63


def is_time_to_validate(step: int, *, steps: int, times: int) -> bool:
    """Whether a validation follows this step, 0-based: after the last one and evenly before it, at most `times` in all.

    >>> [step for step in range(9) if is_time_to_validate(step, steps=9, times=2)]
    [4, 8]
    >>> [step for step in range(3) if is_time_to_validate(step, steps=3, times=10)]
    [0, 1, 2]
    """
    return (step + 1) * times // steps > step * times // steps


def is_stale(history: Sequence[Mapping[str, Any]], watched: Watched, *, patience: int) -> bool:
    """Whether a validation has just been made and the last `patience` of them brought nothing better than before.

    >>> lines = [{"validation/accuracy": value} for value in (0.6, 0.8, 0.8, 0.7)]
    >>> [is_stale(lines, Watched.ACCURACY, patience=patience) for patience in (2, 3, 0)]
    [True, False, False]
    >>> is_stale([{"validation/loss": 2.0}, {"validation/loss": 1.9}], Watched.LOSS, patience=1)
    False
    """
    if not patience or not history or watched not in history[-1]:
        return False  # at every other step, so that looking back costs nothing
    seen = [watched.sign * line[watched] for line in history if watched in line]
    return patience < len(seen) and max(seen[-patience:]) <= max(seen[:-patience])


def best_steps(history: Sequence[Mapping[str, Any]], watched: Watched) -> list[int]:
    """The steps, from 1, whose validation was better than all before it; the last of them is the best.

    >>> lines = [{"validation/accuracy": 0.6}, {}, {"validation/accuracy": 0.8}, {"validation/accuracy": 0.8}]
    >>> best_steps(lines, Watched.ACCURACY)
    [1, 3]
    """
    found, highest = list[int](), float("-inf")
    for step, line in enumerate(history, start=1):
        if watched in line and watched.sign * line[watched] > highest:
            found, highest = [*found, step], watched.sign * line[watched]
    return found


def early_stop(history: Sequence[Mapping[str, Any]], watched: Watched, *, patience: int, steps: int) -> str:
    """The end of a training that stopped early, in words for its record; empty where it went through all its steps.

    >>> lines = [{"step": step, "validation/loss": 2.0} for step in (1, 2)]
    >>> early_stop(lines, Watched.LOSS, patience=1, steps=9)
    'after step 2 of 9: the last validation brought no better loss than 2 (step 1)'
    >>> early_stop(lines, Watched.LOSS, patience=1, steps=2)
    ''
    """
    if len(history) == steps or not is_stale(history, watched, patience=patience):
        return ""
    best = history[best_steps(history, watched)[-1] - 1]
    last = "the last validation" if patience == 1 else f"the last {patience} validations"
    figure = f"{watched.rpartition('/')[2]} than {best[watched]:.4g} (step {best['step']})"
    return f"after step {history[-1]['step']} of {steps}: {last} brought no better {figure}"
