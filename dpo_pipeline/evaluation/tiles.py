"""The six figures of the first screen, for the page and for the picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpo_pipeline.evaluation.headline import target_label
from dpo_pipeline.evaluation.wording import Figure, interval, number, percent


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of the first screen.

    Attributes:
        label: What it is.
        before: The baseline's value in words; empty where only the challenger has one.
        after: The challenger's value in words, or a dash.
        interval: The 95 % interval or intervals in words.
        note: One short sentence that says how to read it.
        marks: (model, value, low, high) on the scale, for the small interval strip.
        scale: Left and right end of that strip; None: no strip.
    """

    label: str
    before: str
    after: str
    interval: str
    note: str
    marks: tuple[tuple[str, float, float, float], ...] = ()
    scale: tuple[float, float] | None = None


def tiles(report: Mapping[str, Any]) -> list[Tile]:
    """The six figures of the first screen, those that could not be measured included."""
    return [
        _target_tile(report),
        _win_tile(report),
        _accuracy_tile(report),
        _divergence_tile(report),
        _displacement_tile(report),
        _forgetting_tile(report),
    ]


def _target_tile(report: Mapping[str, Any]) -> Tile:
    if report["rubric"] is None:
        return Tile("Rules met", "", "–", "", "No rubric is set; rules would be checked reply by reply.")
    decoding = report["judged_decoding"]
    ways = {name: own.get(decoding, {}) for name, own in report["generations"].items()}
    replies = ways[report["challenger"]].get("count", 0)
    note = f"{decoding.capitalize()} replies to {replies} held-out prompts that meet every rule."
    return _share_tile(target_label(report), {name: own.get("passed") for name, own in ways.items()}, note, report)


def _win_tile(report: Mapping[str, Any]) -> Tile:
    if not report["judges"]:
        return Tile("Win rate", "", "–", "", "No judge is set.")
    judge = report["judges"][0]
    controlled = percent(judge["length_controlled_win_rate"])
    note = f"{judge['wins']} won, {judge['ties']} tied, {judge['losses']} lost; {controlled} at equal length."
    label = f"Win rate against {judge['opponent']}"
    return _share_tile(label, {report["challenger"]: judge["win_rate"]}, note, report)


def _accuracy_tile(report: Mapping[str, Any]) -> Tile:
    figures = {name: own["ranking_accuracy"] for name, own in report["preferences"].items()}
    note = f"Held-out pairs whose chosen reply is the more probable one; {report['held_out']['pairs']} pairs."
    return _share_tile("Ranking accuracy", figures, note, report)


def _divergence_tile(report: Mapping[str, Any]) -> Tile:
    found = report["divergence"].get(report["challenger"], {})
    figure = found.get("kl_per_reply")
    after = number(figure)
    note = f"KL from the reference per sampled reply; {number(found.get('kl_per_token'))} per token."
    words = after if after == "–" else f"{after} nats"
    return Tile("Moved by", "", words, interval(figure, share=False), note)


def _displacement_tile(report: Mapping[str, Any]) -> Tile:
    moved = {name: own["against_reference"] or {} for name, own in report["preferences"].items()}
    figures = {name: own.get("chosen_fell") for name, own in moved.items() if name != report["baseline"]}
    both = percent(moved[report["challenger"]].get("both_fell"))
    note = f"Displacement: pairs where it lost probability; both in {both}."
    return _share_tile("Chosen reply fell", figures, note, report)


def _forgetting_tile(report: Mapping[str, Any]) -> Tile:
    before, after = (report["perplexity"][name] for name in (report["baseline"], report["challenger"]))
    spans = " → ".join(filter(None, (interval(before, share=False), interval(after, share=False))))
    note = f"On {report['held_out']['demonstrations']} held-out demonstrations: what was forgotten."
    return Tile("Perplexity", number(before), number(after), spans, note)


def _share_tile(label: str, figures: Mapping[str, Figure | None], note: str, report: Mapping[str, Any]) -> Tile:
    """A share with its strip: baseline and challenger in words, any further opponent as a mark beside them."""
    known = {name: figure for name, figure in figures.items() if figure is not None and figure["value"] is not None}
    before, after = figures.get(report["baseline"]), figures.get(report["challenger"])
    shown = [name for name in (*report["opponents"], report["challenger"]) if name in known]
    spans = " → ".join(filter(None, (interval(before), interval(after))))
    return Tile(
        label,
        percent(before) if report["baseline"] in figures else "",
        percent(after),
        f"{spans} %" if spans else "",
        note,
        tuple((name, known[name]["value"], known[name]["low"], known[name]["high"]) for name in shown),
        (0.0, 1.0),
    )
