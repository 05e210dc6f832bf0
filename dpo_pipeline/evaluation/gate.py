"""The rule that says better, not better or not enough evidence; the report's verdict and the gate to champion use it.

Nothing here knows models or files: evidence in, decision out.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from dpo_pipeline.evaluation.settings import GateSettings
from dpo_pipeline.evaluation.statistics import Estimate, bootstrap_mean, sign_flip_p_value

LEAST_CLUSTERS = 10
"""Fewer clusters than this are no sample: resampling one of them draws an interval of no width around any gain."""


GUARDS = {
    "empty_replies": "Empty replies",
    "kl_per_token": "KL per token",
    "cut_replies": "Rise of cut replies",
    "repetition": "Rise of repetition",
    "distinct_2": "Distinct-2 kept",
    "perplexity": "Growth of perplexity",
    "ranking_accuracy": "Ranking accuracy",
}
"""Figures that a profile may leave unguarded, and the name of the check of each."""


class Finding(StrEnum):
    """What a challenger is, compared with the one it challenges."""

    BETTER = "better"
    NOT_BETTER = "not_better"
    NOT_ENOUGH_EVIDENCE = "not_enough_evidence"

    @property
    def words(self) -> str:
        """The outcome as a headline.

        >>> Finding.NOT_BETTER.words
        'Not better'
        """
        return self.value.replace("_", " ").capitalize()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one model showed on the held-out set; two of them are compared on the items they share.

    Attributes:
        model: Name shown in sentences.
        target: The figure to gain: value in [0, 1] per item (a prompt or pair), NaN where it could not be measured.
        rankings: Per held-out pair, whether the chosen response is the more probable one.
        clusters: Prompt cluster of each item of `target` and `rankings`; an item not named stands for itself.
        not_finite: Held-out pairs whose log-probs are not numbers.
        empty_share: Share of greedy replies that say nothing; None where none were generated.
        unfinished_share: Share of greedy replies cut at the length limit.
        repetition: Share of repeated word 4-grams in the greedy replies.
        distinct_2: Different word 2-grams over all sampled replies, as a share.
        log_loss: Nats per token on held-out demonstrations.
        kl_per_token: KL divergence from the reference, nats per token of sampled replies; None for the reference.
    """

    model: str
    target: Mapping[str, float]
    rankings: Mapping[str, bool]
    clusters: Mapping[str, str] = field(default_factory=dict)
    not_finite: int = 0
    empty_share: float | None = None
    unfinished_share: float | None = None
    repetition: float | None = None
    distinct_2: float | None = None
    log_loss: float | None = None
    kl_per_token: float | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of the rule: what was found, what is allowed, and whether it held (None: undecided)."""

    name: str
    found: str
    allowed: str
    held: bool | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"name": self.name, "found": self.found, "allowed": self.allowed, "held": self.held}


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome, the reason in a sentence, the gain on the target figure and every condition looked at."""

    outcome: Finding
    reason: str
    gain: Estimate
    p_value: float
    checks: tuple[Check, ...]

    @property
    def promotes(self) -> bool:
        """Whether the challenger may take the champion's place."""
        return self.outcome is Finding.BETTER

    def as_dict(self) -> dict[str, Any]:
        """Plain values for report.json."""
        return {
            "outcome": self.outcome.value,
            "words": self.outcome.words,
            "reason": self.reason,
            "gain": self.gain.as_dict(),
            "p_value": round(self.p_value, 6),
            "checks": [check.as_dict() for check in self.checks],
        }


def stated_rule(settings: GateSettings, *, target: str) -> list[str]:
    """The rule in sentences, for the report."""
    target_rule = (
        f"The target is {target}. The challenger is better when the lower end of the 95 % interval of the paired "
        f"difference lies above {100 * settings.least_gain:g} points; not better when the upper end does not; "
        "otherwise the evidence is not enough."
    )
    least_rule = (
        f"Fewer than {settings.least_prompts} items in common, or fewer than {LEAST_CLUSTERS} clusters of similar "
        "prompts among them, are never enough."
    )
    guards = (
        "Guards, whatever the target says: all log-probs are numbers; ranking accuracy shown not to fall by "
        f"{100 * settings.accuracy_margin:g} points or more; perplexity on held-out demonstrations at most "
        f"{settings.perplexity_ratio:g} times as high; at most {settings.kl_per_token:g} nats of KL per token; "
        f"replies cut at the limit up by at most {100 * settings.unfinished_rise:g} points; "
        f"repetition up by at most {settings.repetition_rise:g}; distinct-2 at least {settings.diversity_ratio:g} of "
        f"what it was; at most {100 * settings.empty_share:g} % of the replies empty."
    )
    return [target_rule, least_rule, guards]


