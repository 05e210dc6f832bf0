"""Intervals and paired tests: pure functions on numpy arrays, seeded, no model in sight.

N observations, G groups (observations that share a prompt are resampled together), S resamples.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
CHUNK_DRAWS = 4_000_000
"""Most numbers drawn at once: bounds the memory of a bootstrap over many observations to some 32 MB."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval; all three are None where it cannot be measured."""

    value: float | None
    low: float | None
    high: float | None
    count: int

    @classmethod
    def missing(cls, count: int = 0) -> "Estimate":
        """The estimate of something that could not be measured."""
        return cls(None, None, None, count)

    def mapped(self, function: Callable[[float], float]) -> "Estimate":
        """The estimate of an increasing function of the figure, such as exp of a mean log-loss.

        >>> Estimate(0.0, -1.0, 1.0, 5).mapped(math.exp).value
        1.0
        """
        if self.value is None or self.low is None or self.high is None:
            return self
        return Estimate(function(self.value), function(self.low), function(self.high), self.count)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, rounded to six significant digits so that rounding noise never shows in a digest."""
        return {
            "value": _rounded(self.value),
            "low": _rounded(self.low),
            "high": _rounded(self.high),
            "count": self.count,
        }


def wilson(successes: int, count: int) -> Estimate:
    """A share with Wilson's score interval, which stays honest at 0 and 1 and for few observations.

    >>> wilson(10, 10).as_dict()
    {'value': 1.0, 'low': 0.722467, 'high': 1.0, 'count': 10}
    """
    if count == 0:
        return Estimate.missing()
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    share, scale = successes / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / scale
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == count else middle + half
    return Estimate(share, low, high, count)


def bootstrap_mean(
    values: ArrayLike,
    *,
    seed: int,
    samples: int,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    is_share: bool = False,
) -> Estimate:
    """The (weighted) mean with a percentile bootstrap interval.

    Args:
        values: The observations, (N,).
        seed: Seed of the resampling; equal seeds and group counts draw the same resamples.
        samples: Resamples S.
        weights: Weight of each observation, (N,); the mean is sum(weights * values) / sum(weights).
        groups: Label of each observation's group, (N,); whole groups are resampled. Absent: each for itself.
        is_share: Whether the observations lie between 0 and 1 by nature; booleans always do.

    Returns:
        The estimate; missing where there is no observation or one of them is not finite. For shares that are all 0 or
        all 1 the interval is Wilson's over the groups, since resampling a constant knows no doubt.

    >>> bootstrap_mean([1.0, 2.0, 3.0], seed=1, samples=1000).as_dict()
    {'value': 2.0, 'low': 1.0, 'high': 3.0, 'count': 3}
    """
    is_share = is_share or np.asarray(values).dtype == np.bool_
    observed = np.asarray(values, dtype=np.float64)
    heaviness = np.ones_like(observed) if weights is None else np.asarray(weights, dtype=np.float64)
    if observed.size == 0 or not np.isfinite(observed).all() or heaviness.sum() <= 0:
        return Estimate.missing(observed.size)
    sums, totals = _by_group(observed * heaviness, heaviness, groups=groups)
    if is_share and observed.min() == observed.max() and observed[0] in {0.0, 1.0}:
        share = wilson(len(sums) if observed[0] else 0, len(sums))
        return Estimate(share.value, share.low, share.high, observed.size)
    means = np.concatenate(
        [
            sums[draw].sum(axis=1) / np.maximum(totals[draw].sum(axis=1), 1e-300)
            for draw in draws(len(sums), samples=samples, seed=seed)
        ]
    )
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(sums.sum() / totals.sum()), float(low), float(high), observed.size)


def sign_flip_p_value(differences: ArrayLike, *, seed: int, samples: int, groups: ArrayLike | None = None) -> float:
    """Two-sided p-value of "the mean of the paired differences is zero", by flipping the sign of whole groups.

    The observed arrangement counts as one of the flips, so the smallest value is 1 / (samples + 1), never 0.

    >>> sign_flip_p_value([0.0, 0.0], seed=1, samples=99)
    1.0
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        return 1.0
    sums, _ = _by_group(values, np.ones_like(values), groups=groups)
    observed, generator, hits = abs(sums.sum()), np.random.default_rng(seed), 1
    for size in _chunk_sizes(len(sums), samples):
        signs = generator.integers(0, 2, size=(size, len(sums))) * 2 - 1
        hits += int((np.abs(signs @ sums) >= observed * (1 - 1e-12)).sum())
    return hits / (samples + 1)


