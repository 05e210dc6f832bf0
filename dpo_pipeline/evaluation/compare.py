"""Two evaluation reports side by side, and the gate between their challengers from what they left on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dpo_pipeline.evaluation.evidence import guarded_figures
from dpo_pipeline.evaluation.gate import Decision, Evidence, decide_promotion
from dpo_pipeline.evaluation.report import read_report
from dpo_pipeline.evaluation.settings import EvaluationSettings
from dpo_pipeline.evaluation.wording import number, percent

SCHEMA = "dpo-pipeline/report-comparison/1"

# Figure, path inside a report, whether more is better, whether it is a share. In a path None stands for the
# challenger's name and "judged" for the decoding that was judged.
FIGURES: tuple[tuple[str, tuple[str | None, ...], bool, bool], ...] = (
    ("Replies that meet every rule", ("generations", None, "judged", "passed"), True, True),
    ("Ranking accuracy", ("preferences", None, "ranking_accuracy"), True, True),
    ("Accuracy of the implicit reward", ("preferences", None, "against_reference", "implicit_accuracy"), True, True),
    ("Chosen reply fell", ("preferences", None, "against_reference", "chosen_fell"), False, True),
    ("KL per token, nats", ("divergence", None, "kl_per_token"), False, False),
    ("Perplexity on demonstrations", ("perplexity", None), False, False),
    ("Words per reply", ("generations", None, "judged", "words"), False, False),
    ("Repeated 4-grams", ("generations", None, "greedy", "repetition"), False, True),
)


def compare_reports(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The challengers of two reports figure by figure, as plain values.

    A difference is called only where the two 95 % intervals do not touch: the reports know no pairs, so this is
    stricter than a paired test (`decide_between` makes one).

    Args:
        first: The values of one report.json.
        second: The values of the other.

    Returns:
        `same_held_out` and `rows`: figure, both estimates, and `better`: first, second or neither; None where a
        figure is missing on one side.
    """
    rows = []
    for name, path, more_is_better, is_share in FIGURES:
        left, right = (_figure(report, path) for report in (first, second))
        better = _better(left, right, more_is_better=more_is_better)
        rows.append({"figure": name, "is_share": is_share, "first": left, "second": right, "better": better})
    return {
        "schema": SCHEMA,
        "same_held_out": first["held_out"]["pairs_sha256"] == second["held_out"]["pairs_sha256"],
        "rows": rows,
    }


def comparison_text(comparison: Mapping[str, Any], *, names: tuple[str, str] = ("A", "B")) -> str:
    """The comparison as a table for a terminal."""
    lines = [f"{'':34}{names[0]:>16}{names[1]:>16}   better"]
    winners = {"first": names[0], "second": names[1], "neither": "within the noise", None: "not measured"}
    for row in comparison["rows"]:
        shown = percent if row["is_share"] else number
        left, right = (shown(row[side]) for side in ("first", "second"))
        lines.append(f"{row['figure']:34}{left:>16}{right:>16}   {winners[row['better']]}")
    if not comparison["same_held_out"]:
        lines.append("The held-out pairs differ: evaluate both on the same ones before deciding.")
    return "\n".join(lines)


def decide_between(challenger: Path, champion: Path, *, settings: EvaluationSettings, model: str = "dpo") -> Decision:
    """The gate's decision between the models of two evaluation_report artifacts, paired item by item.

    Args:
        challenger: Folder of the challenger's evaluation_report.
        champion: Folder of the champion's evaluation_report.
        settings: Margins, resamples and seed.
        model: Which model of each report is meant.

    Returns:
        The decision over the held-out items both reports share; with few of them, not enough evidence.

    Raises:
        ArtifactError: If a report cannot be read.
    """
    new, old = (
        _evidence_of(folder, model, label) for folder, label in ((challenger, "challenger"), (champion, "champion"))
    )
    return decide_promotion(new, old, settings.gate, seed=settings.seed, samples=settings.bootstrap_samples)


def _evidence_of(folder: Path, model: str, label: str) -> Evidence:
    """Evidence of one model as its evaluation wrote it down; the target is the rubric's, else ranking accuracy."""
    report = read_report(folder / "report.json")
    scores = _rows(folder / "scores.parquet", model, ["pair_id", "cluster_id", "chosen_log_prob", "rejected_log_prob"])
    replies = _rows(folder / "replies.parquet", model, ["prompt_id", "cluster_id", "decoding", "rules"])
    rankings = {row["pair_id"]: row["chosen_log_prob"] > row["rejected_log_prob"] for row in scores}
    passed = {
        row["prompt_id"]: float(all(rule["met"] for rule in row["rules"]))
        for row in replies
        if row["decoding"] == report["judged_decoding"] and row["rules"]
    }
    clusters = {row["pair_id"]: row["cluster_id"] for row in scores}
    clusters |= {row["prompt_id"]: row["cluster_id"] for row in replies}
    return Evidence(
        model=label,
        target=passed or {key: float(right) for key, right in rankings.items()},
        rankings=rankings,
        clusters=clusters,
        **guarded_figures(report, model),
    )


def _rows(path: Path, model: str, columns: list[str]) -> list[dict[str, Any]]:
    return pq.read_table(path, columns=columns, filters=[("model", "=", model)]).to_pylist()


def _figure(report: Mapping[str, Any], path: tuple[str | None, ...]) -> Mapping[str, Any] | None:
    value: Any = report
    for step in path:
        key = {None: report["challenger"], "judged": report["judged_decoding"]}.get(step, step)
        value = (value or {}).get(key)
    return value


def _better(left: Mapping[str, Any] | None, right: Mapping[str, Any] | None, *, more_is_better: bool) -> str | None:
    if left is None or right is None or left["value"] is None or right["value"] is None:
        return None
    if left["low"] <= right["high"] and right["low"] <= left["high"]:
        return "neither"
    return "first" if (left["value"] > right["value"]) == more_is_better else "second"
