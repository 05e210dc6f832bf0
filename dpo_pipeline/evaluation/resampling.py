"""Intervals of figures that are no means: calibration error, agreement beyond chance, diversity of texts.

N observations, G groups, K columns, S resamples.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from dpo_pipeline.evaluation.statistics import CONFIDENCE, Estimate, Floats, draws


def bootstrap_sums(
    columns: ArrayLike,
    statistic: Callable[[Floats], Floats],
    *,
    seed: int,
    samples: int,
    groups: ArrayLike | None = None,
) -> Estimate:
    """A figure that depends on the observations only through sums of columns, with a percentile bootstrap interval.

    Args:
        columns: (N, K).
        statistic: From sums, (S, K), to the figure of each resample, (S,); NaN where it has none.
        seed: Seed of the resampling.
        samples: Resamples S.
        groups: Label of each observation's group, (N,); whole groups are resampled. Absent: each for itself.

    Returns:
        The estimate; missing where there is no observation, one is not finite, or the figure has no value.

    >>> ratio = bootstrap_sums([[1, 2], [3, 4]], lambda sums: sums[:, 0] / sums[:, 1], seed=1, samples=500)
    >>> round(ratio.value, 3), ratio.low, ratio.high
    (0.667, 0.5, 0.75)
    """
    values = np.asarray(columns, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        return Estimate.missing(len(values))
    if groups is None:
        sums = values
    else:
        _, inverse = np.unique(np.asarray(groups), return_inverse=True)
        sums = np.zeros((inverse.max() + 1, values.shape[1]))
        np.add.at(sums, inverse, values)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.concatenate(
            [statistic(sums[draw].sum(axis=1)) for draw in draws(len(sums), samples=samples, seed=seed)]
        )
        value = float(statistic(sums.sum(axis=0, keepdims=True))[0])
    known = found[np.isfinite(found)]
    if not np.isfinite(value) or known.size == 0:
        return Estimate.missing(len(values))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Estimate(value, min(value, float(low)), max(value, float(high)), len(values))


def bootstrap_quantiles(
    values: ArrayLike,
    percentiles: Sequence[float],
    *,
    seed: int,
    samples: int,
    groups: ArrayLike,
) -> list[Estimate]:
    """Percentiles with percentile bootstrap intervals, all from the same resamples; missing without observations.

    In a resample a percentile is the smallest observation at or below which at least that share of them lies.

    Args:
        values: The observations, (N,), all finite.
        percentiles: Which, from 0 to 100.
        seed: Seed of the resampling.
        samples: Resamples S.
        groups: Label of each observation's group, (N,); whole groups are resampled.

    >>> (middle,) = bootstrap_quantiles([1, 2, 3, 4, 5], [50], seed=1, samples=500, groups=list("abcde"))
    >>> middle.value, middle.low, middle.high
    (3.0, 1.0, 5.0)
    """
    observed = np.asarray(values, dtype=np.float64)
    if observed.size == 0:
        return [Estimate.missing() for _ in percentiles]
    order = np.argsort(observed, kind="stable")
    ranked, shares = observed[order], np.asarray(percentiles) / 100
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    group_of, count = inverse[order], int(inverse.max()) + 1
    found = np.empty((samples, len(shares)))
    at = 0
    for block in draws(count, samples=samples, seed=seed):
        for draw in block:
            reached = np.cumsum(np.bincount(draw, minlength=count)[group_of])
            found[at] = ranked[np.searchsorted(reached, np.maximum(1, np.ceil(shares * reached[-1] - 1e-9)))]
            at += 1
    tail = (1 - CONFIDENCE) / 2
    lows, highs = np.quantile(found, [tail, 1 - tail], axis=0)
    return [
        Estimate(value, min(value, float(low)), max(value, float(high)), observed.size)
        for value, low, high in zip(np.quantile(observed, shares).tolist(), lows, highs, strict=True)
    ]


def distinct_estimate(grams: Sequence[Sequence[tuple[str, ...]]]) -> Estimate:
    """Different n-grams as a share of all n-grams (arXiv 1510.03055), with a jackknife interval over the texts.

    Resampling texts with replacement would repeat some and so always find less diversity; leaving one out does not.
    The interval is too wide rather than too narrow (Efron and Stein 1981).

    Args:
        grams: The n-grams of each text.

    >>> distinct_estimate([[("a",), ("b",)], [("a",), ("b",)]]).value
    0.5
    """
    total = sum(len(own) for own in grams)
    if not total:
        return Estimate.missing(len(grams))
    holders: dict[tuple[str, ...], int] = {}
    for own in grams:
        for gram in set(own):
            holders[gram] = holders.get(gram, 0) + 1
    value, count = len(holders) / total, len(grams)
    without = np.array(
        [
            (len(holders) - sum(holders[gram] == 1 for gram in set(own))) / (total - len(own))
            for own in grams
            if total > len(own)
        ]
    )
    if without.size < 2:
        return Estimate(value, 0.0, 1.0, count)
    error = float(np.sqrt((without.size - 1) / without.size * ((without - without.mean()) ** 2).sum()))
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * error
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), count)


def kappa_estimate(first: Sequence[str], second: Sequence[str], *, seed: int, samples: int) -> Estimate:
    """Cohen's kappa of two raters on the same N items, with a bootstrap interval over the items.

    >>> kappa_estimate(["win", "win", "loss", "loss"], ["win", "loss", "win", "loss"], seed=1, samples=200).value
    0.0
    """
    labels = sorted({*first, *second})
    size = len(labels)
    cells = np.array([labels.index(a) * size + labels.index(b) for a, b in zip(first, second, strict=True)], dtype=int)

    def kappa(sums: Floats) -> Floats:
        table = sums.reshape(-1, size, size) / sums.sum(axis=1)[:, None, None]
        observed = np.trace(table, axis1=1, axis2=2)
        expected = (table.sum(axis=2) * table.sum(axis=1)).sum(axis=1)
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)

    return bootstrap_sums(np.eye(size * size)[cells], kappa, seed=seed, samples=samples)
