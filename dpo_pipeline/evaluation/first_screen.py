"""The report's first screen as a picture of 1200 by 630 pixels, for the pages of Dagster and MLflow."""

import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from dpo_pipeline.evaluation import headline, tiles
from dpo_pipeline.evaluation.wording import visible

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
    chip = _text(
        axes,
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
    _text(axes, edge + 24, 56, headline.kicker(report), size=12, color=SOFT, va="center")
    places = headline.places_of(report)
    _key(axes, places)
    _text(axes, 40, 118, headline.title(report), size=27, weight="bold", color=INK, va="center")
    _text(axes, 40, 150, _reasons(report), size=11.5, color=SOFT, va="top", linespacing=1.4)
    for at, tile in enumerate(tiles.tiles(report)):
        _tile(axes, tile, (40 + 380 * (at % 3), 208 + 194 * (at // 3)), places)
    _text(axes, 40, 607, headline.cost(report), size=9.5, color=SOFT, va="center")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box is drawn in its place
        figure.savefig(path, dpi=100, metadata={"Software": None})


def _text(axes: Any, x: float, y: float, words: str, **style: Any) -> Any:
    """Words as they are: no mathematics, no control or direction characters at work."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        drawn = axes.text(x, y, visible(words), parse_math=False, **style)
        drawn.get_window_extent()
    return drawn


def _key(axes: Any, places: Mapping[str, int]) -> None:
    """Which colour is which model, in the upper right corner."""
    spot = WIDTH - 40
    for name in reversed(list(places)):
        drawn = _text(axes, spot, 56, name, size=11, color=SOFT, va="center", ha="right")
        spot = drawn.get_window_extent().x0 - 11
        axes.plot([spot], [56], "o", color=MODELS[places[name] % len(MODELS)], ms=7)
        spot -= 24


def _reasons(report: Mapping[str, Any]) -> str:
    """Why this verdict, and the verdict against today's champion, in three lines at most."""
    others = [
        f"Against {each['opponent']}: {each['words'].lower()}. {each['reason']}"
        for each in headline.against_others(report)
    ]
    room = 122 * (3 - len(others))
    own = textwrap.fill(textwrap.shorten(report["decision"]["reason"], min(250, room), placeholder=" …"), 122)
    return "\n".join([own, *(textwrap.shorten(other, 122, placeholder=" …") for other in others[:2])])


def _tile(axes: Any, tile: tiles.Tile, corner: tuple[float, float], places: Mapping[str, int]) -> None:
    x, y = corner
    axes.add_patch(
        FancyBboxPatch(corner, 360, 178, boxstyle="round,pad=0,rounding_size=10", fc="white", ec=RULE, lw=1.2)
    )
    _text(axes, x + 20, y + 26, tile.label, size=11, weight="bold", color=SOFT, va="center")
    spot = x + 20
    for words, colour, size in ((tile.before, MODELS[0], 25), ("→", FAINT, 18), (tile.after, INK, 25)):
        if words and (tile.before or words != "→"):
            drawn = _text(axes, spot, y + 65, words, size=size, weight="bold", color=colour, va="center")
            spot = drawn.get_window_extent().x1 + 10
    if tile.scale and tile.marks:
        _strip(axes, tile, (x + 20, y + 102), places)
    _text(axes, x + 20, y + 122, f"95 %: {tile.interval}" if tile.interval else "", size=9.5, color=SOFT, va="center")
    note = textwrap.fill(tile.note, 48)
    _text(axes, x + 20, y + 137, note, size=9, color=SOFT, va="top", linespacing=1.35)


def _strip(axes: Any, tile: tiles.Tile, start: tuple[float, float], places: Mapping[str, int]) -> None:
    assert tile.scale is not None
    (left, y), (low, high) = start, tile.scale
    axes.plot([left, left + 320], [y, y], color=RULE, lw=1.2, zorder=1)
    for name, *ends in tile.marks:
        colour = MODELS[places[name] % len(MODELS)]
        middle, first, last = (left + 320 * (end - low) / (high - low) for end in ends)
        axes.plot([first, last], [y, y], color=colour, lw=4, alpha=0.45, solid_capstyle="round", zorder=2)
        axes.plot([middle], [y], "o", color=colour, ms=8, zorder=3)
