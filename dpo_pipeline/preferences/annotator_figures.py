"""The pictures of the annotator report, as PNG: equal reports give equal bytes."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MOST_SHOWN = 60
MOST_TICKS = 10
INK, SOFT, BLUE, RED, RULE, PALE = "#14181f", "#5b6472", "#1f56d8", "#b42318", "#e3e7ee", "#b9c7ec"

Row = Mapping[str, Any]


def draw_all(report: Row) -> dict[str, bytes]:
    """Every picture of a report by its name."""
    drawers: dict[str, Callable[[Row], bytes]] = {
        "agreement": draw_agreement,
        "manners": draw_manners,
        "course": draw_course,
        "pairs": draw_pairs,
    }
    return {name: draw(report) for name, draw in drawers.items()}


def shown_annotators(report: Row) -> list[Row]:
    """The annotators that are drawn, from the top down: of many, those suspected, who agree least, who judged most.

    Those nobody else judged a pair with stand below, by how much they judged.
    """

    def agreement(row: Row) -> float:
        return 2.0 if row["agreement"] is None else row["agreement"]

    chosen = sorted(
        report["annotators"],
        key=lambda row: (not row["suspected"], agreement(row), -row["judgments"], row["annotator"]),
    )[:MOST_SHOWN]
    return sorted(
        chosen, key=lambda row: (row["agreement"] is None, -agreement(row), -row["judgments"], row["annotator"])
    )


def draw_agreement(report: Row) -> bytes:
    """Each annotator's agreement with the others and its interval, and the reliability the consensus gives them."""
    rows = [row for row in shown_annotators(report)[::-1] if row["agreement"] is not None]
    figure, axes = _figure(max(2.4, 0.24 * len(rows) + 1.3), [1])
    (axis,) = axes
    for place, row in enumerate(rows):
        colour = _colour(row, "disagrees")
        axis.plot([row["agreement_low"], row["agreement_high"]], [place, place], color=colour, linewidth=1.6)
        axis.plot([row["agreement"]], [place], "o", color=colour, markersize=4.5)
        if row["reliability"] is not None:
            axis.plot([row["reliability"]], [place], "D", markerfacecolor="none", color=SOFT, markersize=4)
    limit = report["limits"]["careless_agreement"]
    axis.axvline(limit, color=RED, linewidth=0.8, linestyle=":")
    axis.axvline(0.5, color=RULE, linewidth=1.0)
    _name_rows(axis, rows)
    axis.set_xlim(-0.02, 1.02)
    axis.set_title("Agreement with the other annotators, 95 % interval", fontsize=10, loc="left", color=INK)
    axis.set_xlabel(
        "share of comparable verdicts; red: disagrees, pale: few judgments, dotted: limit; diamond: reliability",
        fontsize=8,
        color=SOFT,
    )
    return _as_png(figure)


def draw_manners(report: Row) -> bytes:
    """How each annotator works, a panel per habit: position, length, ties, seconds, justifications."""
    rows = shown_annotators(report)[::-1]
    figure, axes = _figure(max(2.4, 0.24 * len(rows) + 1.3), [3, 3, 2, 2, 2])
    overall = report["overall"]
    _panel(axes[0], rows, "first_share", "picks_by_position", interval="first", middle=0.5)
    axes[0].set_title("Prefers what stood first", fontsize=9, loc="left", color=INK)
    _panel(axes[1], rows, "longer_share", "picks_by_length", interval="longer", middle=overall["longer_share"])
    axes[1].set_title("Prefers the longer one", fontsize=9, loc="left", color=INK)
    _panel(axes[2], rows, "tie_share", None, middle=overall["tie_share"])
    axes[2].set_title("Calls it a tie", fontsize=9, loc="left", color=INK)
    _panel(axes[3], rows, "seconds_median", "too_fast")
    axes[3].set_title("Seconds, median", fontsize=9, loc="left", color=INK)
    seconds = [row["seconds_median"] for row in rows if row["seconds_median"] is not None]
    axes[3].set_xlim(0, max([1.0, *seconds]) * 1.1)
    _panel(axes[4], rows, "justification_top_share", "one_justification")
    axes[4].set_title("Same justification", fontsize=9, loc="left", color=INK)
    for axis in axes[1:]:
        axis.set_yticklabels([])
    return _as_png(figure)


