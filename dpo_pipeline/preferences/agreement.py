"""How well annotators agree: Krippendorff's alpha, raw agreement, leave-one-out agreement, Wilson intervals.

Shapes: N verdicts by A annotators; every verdict is `(pair, value)` with small integer values, V of them.
"""

import math
from typing import NamedTuple

import numpy as np


class VerdictSets(NamedTuple):
    """Which verdicts stand together on a pair, and how often: all that agreement rests on.

    Attributes:
        table: How often each value is in each of the S distinct sets of two verdicts or more, `(S, V)` integers.
        occur: On how many pairs just these verdicts stand, `(S,)`.
    """

    table: np.ndarray
    occur: np.ndarray


class VerdictCounter:
    """Counts sets of verdicts, a range of pairs at a time: what stays in memory does not grow with the pairs.

    Args:
        values: All values that a verdict may have.
    """

    def __init__(self, values: range) -> None:
        self._values = values
        self._rows, self._occur = np.zeros((0, 1 + len(values)), np.int64), np.zeros(0, np.int64)

    def add(self, pair: np.ndarray, value: np.ndarray, group: np.ndarray | None = None) -> None:
        """Count the verdicts on some pairs; all those of a group on a pair come in one call.

        Args:
            pair: What each verdict is about, `(N,)` integers.
            value: The verdict, `(N,)` integers.
            group: Verdicts of different groups never stand together, `(N,)` integers; absent: all are in group 0.
        """
        several = np.bincount(pair, minlength=1)[pair] > 1
        pair, value = pair[several].astype(np.int64), value[several].astype(np.int64)
        if len(pair) == 0:
            return
        group = np.zeros(len(pair), np.int64) if group is None else group[several].astype(np.int64)
        first, span = int(group.min()), int(pair.max()) + 1
        unit, number = np.unique((group - first) * span + pair, return_inverse=True)
        size = len(self._values)
        table = np.bincount(number * size + value - self._values.start, minlength=len(unit) * size).reshape(-1, size)
        rows = np.column_stack([unit // span + first, table])[table.sum(axis=1) > 1]
        self._rows, self._occur = added_up(
            np.concatenate([self._rows, rows]), np.concatenate([self._occur, np.ones(len(rows), np.int64)])
        )

    def of(self, group: int = 0) -> VerdictSets:
        """The sets of verdicts of a group."""
        mine = slice(*np.searchsorted(self._rows[:, 0], (group, group + 1)))
        table = self._rows[mine, 1:]
        return VerdictSets(table[:, table.any(axis=0)], self._occur[mine])


def verdict_sets(pair: np.ndarray, value: np.ndarray) -> VerdictSets:
    """The sets of verdicts that stand on pairs, `(N,)` integers each.

    >>> table, occur = verdict_sets(np.array([0, 0, 1, 1, 2, 2]), np.array([1, 0, 1, 1, 1, 1]))
    >>> table.tolist(), occur.tolist()
    ([[0, 2], [1, 1]], [2, 1])
    """
    counter = VerdictCounter(range(int(value.min(initial=0)), int(value.max(initial=0)) + 1))
    counter.add(pair, value)
    return counter.of()


def added_up(rows: np.ndarray, occur: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows in ascending order, and what occurred of each."""
    order = np.lexsort(rows.T[::-1])
    rows, occur = rows[order], occur[order]
    is_new = np.ones(len(rows), bool)
    is_new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    starts = np.flatnonzero(is_new)
    return rows[starts], np.add.reduceat(occur, starts) if len(starts) else occur


def krippendorff_alpha(sets: VerdictSets, *, ordinal: bool = False) -> float:
    """Krippendorff's alpha, nominal or ordinal; 1 is perfect, 0 is chance. NaN where no pair has two verdicts.

    Values may be missing: pairs with a single verdict carry no information and are left out, as the measure demands.

    >>> pair = np.array([0, 0, 1, 1, 2, 2])
    >>> krippendorff_alpha(verdict_sets(pair, np.array([1, 1, 0, 0, 1, 1])))
    1.0

    Args:
        sets: The verdicts.
        ordinal: Weigh disagreements by how many verdicts lie between the two values.
    """
    if len(sets.table) == 0:
        return math.nan
    return float(_alpha(np.tensordot(sets.occur.astype(float), _coincidences(sets.table), axes=1), ordinal=ordinal))


def alpha_interval(sets: VerdictSets, *, ordinal: bool = False, resamples: int = 1_000) -> tuple[float, float]:
    """The 95 % bootstrap interval of Krippendorff's alpha, pairs drawn with replacement; (NaN, NaN) where it is NaN.

    Pairs with the same verdicts are told apart by nothing, so what is drawn is how often each set of verdicts occurs:
    a million pairs cost no more than a thousand. The seed is fixed, equal verdicts give equal intervals.
    """
    if len(sets.table) == 0:
        return math.nan, math.nan
    count, levels = int(sets.occur.sum()), sets.table.shape[1]
    drawn = np.random.default_rng(0).multinomial(count, sets.occur / count, size=resamples)
    sums = (drawn @ _coincidences(sets.table).reshape(len(sets.table), -1)).reshape(resamples, levels, levels)
    alphas = [_alpha(coincidence, ordinal=ordinal) for coincidence in sums]
    low, high = np.quantile(alphas, (0.025, 0.975))
    return float(low), float(high)


def _coincidences(table: np.ndarray) -> np.ndarray:
    """Each set's coincidence matrix, `(S, V, V)`: how often two of its verdicts are these two values."""
    sizes = table.sum(axis=1)
    products = (table[:, :, None] * table[:, None, :]).astype(float)
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


def raw_agreement(sets: VerdictSets) -> float:
    """The share of pairs of verdicts on the same pair that are equal; NaN where no pair has two verdicts.

    >>> raw_agreement(verdict_sets(np.array([0, 0, 0]), np.array([1, 1, 2])))
    0.3333333333333333
    """
    sizes = sets.table.sum(axis=1)
    possible = int((sizes * (sizes - 1)) @ sets.occur)
    equal = int((sets.table * (sets.table - 1)).sum(axis=1) @ sets.occur)
    return equal / possible if possible else math.nan


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
