"""What a model thinks of the held-out pairs: accuracy, margins, displacement, calibration, slices. Pure functions.

N held-out pairs, sorted by pair_id. Log-probs are summed over the response's tokens, in nats.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpo_pipeline.evaluation.replies import words_of
from dpo_pipeline.evaluation.resampling import bootstrap_quantiles, bootstrap_sums
from dpo_pipeline.evaluation.statistics import (
    Estimate,
    Floats,
    bootstrap_mean,
    mcnemar_p_value,
    sign_flip_p_value,
    wilson,
)

CALIBRATION_EDGES = np.linspace(0.5, 1.0, 6)
PERCENTILES = (10, 50, 90)
MAX_LABELS = 12
"""Most labels of one family of slices shown alone."""


@dataclass(frozen=True, slots=True)
class PairScores:
    """One model's log-probs of N pairs, (N,) each."""

    chosen: Floats
    rejected: Floats
    chosen_tokens: NDArray[np.int64]
    rejected_tokens: NDArray[np.int64]

    @property
    def is_finite(self) -> NDArray[np.bool_]:
        """Per pair, whether both log-probs are numbers, (N,)."""
        return np.isfinite(self.chosen) & np.isfinite(self.rejected)

    @property
    def ranks_right(self) -> NDArray[np.bool_]:
        """Whether chosen is more probable than rejected, (N,); a tie or a NaN is wrong."""
        return self.chosen > self.rejected

    @property
    def ranks_right_per_token(self) -> NDArray[np.bool_]:
        """The same by mean log-prob per token, which does not favour the shorter response, (N,)."""
        return self.chosen / np.maximum(self.chosen_tokens, 1) > self.rejected / np.maximum(self.rejected_tokens, 1)


@dataclass(frozen=True, slots=True)
class Measure:
    """How figures are measured: resamples, seed, and which pairs share a prompt.

    Attributes:
        groups: Label of each pair's prompt cluster, (N,); clusters are resampled whole.
        samples: Resamples behind each interval.
        seed: Seed of the resampling.
    """

    groups: NDArray[np.str_]
    samples: int
    seed: int

    def mean(self, values: ArrayLike, *, weights: ArrayLike | None = None, where: ArrayLike | None = None) -> Estimate:
        """The mean with its interval, of all pairs or of those where `where` holds."""
        kept = np.ones(len(self.groups), dtype=bool) if where is None else np.asarray(where, dtype=bool)
        heavy = None if weights is None else np.asarray(weights)[kept]
        return bootstrap_mean(
            np.asarray(values)[kept],
            seed=self.seed,
            samples=self.samples,
            weights=heavy,
            groups=self.groups[kept],
        )

    def quantiles(self, values: Floats) -> dict[str, Any]:
        """Tenth, half and ninetieth of the finite values with their intervals: a distribution in three figures."""
        is_known = np.isfinite(values)
        found = bootstrap_quantiles(
            values[is_known], PERCENTILES, seed=self.seed, samples=self.samples, groups=self.groups[is_known]
        )
        return {f"p{share}": each.as_dict() for share, each in zip(PERCENTILES, found, strict=True)}

    def p_value(self, differences: ArrayLike) -> float:
        """Two-sided p-value of "no difference" by sign flips of whole clusters."""
        return sign_flip_p_value(differences, seed=self.seed, samples=self.samples, groups=self.groups)


def ranking_figures(scores: PairScores, measure: Measure) -> dict[str, Any]:
    """Ranking accuracy of one model by its own log-probs, summed and per token, as plain values."""
    return {
        "not_finite": int((~scores.is_finite).sum()),
        "ranking_accuracy": measure.mean(scores.ranks_right).as_dict(),
        "ranking_accuracy_per_token": measure.mean(scores.ranks_right_per_token).as_dict(),
        "chosen_log_prob": measure.mean(scores.chosen).as_dict(),
        "rejected_log_prob": measure.mean(scores.rejected).as_dict(),
        "chosen_nats_per_token": measure.mean(
            scores.chosen / np.maximum(scores.chosen_tokens, 1), weights=scores.chosen_tokens
        ).as_dict(),
    }