def mcnemar_p_value(first: ArrayLike, second: ArrayLike) -> float:
    """Exact two-sided McNemar test on paired right / wrong answers, (N,) each; 1 where they never differ.

    Five pairs only the second gets right, none only the first: 2 * (1/2)**5.

    >>> mcnemar_p_value([0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1])
    0.0625
    """
    right_first, right_second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first = int((right_first & ~right_second).sum())
    only_second = int((~right_first & right_second).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_second, only_first + only_second, 0.5).pvalue)


def length_controlled_win_rate(
    outcomes: ArrayLike, length_differences: ArrayLike, *, seed: int, samples: int, groups: ArrayLike | None = None
) -> Estimate:
    """The win rate a logistic model predicts for replies of equal length, after AlpacaEval 2 (arXiv 2404.04475).

    logit P(win) = a + b * tanh(d / sd(d)); the figure is sigmoid(a). A ridge of 0.05 keeps it finite when one
    side always wins. AlpacaEval's third term, the difficulty of each instruction, is fitted over many models; two
    models on the same prompts have none to fit it from, so it is left out.

    Args:
        outcomes: 1 for a win, 0.5 for a tie, 0 for a loss, (N,).
        length_differences: Length of the challenger's reply minus that of the baseline's, (N,).
        seed: Seed of the resampling.
        samples: Resamples S behind the interval.
        groups: Label of each comparison's group, (N,); whole groups are resampled.
    """
    wins = np.asarray(outcomes, dtype=np.float64)
    lengths = np.asarray(length_differences, dtype=np.float64)
    if wins.size == 0:
        return Estimate.missing()
    spread = lengths.std()
    covariate = np.tanh(lengths / spread) if spread > 0 else np.zeros_like(lengths)
    design = np.stack([np.ones_like(covariate), covariate], axis=1)
    value = _logistic_intercepts(design, wins, np.ones((1, wins.size)))[0]
    labels = np.arange(wins.size) if groups is None else np.asarray(groups)
    names, inverse = np.unique(labels, return_inverse=True)
    intercepts = np.concatenate(
        [
            _logistic_intercepts(design, wins, _counts(draw)[:, inverse])
            for draw in draws(len(names), samples=samples, seed=seed)
        ]
    )
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(intercepts, [tail, 1 - tail])
    return Estimate(_sigmoid(value), _sigmoid(low), _sigmoid(high), wins.size)


def _logistic_intercepts(design: Floats, outcomes: Floats, counts: Floats, *, ridge: float = 0.05) -> Floats:
    """Intercepts of S weighted two-parameter logistic regressions by Newton's method; counts is (S, N)."""
    coefficients = np.zeros((len(counts), 2))
    for _ in range(12):
        predicted = 1 / (1 + np.exp(-np.clip(coefficients @ design.T, -30, 30)))  # (S, N)
        gradient = (counts * (outcomes - predicted)) @ design - ridge * coefficients
        curvature = counts * predicted * (1 - predicted)
        a = curvature.sum(axis=1) + ridge
        b = curvature @ design[:, 1]
        d = curvature @ design[:, 1] ** 2 + ridge
        determinant = a * d - b * b
        step = np.stack(
            [
                (d * gradient[:, 0] - b * gradient[:, 1]) / determinant,
                (a * gradient[:, 1] - b * gradient[:, 0]) / determinant,
            ],
            axis=1,
        )
        coefficients += np.clip(step, -4, 4)
    return coefficients[:, 0]


def _by_group(values: Floats, weights: Floats, *, groups: ArrayLike | None) -> tuple[Floats, Floats]:
    """Sum of values and of weights per group, (G,) each; groups in sorted order, so row order does not matter."""
    if groups is None:
        return values, weights
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(inverse, values).astype(np.float64), np.bincount(inverse, weights).astype(np.float64)


def draws(count: int, *, samples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Resampled positions in blocks of (at most S, count); equal counts and seeds give the same ones."""
    generator = np.random.default_rng(seed)
    for size in _chunk_sizes(count, samples):
        yield generator.integers(0, count, size=(size, count))


def _chunk_sizes(count: int, samples: int) -> Iterator[int]:
    step = max(1, CHUNK_DRAWS // max(1, count))
    for start in range(0, samples, step):
        yield min(step, samples - start)


def _counts(draw: NDArray[np.int64]) -> Floats:
    """How often each position was drawn in each resample, (S, N)."""
    size, count = draw.shape
    flat = (draw + np.arange(size)[:, None] * count).ravel()
    return np.bincount(flat, minlength=size * count).reshape(size, count).astype(np.float64)


def _sigmoid(value: float) -> float:
    return float(1 / (1 + math.exp(-value)))


def _rounded(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")