def decide_promotion(
    challenger: Evidence, champion: Evidence, settings: GateSettings, *, seed: int = 17, samples: int = 2_000
) -> Decision:
    """Whether the challenger is better than the champion, by the stated rule.

    Args:
        challenger: Evidence of the new model.
        champion: Evidence of the model it is compared with, on the same held-out set.
        settings: Margins of the rule.
        seed: Seed of the resampling.
        samples: Resamples behind the intervals.

    Returns:
        The decision. Laws: a model is never better than itself; a broken guard is never `better`; fewer common items
        than `least_prompts`, or fewer clusters of them than `LEAST_CLUSTERS`, are never `better`.
    """
    gain, p_value = _paired(challenger.target, champion.target, challenger.clusters, seed=seed, samples=samples)
    compared = _differences(challenger.target, champion.target)
    checks = (
        _enough(gain, len({challenger.clusters.get(item, item) for item in compared}), settings),
        *_health(challenger, settings),
        *_relative(challenger, champion, settings),
        _accuracy(challenger, champion, settings, seed=seed, samples=samples),
    )
    outcome, reason = _weigh(gain, checks, settings, names=(challenger.model, champion.model))
    return Decision(outcome, reason, gain, p_value, checks)


def weigh_again(
    verdict: Mapping[str, Any], settings: GateSettings, *, guarded: Collection[str], names: tuple[str, str]
) -> dict[str, Any]:
    """A verdict of a report under fewer guards: the figures are those measured, only what they may forbid differs.

    Args:
        verdict: A decision as plain values.
        settings: The margins it was made with.
        guarded: Names in `GUARDS` of the figures that count.
        names: Challenger and opponent, for sentences.
    """
    ignored = {words for name, words in GUARDS.items() if name not in guarded}
    checks = tuple(Check(**check) for check in verdict["checks"])
    gain = Estimate(**verdict["gain"])
    outcome, reason = _weigh(gain, tuple(check for check in checks if check.name not in ignored), settings, names=names)
    again = Decision(outcome, reason, gain, verdict["p_value"], checks).as_dict()
    return again | {"checks": [check | {"is_guarded": check["name"] not in ignored} for check in again["checks"]]}


def _weigh(
    gain: Estimate, checks: tuple[Check, ...], settings: GateSettings, *, names: tuple[str, str]
) -> tuple[Finding, str]:
    enough, *guards = checks
    broken = [check for check in guards if check.held is False]
    if broken:
        faults = "; ".join(f"{check.name}: {check.found}, allowed is {check.allowed}" for check in broken)
        return Finding.NOT_BETTER, f"A guarded figure is broken. {faults[0].upper()}{faults[1:]}."
    if not enough.held or gain.value is None or gain.low is None or gain.high is None:
        return Finding.NOT_ENOUGH_EVIDENCE, f"Found {enough.found}; the rule asks for {enough.allowed}."
    size = _points(gain)
    if gain.high <= settings.least_gain:
        return Finding.NOT_BETTER, f"{names[0]} does not gain on {names[1]}: the difference is {size}."
    if gain.low <= settings.least_gain:
        return (
            Finding.NOT_ENOUGH_EVIDENCE,
            f"{names[0]} differs from {names[1]} by {size}; that may be {100 * settings.least_gain:g} or less.",
        )
    if undecided := [check for check in guards if check.held is None]:
        open_points = "; ".join(f"{check.name}: {check.found}, allowed is {check.allowed}" for check in undecided)
        return Finding.NOT_ENOUGH_EVIDENCE, f"The gain is {size}, but a guard could not be decided. {open_points}."
    return Finding.BETTER, f"{names[0]} gains {size} on {names[1]}, and every guarded figure holds."


def _paired(
    challenger: Mapping[str, float],
    champion: Mapping[str, float],
    clusters: Mapping[str, str],
    *,
    seed: int,
    samples: int,
) -> tuple[Estimate, float]:
    """Mean difference over the items both have, with its interval and p-value."""
    known = _differences(challenger, champion)
    groups = [clusters.get(item, item) for item in known]
    values = list(known.values())
    return (
        bootstrap_mean(values, seed=seed, samples=samples, groups=groups),
        sign_flip_p_value(values, seed=seed, samples=samples, groups=groups),
    )


