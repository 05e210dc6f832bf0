"""The points of a sweep side by side: reward accuracy against KL, the frontier of the DPO paper, as table, plot, page.

The plot is figure 2 of arXiv 2305.18290 for preference data: how much of the preference a policy learned against how
far it moved from the reference to do so. A point is on the frontier if no other one is at least as good at less KL.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dpo_pipeline.core.artifacts import Artifact, Outcome
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.evaluation.page import TEMPLATES
from dpo_pipeline.evaluation.sweep_plot import draw_frontier

SCHEMA = "dpo-pipeline/sweep/1"
ACCURACY, DIVERGENCE, TARGET = "implicit_accuracy", "kl_per_reply", "dpo/passed"
AXES = ("loss", "beta", "learning_rate", "epochs")


def report_sweep(points: Mapping[str, Artifact], out: Path) -> Outcome:
    """Write `sweep.json`, `frontier.png`, `table.md` and `report.html`.

    Args:
        points: The sweep_point artifacts by name, all from the same tables and the same SFT checkpoint.
        out: An empty folder.

    Raises:
        InputError: If there is no point.
    """
    if not points:
        raise InputError(
            "there is no point of a sweep on today's tables and SFT checkpoint",
            expected="at least one",
            do="Run `dpo-pipeline sweep --beta 0.05 0.1 0.5`, or materialize partitions of sweep_point",
        )
    rows = sorted((_row(name, artifact) for name, artifact in points.items()), key=_order)
    for figure in (ACCURACY, TARGET):
        for row in frontier(rows, figure):
            row["frontier_of"].append(figure)
    (out / "sweep.json").write_text(json.dumps({"schema": SCHEMA, "points": rows}, indent=1) + "\n", encoding="utf-8")
    picture = draw_frontier(rows)
    (out / "frontier.png").write_bytes(picture)
    (out / "table.md").write_text(_markdown(rows), encoding="utf-8")
    (out / "report.html").write_text(_page(rows, picture), encoding="utf-8")
    best = [row["point"] for row in rows if ACCURACY in row["frontier_of"]]
    counts = {"points_on_frontier": len(best), "points_broken": sum(row["is_broken"] for row in rows)}
    facts = {
        "on_frontier": best,
        "on_frontier_of_target": [row["point"] for row in rows if TARGET in row["frontier_of"]],
    }
    return Outcome(counts={"points": len(rows), **counts}, facts=facts)


def frontier(rows: Sequence[dict[str, Any]], figure: str = ACCURACY) -> list[dict[str, Any]]:
    """The rows that no other one dominates, by KL ascending; rows with a figure missing are on no frontier.

    Law: every row left out has more or equal KL and a figure less than or equal to that of some row of the frontier.
    """
    known = [row for row in rows if _value(row, figure) is not None and _value(row, DIVERGENCE) is not None]
    kept: list[dict[str, Any]] = []
    for row in sorted(known, key=lambda row: (row[DIVERGENCE][0], -row[figure][0])):
        if not kept or row[figure][0] > kept[-1][figure][0]:
            kept.append(row)
    return kept


def _row(name: str, artifact: Artifact) -> dict[str, Any]:
    """A point's settings and figures; a figure is [value, low, high] or None."""
    facts = artifact.facts
    return {
        "point": name,
        "artifact": artifact.digest,
        **{axis: facts[axis] for axis in AXES},
        **{figure: _figure(facts, figure) for figure in (ACCURACY, DIVERGENCE, TARGET)},
        "outcome": facts["outcome"],
        "reason": facts["reason"],
        "is_broken": str(facts["reason"]).startswith("A guarded figure is broken"),
        "frontier_of": [],
    }


def _figure(facts: Mapping[str, Any], name: str) -> list[float] | None:
    return None if name not in facts else [facts[name], facts[f"{name}/low"], facts[f"{name}/high"]]


def _value(row: Mapping[str, Any], name: str) -> float | None:
    return None if row[name] is None else row[name][0]


def _order(row: Mapping[str, Any]) -> tuple[float, str]:
    divergence = _value(row, DIVERGENCE)
    return (float("inf") if divergence is None else divergence, row["point"])


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["loss"]),
        *(f"{row[axis]:g}" for axis in AXES[1:]),
        _shown(row[ACCURACY], share=True),
        _shown(row[DIVERGENCE], share=False),
        _shown(row[TARGET], share=True),
        str(row["outcome"]).replace("_", " "),
    ]


HEADINGS = (
    "loss",
    "beta",
    "learning rate",
    "epochs",
    "reward accuracy",
    "KL, nats a reply",
    "replies within the rubric",
    "against SFT",
)


def _shown(figure: Sequence[float] | None, *, share: bool) -> str:
    if figure is None:
        return "not measured"
    if share:
        return "{:.1f} % ({:.0f}–{:.0f})".format(*(100 * value for value in figure))
    return "{:.2f} ({:.2f}–{:.2f})".format(*figure)


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"| | {' | '.join(HEADINGS)} |", "|---" * (len(HEADINGS) + 1) + "|"]
    lines += [
        f"| {'**frontier**' if ACCURACY in row['frontier_of'] else ''} | {' | '.join(_cells(row))} |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def _in_a_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many points lie on the frontier, and the one of them that learned most."""
    best = [row for row in rows if ACCURACY in row["frontier_of"]]
    if not best:
        return "No point could be measured."
    most = best[-1]
    further = "".join(
        f" Most replies within the rubric: {_shown(row[TARGET], share=True)} ({row['point']})."
        for row in [row for row in rows if TARGET in row["frontier_of"]][-1:]
    )
    return (
        f"{len(best)} of {len(rows)} points are on the frontier; the highest reward accuracy is "
        f"{_shown(most[ACCURACY], share=True)} at {_shown(most[DIVERGENCE], share=False)} nats a reply "
        f"({most['point']}).{further}"
    )


def _page(rows: Sequence[Mapping[str, Any]], picture: bytes) -> str:
    """One self-contained page without script; every text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("sweep.html.j2").render(
        point=_in_a_sentence(rows),
        picture=base64.b64encode(picture).decode(),
        headings=HEADINGS,
        rows=[{**row, "cells": _cells(row), "is_best": ACCURACY in row["frontier_of"]} for row in rows],
    )
