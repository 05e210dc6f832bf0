"""The annotator report as a page and a picture: self-contained, no script, every text escaped."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
MOST_SHOWN = 60
SIGNS = {
    "disagrees": "disagrees with the others",
    "picks_by_position": "picks by position",
    "too_fast": "faster than reading",
    "one_justification": "one justification for most",
}
INK, SOFT, BLUE, RED, RULE = "#14181f", "#5b6472", "#1f56d8", "#b42318", "#e3e7ee"


def render_page(report: Mapping[str, Any], picture: bytes) -> str:
    """The whole page as text; equal reports give equal pages.

    Args:
        report: The values of report.json.
        picture: The bytes of agreement.png.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "decimal": _decimal}
    source = "data:image/png;base64," + base64.b64encode(picture).decode()
    first = sorted(report["annotators"], key=lambda row: (not row["suspected"], row["annotator"]))
    template = environment.get_template("annotators.html.j2")
    return template.render(report=report, annotators=first, picture=source, signs=SIGNS)


def draw_agreement(report: Mapping[str, Any]) -> bytes:
    """A PNG: each annotator's agreement with the others and its interval, and how sure the kept pairs are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = sorted(
        (row for row in report["annotators"] if row["agreement"] is not None), key=lambda row: row["agreement"]
    )[:MOST_SHOWN]
    figure = Figure(figsize=(11, max(3.2, 0.24 * len(rows) + 1.4)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_annotators(left, rows, report["limits"]["careless_agreement"])
    _draw_certainty(right, report["pairs"]["p_chosen_histogram"])
    buffer = io.BytesIO()
    # No date, no software version: the same report gives the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_annotators(axes: Any, rows: list[Mapping[str, Any]], limit: float) -> None:
    for place, row in enumerate(rows):
        colour = RED if row["suspected"] else (SOFT if row["few_judgments"] else BLUE)
        axes.plot([row["agreement_low"], row["agreement_high"]], [place, place], color=colour, linewidth=1.6)
        axes.plot([row["agreement"]], [place], "o", color=colour, markersize=4.5)
    axes.axvline(limit, color=RED, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [_plain(row["annotator"][:12]) for row in rows], fontsize=7)
    axes.set_xlim(0, 1)
    axes.set_title("Agreement with the other annotators, 95 % interval", fontsize=10, loc="left", color=INK)
    axes.set_xlabel("share of comparable verdicts; red: to look at again, grey: few judgments", fontsize=8, color=SOFT)
    _tidy(axes)


def _draw_certainty(axes: Any, counts: list[int]) -> None:
    axes.bar([0.525 + 0.05 * place for place in range(len(counts))], counts, width=0.045, color=BLUE)
    axes.set_xlim(0.5, 1)
    axes.set_title("How sure the kept pairs are", fontsize=10, loc="left", color=INK)
    axes.set_xlabel("probability that chosen is the better response", fontsize=8, color=SOFT)
    axes.set_ylabel("pairs", fontsize=8, color=SOFT)
    _tidy(axes)


def _tidy(axes: Any) -> None:
    axes.tick_params(labelsize=7, colors=SOFT)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _plain(text: str) -> str:
    """Text without matplotlib's mathematics."""
    return text.replace("$", r"\$")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _decimal(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
