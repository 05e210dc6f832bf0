"""How well annotators agree: Krippendorff's alpha, raw agreement, leave-one-out agreement, Wilson intervals.

Shapes: N verdicts on P pairs by A annotators; every verdict is `(pair, value)` with small integer values.
"""

import math

import numpy as np


def krippendorff_alpha(pair: np.ndarray, value: np.ndarray, *, ordinal: bool = False) -> float:
    """Krippendorff's alpha, nominal or ordinal; 1 is perfect, 0 is chance. NaN where no pair has two verdicts.

    Values may be missing: pairs with a single verdict carry no information and are left out, as the measure demands.

    >>> pair = np.array([0, 0, 1, 1, 2, 2])
    >>> krippendorff_alpha(pair, np.array([1, 1, 0, 0, 1, 1]))
    1.0

    Args:
        pair: What each verdict is about, `(N,)` integers.
        value: The verdict, `(N,)` integers; their order matters when `ordinal`.
        ordinal: Weigh disagreements by how many verdicts lie between the two values.
    """
    table = _table(pair, value)
    if len(table) == 0:
        return math.nan
    weighted = table / (table.sum(axis=1) - 1)[:, None]
    return float(_alpha(weighted.T @ table - np.diag(weighted.sum(axis=0)), ordinal=ordinal))


def alpha_interval(
    pair: np.ndarray, value: np.ndarray, *, ordinal: bool = False, resamples: int = 1_000
) -> tuple[float, float]:
    """The 95 % bootstrap interval of Krippendorff's alpha, pairs drawn with replacement; (NaN, NaN) where it is NaN.

    Pairs with the same verdicts are told apart by nothing, so what is drawn is how often each set of verdicts occurs:
    a million pairs cost no more than a thousand. The seed is fixed, equal verdicts give equal intervals.
    """
    table = _table(pair, value)
    if len(table) == 0:
        return math.nan, math.nan
    kinds, occur = np.unique(table, axis=0, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(table), occur / len(table), size=resamples)
    levels = kinds.shape[1]
    sums = (drawn @ _coincidences(kinds).reshape(len(kinds), -1)).reshape(resamples, levels, levels)
    alphas = [_alpha(coincidence, ordinal=ordinal) for coincidence in sums]
    low, high = np.quantile(alphas, (0.025, 0.975))
    return float(low), float(high)


def _table(pair: np.ndarray, value: np.ndarray) -> np.ndarray:
    """How often each value was given, `(U, V)`, for the U pairs with two verdicts or more."""
    levels, codes = np.unique(value, return_inverse=True)
    _, units = np.unique(pair, return_inverse=True)
    if len(units) == 0:
        return np.zeros((0, 0))
    size = (int(units.max()) + 1) * len(levels)
    table = np.bincount(units * len(levels) + codes, minlength=size).reshape(-1, len(levels)).astype(float)
    return table[table.sum(axis=1) > 1]


def _coincidences(table: np.ndarray) -> np.ndarray:
    """Each pair's coincidence matrix, `(U, V, V)`: how often two of its verdicts are these two values."""
    sizes = table.sum(axis=1)
    products = table[:, :, None] * table[:, None, :]
    places = np.arange(table.shape[1])
    products[:, places, places] -= table
    return products / (sizes - 1)[:, None, None]


def _alpha(coincidence: np.ndarray, *, ordinal: bool) -> float:
    totals = coincidence.sum(axis=1)
    distance = _ordinal_distance(totals) if ordinal else 1.0 - np.eye(len(totals))
    expected = (np.outer(totals, totals) - np.diag(totals)) * distance
    if expected.sum() == 0:
        return 1.0
    return 1.0 - (totals.sum() - 1) * (coincidence * distance).sum() / expected.sum()


def _ordinal_distance(totals: np.ndarray) -> np.ndarray:
    reach = np.cumsum(totals) - totals / 2
    return (reach[:, None] - reach[None, :]) ** 2


def raw_agreement(pair: np.ndarray, value: np.ndarray) -> float:
    """The share of pairs of verdicts on the same pair that are equal; NaN where no pair has two verdicts.

    >>> raw_agreement(np.array([0, 0, 0]), np.array([1, 1, 2]))
    0.3333333333333333
    """
    levels, codes = np.unique(value, return_inverse=True)
    _, units = np.unique(pair, return_inverse=True)
    if len(units) == 0:
        return math.nan
    table = np.bincount(units * len(levels) + codes, minlength=(units.max() + 1) * len(levels)).reshape(-1, len(levels))
    sizes = table.sum(axis=1)
    possible = (sizes * (sizes - 1)).sum()
    return float((table * (table - 1)).sum() / possible) if possible else math.nan


def wilson_interval(hits: np.ndarray, trials: np.ndarray, *, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the Wilson score interval of a share; (0, 1) where there was no trial.

    >>> low, high = wilson_interval(np.array([8]), np.array([10]))
    >>> round(float(low[0]), 4), round(float(high[0]), 4)
    (0.4902, 0.9433)
    """
    hits, trials = np.asarray(hits, float), np.asarray(trials, float)
    safe = np.maximum(trials, 1)
    share = hits / safe
    centre = (share + z * z / (2 * safe)) / (1 + z * z / safe)
    half = z * np.sqrt(share * (1 - share) / safe + z * z / (4 * safe * safe)) / (1 + z * z / safe)
    low, high = np.where(trials > 0, centre - half, 0.0), np.where(trials > 0, centre + half, 1.0)
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)


def leave_one_out(pair: np.ndarray, side: np.ndarray, votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per verdict: whether it can be compared with the others on its pair, and whether they agree. `(N,)` bool each.

    Comparable: the verdict prefers a side, and so do the other verdicts taken together.

    >>> leave_one_out(np.array([0, 0, 0]), np.array([1, 1, -1]), np.array([1, 1, 1]))
    (array([False, False,  True]), array([False, False, False]))
    """
    own = side.astype(np.int64) * votes
    total = np.bincount(pair, weights=own, minlength=int(pair.max(initial=-1)) + 1)
    others = np.sign(total[pair] - own)
    comparable = (side != 0) & (others != 0)
    return comparable, comparable & (others == side)
