"""The point of a report in one sentence and six figures; the page's first screen and the picture both show these."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Figure = Mapping[str, Any]


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


def places_of(report: Mapping[str, Any]) -> dict[str, int]:
    """The place of each model, which gives its colour: baseline, challenger, then the others, the last shown first.

    >>> places_of({"models": ["base", "sft", "dpo", "champion"], "baseline": "sft", "challenger": "dpo"})
    {'base': 3, 'sft': 0, 'dpo': 1, 'champion': 2}
    """
    others = [
        name for name in reversed(list(report["models"])) if name not in {report["baseline"], report["challenger"]}
    ]
    order = [report["baseline"], report["challenger"], *others]
    return {name: order.index(name) for name in report["models"]}


def title(report: Mapping[str, Any]) -> str:
    """The headline: what became of the target figure."""
    before, after = _target(report)
    label = _target_label(report)
    if after.get("value") is None:
        return f"{label} could not be measured"
    if before is None:
        return f"{label}: {percent(after)}"
    return f"{label}: {percent(before)} → {percent(after)}"


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


def headline_facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """The headline figures flat, for manifests and trackers: floats by name, and the outcome in words."""
    baseline, challenger = report["baseline"], report["challenger"]
    moved = report["preferences"][challenger]["against_reference"] or {}
    named: dict[str, Figure | None] = {
        "gain_on_target": report["decision"]["gain"],
        "implicit_accuracy": moved.get("implicit_accuracy"),
        "margin": moved.get("margin"),
        "chosen_log_prob_change": moved.get("chosen_change"),
        "share_chosen_fell": moved.get("chosen_fell"),
        "share_both_fell": moved.get("both_fell"),
        "kl_per_reply": report["divergence"].get(challenger, {}).get("kl_per_reply"),
    }
    if report["judges"]:
        named["win_rate"] = report["judges"][0]["win_rate"]
        named["length_controlled_win_rate"] = report["judges"][0]["length_controlled_win_rate"]
    for name in (baseline, challenger):
        ways = report["generations"][name].get(report["judged_decoding"], {})
        named |= {
            f"{name}/ranking_accuracy": report["preferences"][name]["ranking_accuracy"],
            f"{name}/passed": ways.get("passed"),
            f"{name}/words": ways.get("words"),
            f"{name}/repetition": ways.get("repetition"),
            f"{name}/perplexity": report["perplexity"][name],
        }
    facts: dict[str, Any] = {"outcome": report["decision"]["outcome"], "reason": report["decision"]["reason"]}
    for name, figure in named.items():
        if figure is not None and figure["value"] is not None:
            facts[name] = float(figure["value"])
            facts |= {f"{name}/low": float(figure["low"]), f"{name}/high": float(figure["high"])}
    return facts


def percent(figure: Figure | None) -> str:
    """A share as a percentage, one decimal only where it matters; a dash where it is missing.

    >>> percent({"value": 0.965}), percent({"value": 0.9963}), percent(None)
    ('96 %', '99.6 %', '–')
    """
    if figure is None or figure["value"] is None:
        return "–"
    value = 100 * figure["value"]
    return f"{value:.1f} %" if 99 < value < 100 or 0 < value < 1 else f"{value:.0f} %"


def number(figure: Figure | None, *, digits: int = 3) -> str:
    """A figure with so many significant digits; a dash where it is missing.

    >>> number({"value": 1.18342}), number({"value": None})
    ('1.18', '–')
    """
    return "–" if figure is None or figure["value"] is None else _signed(f"{figure['value']:.{digits}g}")


def interval(figure: Figure | None, *, share: bool = True) -> str:
    """The ends of an interval in words; empty where it is missing.

    >>> interval({"low": 0.43, "high": 0.57}), interval({"low": 1.18342, "high": 1.21}, share=False)
    ('43–57', '1.18–1.21')
    """
    if figure is None or figure["low"] is None:
        return ""
    if share:
        return f"{100 * figure['low']:.0f}–{100 * figure['high']:.0f}"
    low, high = (_signed(f"{figure[end]:.3g}") for end in ("low", "high"))
    return f"{low} to {high}" if figure["low"] < 0 else f"{low}–{high}"


def _signed(words: str) -> str:
    """A number with a real minus sign."""
    return words.replace("-", "−")


def cost(report: Mapping[str, Any]) -> str:
    """What the training of each model took, in one sentence; empty where the checkpoints do not say."""
    parts = []
    for name, facts in report["models"].items():
        counts = facts.get("counts", {})
        if "steps" in counts and "tokens" in counts:
            trained = counts.get("trained_parameters")
            size = f", {large(trained)} parameters trained" if trained else ""
            parts.append(f"{name} {counts['steps']:,} steps over {large(counts['tokens'])} tokens{size}")
    return f"Cost: {'; '.join(parts)}." if parts else ""


def large(count: int) -> str:
    """A count in thousands, millions or billions, two or three digits.

    >>> large(950), large(604_672), large(1_234_567), large(8_030_000_000)
    ('950', '605 k', '1.23 M', '8.03 B')
    """
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def p_value(value: float) -> str:
    """A p-value in words, never as a bare zero.

    >>> p_value(0.04213), p_value(0.00001)
    ('= 0.042', '< 0.001')
    """
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"


def _target(report: Mapping[str, Any]) -> tuple[Figure | None, Figure]:
    baseline, challenger = report["baseline"], report["challenger"]
    if report["rubric"] is not None:
        missing = {"value": None, "low": None, "high": None}
        before = report["generations"][baseline].get(report["judged_decoding"], {}).get("passed")
        after = report["generations"][challenger].get(report["judged_decoding"], {}).get("passed")
        return before or missing, after or missing
    if report["judges"]:
        return None, report["judges"][0]["win_rate"]
    accuracies = report["preferences"]
    return accuracies[baseline]["ranking_accuracy"], accuracies[challenger]["ranking_accuracy"]


def _target_label(report: Mapping[str, Any]) -> str:
    if report["rubric"] is not None:
        return f"{report['rubric']['passed'].capitalize()} replies"
    return "Win rate" if report["judges"] else "Ranking accuracy"


def _target_tile(report: Mapping[str, Any]) -> Tile:
    if report["rubric"] is None:
        return Tile("Rules met", "", "–", "", "No rubric is set; rules would be checked reply by reply.")
    before, after = _target(report)
    decoding = report["judged_decoding"]
    replies = report["generations"][report["challenger"]].get(decoding, {}).get("count", 0)
    note = f"{decoding.capitalize()} replies to {replies} held-out prompts that meet every rule."
    return _share_tile(_target_label(report), before, after, note, report)


def _win_tile(report: Mapping[str, Any]) -> Tile:
    if not report["judges"]:
        return Tile("Win rate", "", "–", "", "No judge is set.")
    judge = report["judges"][0]
    controlled = percent(judge["length_controlled_win_rate"])
    note = f"{judge['wins']} won, {judge['ties']} tied, {judge['losses']} lost; {controlled} at equal length."
    return _share_tile("Win rate", None, judge["win_rate"], note, report)


def _accuracy_tile(report: Mapping[str, Any]) -> Tile:
    before, after = (
        report["preferences"][name]["ranking_accuracy"] for name in (report["baseline"], report["challenger"])
    )
    note = f"Held-out pairs whose chosen reply is the more probable one; {report['held_out']['pairs']} pairs."
    return _share_tile("Ranking accuracy", before, after, note, report)


def _divergence_tile(report: Mapping[str, Any]) -> Tile:
    found = report["divergence"].get(report["challenger"], {})
    figure = found.get("kl_per_reply")
    per_token = number(found.get("kl_per_token"))
    note = f"KL from the reference per sampled reply; {per_token} per token."
    return _plain_tile("Moved by", number(figure), "nats", figure, note)


def _displacement_tile(report: Mapping[str, Any]) -> Tile:
    moved = report["preferences"][report["challenger"]]["against_reference"] or {}
    figure = moved.get("chosen_fell")
    both = percent(moved.get("both_fell"))
    return _share_tile(
        "Chosen reply fell", None, figure, f"Displacement: pairs where it lost probability; both in {both}.", report
    )


def _forgetting_tile(report: Mapping[str, Any]) -> Tile:
    before, after = (report["perplexity"][name] for name in (report["baseline"], report["challenger"]))
    spans = " → ".join(filter(None, (interval(before, share=False), interval(after, share=False))))
    return Tile(
        "Perplexity",
        number(before),
        number(after),
        spans,
        f"On {report['held_out']['demonstrations']} held-out demonstrations: what was forgotten.",
    )


def _share_tile(label: str, before: Figure | None, after: Figure | None, note: str, report: Mapping[str, Any]) -> Tile:
    pairs = ((report["baseline"], before), (report["challenger"], after))
    marks = tuple(
        (name, figure["value"], figure["low"], figure["high"])
        for name, figure in pairs
        if figure is not None and figure["value"] is not None
    )
    spans = " → ".join(filter(None, (interval(before), interval(after))))
    return Tile(
        label,
        "" if before is None else percent(before),
        percent(after),
        f"{spans} %" if spans else "",
        note,
        marks,
        (0.0, 1.0),
    )


def _plain_tile(label: str, value: str, unit: str, figure: Figure | None, note: str) -> Tile:
    after = value if value == "–" else f"{value} {unit}"
    return Tile(label, "", after, interval(figure, share=False), note)
