"""The report's first screen as a picture of 1200 by 630 pixels, for the pages of Dagster and MLflow."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from dpo_pipeline.evaluation import headline

INK, SOFT, FAINT, RULE = "#14181f", "#5b6472", "#8b94a3", "#e3e7ee"
MODELS = ("#8a94a6", "#1f56d8", "#b4690e", "#b7a48b")
OUTCOMES = {"better": "#0b7a53", "not_better": "#b42318", "not_enough_evidence": "#9a6700"}
WIDTH, HEIGHT = 1200, 630


def draw_first_screen(report: Mapping[str, Any], path: Path) -> None:
    """Draw verdict, headline sentence and the six figures into a PNG; equal reports give equal bytes.

    Args:
        report: The values of report.json.
        path: The file to write.
    """
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(HEIGHT, 0)
    axes.axis("off")
    decision = report["decision"]
    held_out = report["held_out"]
    kicker = (
        f"{report['challenger']} against {report['baseline']}: {held_out['pairs']} held-out pairs, "
        f"{held_out['prompts_replied_to']} prompts"
    )
    chip = axes.text(
        52,
        56,
        decision["words"],
        size=13,
        weight="bold",
        color="white",
        va="center",
        bbox={"boxstyle": "round,pad=0.45,rounding_size=1", "fc": OUTCOMES[decision["outcome"]], "ec": "none"},
    )
    edge = chip.get_window_extent().x1
    axes.text(edge + 24, 56, kicker, size=12, color=SOFT, va="center")
    axes.text(40, 118, headline.title(report), size=27, weight="bold", color=INK, va="center", parse_math=False)
    reason = textwrap.shorten(decision["reason"], 250, placeholder=" …")
    axes.text(40, 150, textwrap.fill(reason, 122), size=11.5, color=SOFT, va="top", linespacing=1.4, parse_math=False)
    places = headline.places_of(report)
    for at, tile in enumerate(headline.tiles(report)):
        _tile(axes, tile, (40 + 380 * (at % 3), 208 + 194 * (at // 3)), places)
    axes.text(40, 607, headline.cost(report), size=9.5, color=SOFT, va="center", parse_math=False)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _tile(axes: Any, tile: headline.Tile, corner: tuple[float, float], places: Mapping[str, int]) -> None:
    x, y = corner
    axes.add_patch(
        FancyBboxPatch(corner, 360, 178, boxstyle="round,pad=0,rounding_size=10", fc="white", ec=RULE, lw=1.2)
    )
    axes.text(x + 20, y + 26, tile.label, size=11, weight="bold", color=SOFT, va="center", parse_math=False)
    spot = x + 20
    for words, colour, size in ((tile.before, MODELS[0], 25), ("→", FAINT, 18), (tile.after, INK, 25)):
        if words and (tile.before or words != "→"):
            drawn = axes.text(spot, y + 65, words, size=size, weight="bold", color=colour, va="center")
            spot = drawn.get_window_extent().x1 + 10
    if tile.scale and tile.marks:
        _strip(axes, tile, (x + 20, y + 102), places)
    axes.text(x + 20, y + 122, f"95 %: {tile.interval}" if tile.interval else "", size=9.5, color=SOFT, va="center")
    note = textwrap.fill(tile.note, 48)
    axes.text(x + 20, y + 137, note, size=9, color=SOFT, va="top", linespacing=1.35, parse_math=False)


def _strip(axes: Any, tile: headline.Tile, start: tuple[float, float], places: Mapping[str, int]) -> None:
    assert tile.scale is not None
    (left, y), (low, high) = start, tile.scale
    axes.plot([left, left + 320], [y, y], color=RULE, lw=1.2, zorder=1)
    for name, *ends in tile.marks:
        colour = MODELS[places[name] % len(MODELS)]
        middle, first, last = (left + 320 * (end - low) / (high - low) for end in ends)
        axes.plot([first, last], [y, y], color=colour, lw=4, alpha=0.45, solid_capstyle="round", zorder=2)
        axes.plot([middle], [y], "o", color=colour, ms=8, zorder=3)