def draw_course(report: Row) -> bytes:
    """Agreement over time, by week where the judgments are dated, else by drop; and alpha per rubric dimension."""
    name, rows = ("week", report["by_week"]) if len(report["by_week"]) > 1 else ("drop", report["by_drop"])
    dimensions = report["dimensions"][:MOST_SHOWN]
    figure, (left, right) = _figure(max(3.2, 0.3 * len(dimensions) + 1.6), [3, 2])
    lines = (("alpha_nominal", "alpha, nominal", BLUE), ("alpha_ordinal", "alpha, ordinal", SOFT))
    lowest = 0.0
    for key, label, colour in (*lines, ("raw_agreement", "raw agreement", PALE)):
        known = [(place, row[key]) for place, row in enumerate(rows) if row[key] is not None]
        if known:
            left.plot(*zip(*known, strict=True), "o-", color=colour, linewidth=1.6, markersize=4, label=label)
        lowest = min([lowest, *(value for _, value in known)])
    step = max(1, -(-len(rows) // MOST_TICKS))
    labels = [_plain(row["name"][5:] if name == "week" else row["name"][:16]) for row in rows[::step]]
    left.set_xticks(range(0, len(rows), step), labels, fontsize=7)
    left.set_xlim(-0.5, max(len(rows), 1) - 0.5)
    left.set_ylim(lowest, 1)
    left.set_title(f"Agreement by {name}", fontsize=10, loc="left", color=INK)
    left.set_xlabel(_span(name, rows), fontsize=8, color=SOFT)
    if left.lines:
        left.legend(fontsize=7, frameon=False, ncols=3, loc="upper left")
    else:
        _say(left, f"no two judgments of one {name} meet on a pair")
    for shift, (key, label, colour) in zip((0.18, -0.18), lines, strict=True):
        values = [row[key] or 0.0 for row in dimensions]
        right.barh([place + shift for place in range(len(dimensions))], values, height=0.34, color=colour, label=label)
    right.set_yticks(range(len(dimensions)), [_plain(row["name"][:24]) for row in dimensions], fontsize=7)
    right.set_xlim(min([0.0, *(row["alpha_nominal"] or 0.0 for row in dimensions)]), 1)
    right.set_title("Alpha per rubric dimension", fontsize=10, loc="left", color=INK)
    right.set_xlabel("0 is chance, 1 perfect", fontsize=8, color=SOFT)
    if not dimensions:
        _say(right, "the judgments name no dimension")
    elif all(row["alpha_nominal"] is None for row in dimensions):
        _say(right, "no two judgments meet on a dimension of a pair")
    return _as_png(figure)


def draw_pairs(report: Row) -> bytes:
    """How sure the kept pairs are, and why others were left out."""
    reasons = sorted(report["pairs"]["excluded"].items(), key=lambda item: (item[1], item[0]))[-14:]
    figure, (left, right) = _figure(max(2.8, 0.24 * len(reasons) + 1.2), [3, 2])
    counts = report["pairs"]["p_chosen_histogram"]
    left.bar([0.525 + 0.05 * place for place in range(len(counts))], counts, width=0.045, color=BLUE)
    left.set_xlim(0.5, 1)
    left.set_title(f"How sure the {report['pairs']['kept']:,} kept pairs are", fontsize=10, loc="left", color=INK)
    left.set_xlabel("probability that chosen is the better response", fontsize=8, color=SOFT)
    left.set_ylabel("pairs", fontsize=8, color=SOFT)
    right.barh(range(len(reasons)), [count for _, count in reasons], height=0.6, color=SOFT)
    right.set_yticks(range(len(reasons)), [_plain(name.replace("_", " ")) for name, _ in reasons], fontsize=7)
    for place, (_, count) in enumerate(reasons):
        right.annotate(f" {count:,}", (count, place), va="center", fontsize=7, color=SOFT)
    right.margins(x=0.15)
    right.set_title("Pairs left out, by reason", fontsize=10, loc="left", color=INK)
    return _as_png(figure)


def _panel(
    axis: Any,
    rows: Sequence[Row],
    key: str,
    sign: str | None,
    *,
    interval: str | None = None,
    middle: float | None = None,
) -> None:
    """A dot per annotator, red where the sign is raised, with its interval where there is one."""
    for place, row in enumerate(rows):
        if row[key] is None:
            continue
        colour = _colour(row, sign)
        if interval is not None:
            ends = [row[f"{interval}_low"], row[f"{interval}_high"]]
            axis.plot(ends, [place, place], color=colour, linewidth=1.4)
        axis.plot([row[key]], [place], "o", color=colour, markersize=4)
    if middle is not None:
        axis.axvline(middle, color=SOFT, linewidth=0.8, linestyle=":")
    axis.set_xlim(-0.02, 1.02)
    _name_rows(axis, rows)
    if all(row[key] is None for row in rows):
        _say(axis, "not in the exports")


def _say(axis: Any, sentence: str) -> None:
    """Why a panel shows nothing."""
    axis.text(0.5, 0.5, sentence, transform=axis.transAxes, ha="center", va="center", fontsize=8, color=SOFT)


def _colour(row: Row, sign: str | None) -> str:
    if sign in row["suspected"]:
        return RED
    return PALE if row["few_judgments"] else BLUE


def _name_rows(axis: Any, rows: Sequence[Row]) -> None:
    axis.set_yticks(range(len(rows)), [_plain(row["annotator"][:12]) for row in rows], fontsize=7)
    axis.set_ylim(-0.7, max(len(rows), 1) - 0.3)


def _span(name: str, rows: Sequence[Row]) -> str:
    if name == "week" and rows:
        return (
            f"weeks by their Monday, {rows[0]['name']} to {rows[-1]['name']}; only judgments of one week are compared"
        )
    return "only judgments of one drop are compared"


def _figure(height: float, ratios: Sequence[int]) -> tuple[Any, Sequence[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
    for axis in axes:
        axis.tick_params(labelsize=7, colors=SOFT)
        axis.grid(axis="x", color=RULE, linewidth=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    return figure, axes


def _as_png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    # No date, no software version: the same report gives the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _plain(text: str) -> str:
    """Text without matplotlib's mathematics."""
    return text.replace("$", r"\$")