def reference_figures(scores: PairScores, reference: PairScores, *, beta: float, measure: Measure) -> dict[str, Any]:
    """How a policy moved away from its reference on the held-out pairs, as plain values.

    implicit reward = beta * (log-prob under the policy - log-prob under the reference); the Bradley-Terry probability
    that chosen is better is sigmoid(reward of chosen - reward of rejected). Displacement: a chosen response that lost
    probability although training was to prefer it (arXiv 2410.08847).
    """
    chosen_change, rejected_change = scores.chosen - reference.chosen, scores.rejected - reference.rejected
    margins = beta * (chosen_change - rejected_change)
    with np.errstate(invalid="ignore"):  # a NaN stays one and makes the figure missing
        log_losses = np.logaddexp(0, -margins)
    return {
        "beta": beta,
        "implicit_accuracy": measure.mean(margins > 0).as_dict(),
        "margin": measure.mean(margins).as_dict(),
        "chosen_change": measure.mean(chosen_change).as_dict(),
        "rejected_change": measure.mean(rejected_change).as_dict(),
        "chosen_change_per_token": measure.mean(
            chosen_change / np.maximum(scores.chosen_tokens, 1), weights=scores.chosen_tokens
        ).as_dict(),
        "chosen_fell": measure.mean(chosen_change < 0).as_dict(),
        "both_fell": measure.mean((chosen_change < 0) & (rejected_change < 0)).as_dict(),
        "margin_quantiles": measure.quantiles(margins),
        "bradley_terry_log_loss": measure.mean(log_losses).as_dict(),
        "brier": measure.mean((1 - _sigmoid(margins)) ** 2).as_dict(),
        "calibration": calibration(margins, measure),
    }


def calibration(margins: ArrayLike, measure: Measure) -> dict[str, Any]:
    """Reliability of the Bradley-Terry probability, as plain values: bins with Wilson intervals, and the mean error.

    The more probable response is taken as the call and its probability as the confidence, so all lie in [0.5, 1];
    in a calibrated model calls made with confidence 0.8 are right 80 % of the time.
    The expected error (the mean gap between the two, weighted by count) is never negative, so noise raises it: a
    perfectly calibrated model on few pairs has an error above zero, and so has its interval.
    """
    values = np.asarray(margins, dtype=np.float64)
    is_known = np.isfinite(values)
    known = values[is_known]
    confidence, right = _sigmoid(np.abs(known)), known > 0
    place = np.clip(np.digitize(confidence, CALIBRATION_EDGES) - 1, 0, len(CALIBRATION_EDGES) - 2)
    bins, gaps = [], np.zeros((len(known), len(CALIBRATION_EDGES)))
    gaps[:, -1] = 1
    for at in range(len(CALIBRATION_EDGES) - 1):
        inside = place == at
        row = {
            "low": round(float(CALIBRATION_EDGES[at]), 2),
            "high": round(float(CALIBRATION_EDGES[at + 1]), 2),
            "count": int(inside.sum()),
            "confidence": None,
            "right": wilson(int(right[inside].sum()), int(inside.sum())).as_dict(),
        }
        if inside.any():
            row["confidence"] = round(float(confidence[inside].mean()), 6)
        gaps[:, at] = np.where(inside, confidence - right, 0)
        bins.append(row)
    error = bootstrap_sums(
        gaps,
        lambda sums: np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1],
        seed=measure.seed,
        samples=measure.samples,
        groups=measure.groups[is_known],
    )
    return {"bins": bins, "expected_calibration_error": error.as_dict()}


def compare_rankings(baseline: PairScores, challenger: PairScores, measure: Measure) -> dict[str, Any]:
    """Paired difference in ranking accuracy, challenger minus baseline, with its tests, as plain values."""
    gain = challenger.ranks_right.astype(float) - baseline.ranks_right.astype(float)
    return {
        "gain": measure.mean(gain).as_dict(),
        "permutation_p": round(measure.p_value(gain), 6),
        "mcnemar_p": round(mcnemar_p_value(baseline.ranks_right, challenger.ranks_right), 6),
    }


