"""The point of a report in a few sentences, and its headline figures; for page, picture, manifest and trackers."""

from collections.abc import Mapping
from typing import Any

from dpo_pipeline.evaluation.wording import Figure, large, percent


def places_of(report: Mapping[str, Any]) -> dict[str, int]:
    """The place of each model, which gives its colour: baseline, challenger, further opponents; 3 for onlookers.

    >>> places_of({"models": ["base", "sft", "dpo"], "baseline": "sft", "challenger": "dpo", "opponents": ["sft"]})
    {'base': 3, 'sft': 0, 'dpo': 1}
    """
    order = list(dict.fromkeys([report["baseline"], report["challenger"], *report["opponents"]]))
    return {name: order.index(name) if name in order else 3 for name in report["models"]}


def title(report: Mapping[str, Any]) -> str:
    """The headline: what became of the target figure."""
    before, after = target_figures(report)
    label = target_label(report)
    if after.get("value") is None:
        return f"{label} could not be measured"
    if before is None:
        return f"{label}: {percent(after)}"
    return f"{label}: {percent(before)} → {percent(after)}"


def kicker(report: Mapping[str, Any]) -> str:
    """Who against whom, on how much, and whether training has seen any of it: the line above the headline."""
    held_out = report["held_out"]
    seen = held_out["contamination"]
    count = max(seen["in_training_pairs"], seen["near_training_pairs"], seen["in_demonstrations"])
    near = None if seen["near_copies"] is None else max(seen["near_copies"], seen["near_demonstrations"])
    seen_in_training = f"{count or 'none'} seen in training"
    if near is None:
        nearly = ", near copies not searched"
    else:
        nearly = " or nearly" if count == near == 0 else f", {near or 'none'} nearly"
    if seen["trained_like_golden"]:
        nearly += f", {seen['trained_like_golden']} golden ones nearly"
    return (
        f"{report['challenger']} against {report['baseline']}, {held_out['pairs']} held-out pairs, "
        f"{held_out['prompts_replied_to']} prompts, {seen_in_training}{nearly}"
    )


def against_others(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """The verdict against each further opponent, such as today's champion: opponent, outcome, words and reason."""
    return [
        {"opponent": name, "outcome": each["outcome"], "words": each["words"], "reason": each["reason"]}
        for name, each in report["decisions"].items()
        if name != report["baseline"]
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


def cost(report: Mapping[str, Any]) -> str:
    """What the training of challenger and baseline took, in one sentence; empty where the checkpoints do not say."""
    parts = []
    for name in (report["baseline"], report["challenger"]):
        counts = report["models"][name].get("counts", {})
        if "steps" in counts and "tokens" in counts:
            trained = counts.get("trained_parameters")
            size = f", {large(trained)} parameters trained" if trained else ""
            steps, planned = counts["steps"], counts.get("steps_planned", counts["steps"])
            published = counts.get("published_step", steps)
            remarks = ["stopped early"] * (steps < planned) + [f"weights of step {published:,}"] * (published < steps)
            remark = f" ({', '.join(remarks)})" if remarks else ""
            early = f"{f' of {planned:,}' if steps < planned else ''} steps{remark}"
            parts.append(f"{name} {steps:,}{early} over {large(counts['tokens'])} tokens{size}")
    return f"Cost: {'; '.join(parts)}." if parts else ""


def target_figures(report: Mapping[str, Any]) -> tuple[Figure | None, Figure]:
    """The target of baseline and challenger: rules all met, else the win rate (which has no before), else ranking."""
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


def target_label(report: Mapping[str, Any]) -> str:
    """What the target is called in a headline."""
    if report["rubric"] is not None:
        return f"{report['rubric']['passed'].capitalize()} replies"
    return "Win rate" if report["judges"] else "Ranking accuracy"
