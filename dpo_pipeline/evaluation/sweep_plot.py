"""The frontier of a sweep as a picture: what was learned against how far the policy moved, with intervals."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, SOFT, FAINT, RULE = "#14181f", "#5b6472", "#8b94a3", "#e3e7ee"
COLOURS = ("#1f56d8", "#b4690e", "#0b7a53", "#8f3fb0", "#b42318", "#5b6472", "#0e7490", "#a16207")
DIVERGENCE = "kl_per_reply"
PANELS = (
    ("implicit_accuracy", "implicit reward accuracy on held-out pairs"),
    ("dpo/passed", "replies within the rubric"),
)


def draw_frontier(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG with a panel per figure that was measured; equal rows give equal bytes.

    Args:
        rows: As in sweep.json: `loss`, `beta`, ..., figures as [value, low, high] or None, `frontier_of`, `is_broken`.
    """
    panels = [panel for panel in PANELS if any(row[panel[0]] for row in rows)] or [PANELS[0]]
    figure = Figure(figsize=(6.4 * len(panels), 4.9), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    families = dict.fromkeys(_family(row) for row in rows)
    for place, (name, label) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for family, colour in zip(families, _cycled(len(families)), strict=True):
            _draw_family(axes, [row for row in rows if _family(row) == family], name, family, colour)
        _draw_frontier(axes, [row for row in rows if name in row["frontier_of"]], name)
        _dress(axes, label)
        _name_points(axes, [row for row in rows if row[name] and row[DIVERGENCE]], name)
        if place == 0:
            axes.legend(frameon=False, fontsize=8.5, loc="best", title="training", title_fontsize=8.5)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def _family(row: Mapping[str, Any]) -> str:
    """What the points of one line share: all but beta, as in the paper's figure."""
    epochs = f"{row['epochs']:g} epoch{'' if row['epochs'] == 1 else 's'}"
    return f"{row['loss']}, rate {row['learning_rate']:g}, {epochs}"


def _cycled(count: int) -> list[str]:
    return [COLOURS[at % len(COLOURS)] for at in range(count)]


def _draw_family(axes: Any, rows: Sequence[Mapping[str, Any]], name: str, family: str, colour: str) -> None:
    drawn = sorted((row for row in rows if row[name] and row[DIVERGENCE]), key=lambda row: row["beta"])
    if not drawn:
        return
    across, up = ([row[key] for row in drawn] for key in (DIVERGENCE, name))
    axes.plot([x[0] for x in across], [y[0] for y in up], color=colour, lw=1.2, alpha=0.6, zorder=2)
    axes.errorbar(
        [x[0] for x in across],
        [y[0] for y in up],
        xerr=_arms(across),
        yerr=_arms(up),
        fmt="o",
        ms=6,
        color=colour,
        elinewidth=1,
        alpha=0.85,
        zorder=3,
        label=family,
    )
    for row, x, y in zip(drawn, across, up, strict=True):
        if row["is_broken"]:
            axes.plot([x[0]], [y[0]], "x", color="white", ms=5, mew=1.5, zorder=4)


def _name_points(axes: Any, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """Beta beside each point; a name that would fall onto another moves down."""
    taken: list[tuple[float, float]] = []
    for row in sorted(rows, key=lambda row: row["beta"]):
        x, y = axes.transData.transform((row[DIVERGENCE][0], row[name][0]))
        drop = 0
        while any(abs(x - other_x) < 45 and abs(y - drop - other_y) < 11 for other_x, other_y in taken):
            drop += 11
        taken.append((x, y - drop))
        axes.annotate(
            f"β {row['beta']:g}{' ×' if row['is_broken'] else ''}",
            (row[DIVERGENCE][0], row[name][0]),
            textcoords="offset pixels",
            xytext=(8, -13 - drop),
            fontsize=8,
            color=INK,
            zorder=5,
        )


def _arms(figures: Sequence[Sequence[float]]) -> list[list[float]]:
    """Lengths of the error bars to both sides; rounding must not make one negative."""
    return [
        [max(0.0, value - low) for value, low, _ in figures],
        [max(0.0, high - value) for value, _, high in figures],
    ]


def _draw_frontier(axes: Any, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    best = sorted(rows, key=lambda row: row[DIVERGENCE][0])
    if len(best) > 1:
        across, up = [row[DIVERGENCE][0] for row in best], [row[name][0] for row in best]
        axes.step(across, up, where="post", color=FAINT, lw=1, ls="--", zorder=1, label="frontier")


def _dress(axes: Any, label: str) -> None:
    axes.set_xlabel("KL from the SFT model, nats a reply", color=SOFT, fontsize=9.5)
    axes.set_ylabel(label, color=SOFT, fontsize=9.5)
    low, high = axes.get_ylim()
    digits = 0 if high - low > 0.06 else 1
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.{digits}f} %")
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    axes.grid(color=RULE, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)
