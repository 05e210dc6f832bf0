"""The curves of a training as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

COLUMNS = 2  # what fits the dialog in which Dagster shows a picture, on a laptop
POINTS = 600
NOISY_FROM = 50
EXACT = ("learning_rate",)
"""Metrics without noise: a mean drawn beside them would only lag behind."""

Panel = tuple[str, Sequence[str]]

SFT_PANELS: Sequence[Panel] = (
    ("Loss (nats per token)", ("loss", "validation/loss")),
    ("Gradient norm", ("grad_norm",)),
    ("Learning rate", ("learning_rate",)),
)
DPO_PANELS: Sequence[Panel] = (
    ("Loss", ("loss", "validation/loss")),
    ("Reward margin", ("rewards/margin", "validation/margin")),
    ("Share of pairs ranked right", ("rewards/accuracy", "validation/accuracy")),
    ("Rewards", ("rewards/chosen", "rewards/rejected")),
    ("Log-probs (nats)", ("logps/chosen", "logps/rejected")),
    ("Gradient norm", ("grad_norm",)),
    ("Learning rate", ("learning_rate",)),
)
SPEED_PANELS: Sequence[Panel] = (("Tokens a second", ("tokens_per_second",)),)
"""Never part of an artifact: the same training at another speed is the same training."""


def draw_curves(
    history: Sequence[Mapping[str, float | None]], path: Path | IO[bytes], *, panels: Sequence[Panel]
) -> None:
    """Write a PNG with one panel per group of metrics; the same history gives the same bytes.

    Args:
        history: Numbers by step, as in metrics.jsonl.
        path: The picture to write, or an open file.
        panels: Title and metric names of each panel.
    """
    # Only now: matplotlib takes 15 % of what a training imports, and no process but the first ever draws.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(3.6 * columns, 2.2 * rows), dpi=110, layout="constrained")
        for number, (title, names) in enumerate(panels, start=1):
            axes = figure.add_subplot(rows, columns, number)
            axes.set_title(title)
            axes.set_xlabel("step")
            shown = [(name, *_series(history, name)) for name in names]
            for name, steps, values in shown:
                if not steps:
                    continue
                is_noisy = len(steps) > NOISY_FROM and name not in EXACT
                axes.plot(steps, values, label=name, linewidth=0.9, alpha=0.35 if is_noisy else 1)
                if is_noisy:
                    axes.plot(steps, _smooth(values), color=axes.lines[-1].get_color(), linewidth=1.5)
            if sum(bool(steps) for _, steps, _ in shown) > 1:
                axes.legend(frameon=False)
        figure.savefig(path, metadata={"Software": None})


def _series(history: Sequence[Mapping[str, float | None]], name: str) -> tuple[list[float], list[float]]:
    measured = [line for line in history if line.get(name) is not None]
    stride = max(1, len(measured) // POINTS)
    pairs = [(line["step"], line[name]) for line in measured[::stride]]
    return [float(step or 0) for step, _ in pairs], [float(value or 0) for _, value in pairs]


def _smooth(values: Sequence[float]) -> list[float]:
    """An exponential mean over about a twentieth of the curve, corrected for its start."""
    keep, mean, weight, smoothed = 1 - 20 / max(len(values), 40), 0.0, 0.0, []
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(mean / weight)
    return smoothed
