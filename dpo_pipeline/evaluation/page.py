"""report.html from report.json: one self-contained page without script, every text escaped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dpo_pipeline.evaluation import charts, headline, tiles, wording

TEMPLATES = Path(__file__).parent / "templates"
CURVES = (
    ("loss", "loss"),
    ("validation/loss", "loss on what was kept aside"),
    ("validation/accuracy", "share ranked right of what was kept aside"),
    ("rewards/margin", "reward margin"),
    ("rewards/accuracy", "share of pairs ranked right"),
    ("logps/chosen", "log-prob of chosen"),
    ("logps/rejected", "log-prob of rejected"),
    ("grad_norm", "gradient norm"),
    ("learning_rate", "learning rate"),
)


def render_page(report: Mapping[str, Any]) -> str:
    """The whole page as text; equal reports give equal pages.

    Args:
        report: The values of report.json, as `build_report` returns them or as read back from the file.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "number": wording.number,
        "interval": wording.interval,
        "p_value": wording.p_value,
        "visible": wording.visible,
    }
    places = headline.places_of(report)
    figures = tiles.tiles(report)
    return environment.get_template("report.html.j2").render(
        report=report,
        title=headline.title(report),
        kicker=headline.kicker(report),
        others=headline.against_others(report),
        cost=headline.cost(report),
        tiles=[(tile, _strip(tile, places)) for tile in figures],
        places=places,
        charts=_charts(report, places),
        now=report["generations"][report["challenger"]],
        benchmarks=_benchmark_rows(report),
        moved=report["preferences"][report["challenger"]]["against_reference"],
    )


def _strip(tile: tiles.Tile, places: Mapping[str, int]) -> Markup | None:
    return charts.interval_strip(tile.marks, tile.scale, places) if tile.scale and tile.marks else None


def _charts(report: Mapping[str, Any], places: Mapping[str, int]) -> dict[str, Any]:
    moved = report["preferences"][report["challenger"]]["against_reference"]
    judge = report["judges"][0] if report["judges"] else None
    rules = _rule_rows(report)
    return {
        "rules": charts.interval_rows(rules, places, title="Share of replies that meet each rule") if rules else None,
        "rewards": _slices(report, places, "implicit_accuracy", "Accuracy of the implicit reward by slice"),
        "rankings": _slices(report, places, "ranking_accuracy", "Ranking accuracy by slice"),
        "judges": charts.outcome_bars(report["judges"]) if report["judges"] else None,
        "lengths": charts.length_strips(judge["by_length"]) if judge else None,
        "gaps": charts.overlaid_histograms(
            report["gaps"], places, axis="log-prob of chosen minus log-prob of rejected, in nats"
        ),
        "calibration": charts.reliability(moved["calibration"]["bins"]) if moved else None,
        "curves": _curves(report, places),
    }


def _benchmark_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per task and metric with each model's figure, in the order of the first model that took it."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for name, taken in report["benchmarks"].items():
        for each in taken:
            key = (each["task"], each["metric"])
            row = rows.setdefault(key, {"task": key[0], "metric": key[1], "count": each["count"], "figures": {}})
            row["figures"][name] = each
    return list(rows.values())


def _rule_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All rules together first, then each rule, judged replies of every model."""
    decoding = report["judged_decoding"]
    judged = {name: ways[decoding] for name, ways in report["generations"].items() if decoding in ways}
    rules = next((list(each["rules"]) for each in judged.values() if each["rules"]), [])
    if not rules:
        return []
    whole = {"label": "every rule", "note": "", "figures": {name: each["passed"] for name, each in judged.items()}}
    return [
        whole,
        *(
            {"label": rule, "note": "", "figures": {name: each["rules"][rule] for name, each in judged.items()}}
            for rule in rules
        ),
    ]


def _slices(report: Mapping[str, Any], places: Mapping[str, int], figure: str, title: str) -> Markup | None:
    """Both pictures have the same rows at the same heights; a model that has no such figure leaves its lane empty."""
    rows, family = [], None
    for each in report["slices"]:
        row = {
            "label": wording.visible(each["label"]),
            "note": f"n {each['count']}",
            "figures": {name: each[figure].get(name) for name in places},
        }
        if each["family"] != family:
            family = row["family"] = each["family"]
        rows.append(row)
    return charts.interval_rows(rows, places, title=title) if rows else None


def _curves(report: Mapping[str, Any], places: Mapping[str, int]) -> list[Markup]:
    found = []
    for name, facts in report["models"].items():
        for key, words in CURVES:
            points = [point for point in facts.get("curves", {}).get(key, []) if point[1] is not None]
            if len(points) > 1:
                found.append(charts.curve(points, title=f"{name}: {words}", place=places[name]))
    return found
