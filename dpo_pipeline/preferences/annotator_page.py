"""The annotator report as a page and a picture: self-contained, no script, every text escaped."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
MOST_SHOWN = 60
MOST_TICKS = 12
SIGNS = {
    "disagrees": "disagrees with the others",
    "picks_by_position": "picks by position",
    "too_fast": "faster than reading",
    "one_justification": "one justification for most",
}
AGREEMENT_WORDS = ((0.8, "reliably"), (0.667, "fairly"), (0.4, "moderately"), (0.2, "weakly"))
INK, SOFT, BLUE, RED, RULE = "#14181f", "#5b6472", "#1f56d8", "#b42318", "#e3e7ee"


def render_page(report: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The whole page as text; equal reports give equal pages.

    Args:
        report: The values of report.json.
        pictures: The bytes of `agreement` and `course`.
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
    sources = {
        name: "data:image/png;base64," + base64.b64encode(picture).decode() for name, picture in pictures.items()
    }
    first = sorted(report["annotators"], key=lambda row: (not row["suspected"], row["annotator"]))
    template = environment.get_template("annotators.html.j2")
    return template.render(report=report, annotators=first, pictures=sources, signs=SIGNS, headline=headline(report))


def draw_agreement(report: Mapping[str, Any]) -> bytes:
    """A PNG: each annotator's agreement with the others and its interval, and how sure the kept pairs are."""
    rows = sorted(
        (row for row in report["annotators"] if row["agreement"] is not None), key=lambda row: row["agreement"]
    )[:MOST_SHOWN]
    figure, (left, right) = _figure(max(3.2, 0.24 * len(rows) + 1.4), (3, 2))
    _draw_annotators(left, rows, report["limits"]["careless_agreement"])
    _draw_certainty(right, report["pairs"]["p_chosen_histogram"])
    return _as_png(figure)


def draw_course(report: Mapping[str, Any]) -> bytes:
    """A PNG: Krippendorff's alpha over time, by week where the judgments are dated, else by drop; and per dimension."""
    name, rows = ("week", report["by_week"]) if len(report["by_week"]) > 1 else ("drop", report["by_drop"])
    dimensions = report["dimensions"][:MOST_SHOWN]
    figure, (left, right) = _figure(max(2.6, 0.24 * len(dimensions) + 1.6), (3, 2))
    places = [place for place, row in enumerate(rows) if row["alpha_nominal"] is not None]
    left.plot(places, [rows[place]["alpha_nominal"] for place in places], "o-", color=BLUE, linewidth=1.6, markersize=4)
    step = max(1, -(-len(rows) // MOST_TICKS))
    left.set_xticks(range(0, len(rows), step), [_plain(row["name"][:16]) for row in rows[::step]], fontsize=7)
    left.set_xlim(-0.5, len(rows) - 0.5)
    lowest = min([0.0, *(rows[place]["alpha_nominal"] for place in places)])
    left.set_ylim(lowest, 1)
    left.set_title(f"Krippendorff's alpha by {name}, nominal", fontsize=10, loc="left", color=INK)
    left.set_xlabel("0 is chance, 1 perfect", fontsize=8, color=SOFT)
    for shift, kind, colour in ((-0.18, "nominal", BLUE), (0.18, "ordinal", SOFT)):
        values = [row[f"alpha_{kind}"] or 0.0 for row in dimensions]
        right.barh([place + shift for place in range(len(dimensions))], values, height=0.34, color=colour, label=kind)
    right.set_yticks(range(len(dimensions)), [_plain(row["name"][:24]) for row in dimensions], fontsize=7)
    right.set_xlim(min([0.0, *(row["alpha_nominal"] or 0.0 for row in dimensions)]), 1)
    right.set_title("Alpha per rubric dimension", fontsize=10, loc="left", color=INK)
    if dimensions:
        right.legend(fontsize=7, frameon=False)
    for axes in (left, right):
        _tidy(axes)
    return _as_png(figure)


def headline(report: Mapping[str, Any]) -> str:
    """How well the judgments agree, in one sentence.

    Krippendorff (Content Analysis, 2004) relies on an alpha of 0.8 and draws tentative conclusions from 0.667; most
    preferences lie below, for which the lower words are ours.
    """
    alpha = report["overall"]["alpha_nominal"]
    named = sum(bool(row["suspected"]) for row in report["annotators"])
    people = "nobody stands out" if not named else f"{named:,} annotator{'s' * (named > 1)} to look at again"
    if alpha is None:
        return f"No two judgments meet on one pair: agreement is unknown, {people}"
    words = next((words for least, words in AGREEMENT_WORDS if alpha >= least), "hardly")
    return f"Annotators agree {words} (alpha {alpha:.2f}), {people}"


def _figure(height: float, ratios: tuple[int, int]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, 2, width_ratios=ratios)


def _as_png(figure: Any) -> bytes:
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