def _differences(challenger: Mapping[str, float], champion: Mapping[str, float]) -> dict[str, float]:
    """The difference on each item both have, in the order of their names; items with a NaN are left out."""
    differences = {
        item: float(challenger[item]) - float(champion[item]) for item in sorted(challenger.keys() & champion.keys())
    }
    return {item: value for item, value in differences.items() if np.isfinite(value)}


def _points(change: Estimate) -> str:
    """A difference of shares in percentage points."""
    if change.value is None or change.low is None or change.high is None:
        return "unknown"
    return f"{100 * change.value:+.1f} points ({100 * change.low:+.1f} to {100 * change.high:+.1f})"


def _enough(gain: Estimate, clusters: int, settings: GateSettings) -> Check:
    return Check(
        "Items compared",
        f"{gain.count} items in {clusters} clusters measured on both sides",
        f"at least {settings.least_prompts} in {LEAST_CLUSTERS}",
        gain.count >= settings.least_prompts and clusters >= LEAST_CLUSTERS,
    )


def _health(challenger: Evidence, settings: GateSettings) -> list[Check]:
    checks = [
        Check(
            "Log-probs",
            f"{challenger.not_finite} of {len(challenger.rankings)} pairs without a finite log-prob",
            "none",
            challenger.not_finite == 0,
        )
    ]
    if challenger.empty_share is not None:
        share, most = 100 * challenger.empty_share, 100 * settings.empty_share
        checks.append(_at_most("Empty replies", share, most, unit=" %"))
    if challenger.kl_per_token is not None:
        checks.append(_at_most("KL per token", challenger.kl_per_token, settings.kl_per_token, unit=" nats"))
    return checks


def _relative(challenger: Evidence, champion: Evidence, settings: GateSettings) -> list[Check]:
    checks = []
    if challenger.unfinished_share is not None and champion.unfinished_share is not None:
        rise = 100 * (challenger.unfinished_share - champion.unfinished_share)
        checks.append(_at_most("Rise of cut replies", rise, 100 * settings.unfinished_rise, unit=" points"))
    if challenger.repetition is not None and champion.repetition is not None:
        rise = challenger.repetition - champion.repetition
        checks.append(_at_most("Rise of repetition", rise, settings.repetition_rise))
    if challenger.distinct_2 is not None and champion.distinct_2:
        ratio = challenger.distinct_2 / champion.distinct_2
        held = bool(ratio >= settings.diversity_ratio) if np.isfinite(ratio) else False
        checks.append(Check("Distinct-2 kept", f"{ratio:.3g}", f"at least {settings.diversity_ratio:g}", held))
    if challenger.log_loss is not None and champion.log_loss is not None:
        with np.errstate(over="ignore"):
            ratio = float(np.exp(np.float64(challenger.log_loss - champion.log_loss)))
        checks.append(_at_most("Growth of perplexity", ratio, settings.perplexity_ratio, unit=" times"))
    return checks


def _at_most(name: str, found: float, limit: float, *, unit: str = "") -> Check:
    """A guard on a number; one that came out as no number breaks it."""
    allowed = f"at most {limit:g}{unit}"
    if not np.isfinite(found):
        return Check(name, "could not be measured", allowed, held=False)
    return Check(name, f"{found:.3g}{unit}", allowed, bool(found <= limit))


def _accuracy(challenger: Evidence, champion: Evidence, settings: GateSettings, *, seed: int, samples: int) -> Check:
    """Non-inferiority: the lower end of the paired difference must lie above minus the margin."""
    change, _ = _paired(challenger.rankings, champion.rankings, challenger.clusters, seed=seed, samples=samples)
    allowed = f"a fall of less than {100 * settings.accuracy_margin:g} points"
    if change.value is None or change.low is None or change.high is None:
        return Check("Ranking accuracy", "no pair in common", allowed, None)
    found = _points(change)
    if change.low > -settings.accuracy_margin:
        return Check("Ranking accuracy", found, allowed, held=True)
    held = False if change.high <= -settings.accuracy_margin else None
    return Check("Ranking accuracy", found, allowed, held)