def histogram(
    values: Mapping[str, Floats], *, bins: int = 24, framed_by: Sequence[str] | None = None
) -> dict[str, Any]:
    """Counts of several samples over common bins between their 1st and 99th percentile; the rest goes to the ends.

    Args:
        values: The samples by name.
        bins: How many bins.
        framed_by: The samples whose percentiles give the frame, so that an untrained model does not squeeze the
            others into one bin; absent: all.
    """
    known = {name: sample[np.isfinite(sample)] for name, sample in values.items()}
    framing = [sample for name, sample in known.items() if framed_by is None or name in framed_by]
    pooled = np.concatenate(framing) if framing else np.array([])
    if pooled.size == 0:
        return {"edges": [], "counts": {name: [] for name in values}}
    low, high = np.quantile(pooled, [0.01, 0.99])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    counts = {name: np.histogram(np.clip(sample, low, high), edges)[0].tolist() for name, sample in known.items()}
    return {"edges": [float(f"{edge:.6g}") for edge in edges], "counts": counts}


def slices_of(pairs: list[Mapping[str, Any]]) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Which of N pairs (rows of preference_pairs) belong to which slice: family -> label -> mask, (N,).

    Slices of one family may overlap (a pair can come from two drops); empty ones are left out. Pairs of a golden set,
    which nobody judged here, are in no slice by agreement.
    """
    chosen = np.array([len(words_of(pair["chosen"])) for pair in pairs])
    rejected = np.array([len(words_of(pair["rejected"])) for pair in pairs])
    prompt = np.array([sum(len(words_of(turn["content"])) for turn in pair["prompt"]) for pair in pairs])
    agreement = np.array([pair["agreement"] if pair["judgment_count"] else np.nan for pair in pairs], dtype=np.float64)
    near = np.abs(chosen - rejected) <= 0.1 * np.maximum(chosen, rejected)
    families = {
        "dimension that favours chosen": _members(
            pairs, lambda pair: [each["name"] for each in pair["dimensions"] if each["strength"] > 0]
        ),
        "source": _members(pairs, lambda pair: pair["sources"]),
        "drop": _members(pairs, lambda pair: pair["drops"]),
        "agreement of the annotators": {
            "unanimous": agreement >= 1,
            "three quarters or more": (agreement < 1) & (agreement >= 0.75),
            "contested": agreement < 0.75,
        },
        "length of chosen": {
            "shorter than rejected": (chosen < rejected) & ~near,
            "within 10 %": near,
            "longer than rejected": (chosen > rejected) & ~near,
        },
        "length of the prompt": _thirds(prompt),
    }
    return {
        family: kept
        for family, masks in families.items()
        if (kept := {label: mask for label, mask in masks.items() if mask.any()})
    }


def _sigmoid(values: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-values))


def _members(
    pairs: list[Mapping[str, Any]], labels_of: Callable[[Mapping[str, Any]], list[str]]
) -> dict[str, NDArray[np.bool_]]:
    """A mask per label; of more labels than fit a page the most frequent stand alone and the others together."""
    labels = [set(labels_of(pair)) for pair in pairs]
    counts = Counter(name for own in labels for name in own)
    frequent = [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_LABELS]]
    masks = {name: np.array([name in own for own in labels], dtype=bool) for name in sorted(frequent)}
    if others := set(counts) - set(frequent):
        masks[f"{len(others)} others together"] = np.array([bool(own & others) for own in labels], dtype=bool)
    return masks


def _thirds(lengths: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    if lengths.size == 0:
        return {}
    low, high = (int(edge) for edge in np.quantile(lengths, [1 / 3, 2 / 3]))
    return {
        f"up to {low} words": lengths <= low,
        f"{low + 1} to {high} words": (lengths > low) & (lengths <= high),
        f"more than {high} words": lengths > max(low, high),
    }
