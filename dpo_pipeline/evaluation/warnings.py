"""What a reader should know before trusting a report's headline, one sentence each."""

from collections.abc import Iterator, Mapping
from typing import Any

from dpo_pipeline.evaluation.settings import GateSettings

LEAST_FINISHED = 0.95
CONTAMINATION = {
    "in_training_pairs": "stand among the training pairs",
    "near_training_pairs": "share a cluster of near-duplicates with training pairs",
    "near_copies": "have a near copy among the trained ones",
    "in_demonstrations": "stand among the demonstrations learned from",
    "near_demonstrations": "are, or have a near copy, among the demonstrations learned from",
}


def warnings_of(report: Mapping[str, Any], gate: GateSettings) -> list[str]:
    """The warnings a report's own figures call for.

    Args:
        report: The values of report.json so far.
        gate: Gives the share of displaced pairs from which to warn.
    """
    return [
        *report["notes"],
        *_about_data(report["held_out"]),
        *_about_displacement(report, gate),
        *_about_replies(report),
    ]


def _about_data(held_out: Mapping[str, Any]) -> Iterator[str]:
    if held_out["pairs"] == 0:
        yield "There is no held-out pair: nothing could be measured on preferences."
    if left_out := held_out["pairs_left_out"]:
        yield f"{left_out} held-out pairs could not be scored (too long or malformed) and are left out."
    contamination = held_out["contamination"]
    for way, words in CONTAMINATION.items():
        is_said = way == "near_demonstrations" and contamination[way] == contamination["in_demonstrations"]
        if contamination[way] and not is_said:
            yield f"{contamination[way]} of {contamination['prompts']} held-out prompts {words}: the figures flatter."
    if golden := contamination["trained_like_golden"]:
        yield f"{golden} trained prompts are near copies of golden ones: the figures flatter."
    if contamination["near_copy_jaccard"] is None:
        yield "Near copies in training were not searched for: the pair table does not say from which likeness on."


def _about_displacement(report: Mapping[str, Any], gate: GateSettings) -> Iterator[str]:
    moved = report["preferences"][report["challenger"]]["against_reference"]
    both_fell = moved["both_fell"]["value"]
    if both_fell is not None and both_fell > gate.both_fell_share:
        yield f"Displacement: chosen and rejected reply both lost probability in {100 * both_fell:.0f} % of the pairs."


def _about_replies(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["judges"]:
        yield "No judge compared replies; the verdict rests on log-probs, a weak witness."
    for model in (*report["opponents"], report["challenger"]):
        ways = report["generations"][model]
        if "greedy" not in ways:
            yield f"{model} has no replies."
        elif (finished := ways["greedy"]["finished"]["value"]) is not None and finished < LEAST_FINISHED:
            yield f"{model}: {100 * (1 - finished):.0f} % of the greedy replies were cut at the length limit."
    yield from _about_judges(report)


def _about_judges(report: Mapping[str, Any]) -> Iterator[str]:
    own = [judge for judge in report["judges"] if judge["opponent"] == report["baseline"]]
    for judge in own if report["decision"]["outcome"] == "better" else []:
        rate = judge["win_rate"]
        if rate["low"] is not None and rate["low"] <= 0.5:
            yield (
                f"The target gains, but side by side “{judge['judge']}” does not see the challenger win: "
                f"{100 * rate['value']:.0f} % ({100 * rate['low']:.0f} to {100 * rate['high']:.0f})."
            )
    for judge in report["judges"]:
        if judge["unanswered"]:
            yield f"{judge['judge']} left {judge['unanswered']} of {judge['compared']} comparisons unanswered."
