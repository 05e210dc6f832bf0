"""How many labels are probably flipped: what a loss that allows for noise (`robust`, cDPO) has to be told.

Chowdhury et al., Provably Robust DPO (arXiv 2403.00409), and cDPO take the share of flipped labels as given. It shows
in the judgments that contradict each other, those of ties and contradictions included which are not trained on.

Shapes: P distinct pairs, K kept ones.
"""

from typing import Any

import numpy as np

from dpo_pipeline.preferences.agreement import added_up, wilson_interval
from dpo_pipeline.preferences.verdicts import HIGH, LOW


class Toward:
    """How many counted verdicts prefer either response of the pairs with several, a range of pairs at a time."""

    def __init__(self) -> None:
        # The distinct numbers of verdicts toward low and high, and on how many pairs just so many stand.
        self._sides, self._occur = np.zeros((0, 2), np.int64), np.zeros(0, np.int64)

    def add(self, pair: np.ndarray, side: np.ndarray) -> None:
        """Add the counted verdicts on some pairs; all those on a pair come in one call."""
        count = int(pair.max(initial=-1)) + 1
        toward = np.stack([np.bincount(pair[side == sign], minlength=count) for sign in (LOW, HIGH)], axis=1)
        toward = toward[toward.sum(axis=1) > 1]
        occur = np.concatenate([self._occur, np.ones(len(toward), np.int64)])
        self._sides, self._occur = added_up(np.concatenate([self._sides, toward]), occur)

    def noise(self, p_chosen: np.ndarray) -> dict[str, Any]:
        """The estimate from all of them; `p_chosen` as `label_noise` takes it."""
        return label_noise(self._sides[:, 0], self._sides[:, 1], p_chosen, occur=self._occur)


def label_noise(
    toward_low: np.ndarray, toward_high: np.ndarray, p_chosen: np.ndarray, *, occur: np.ndarray | None = None
) -> dict[str, Any]:
    """The estimated shares of flipped labels.

    One verdict: if each verdict errs with probability e, independently, two on one pair differ with probability
    d = 2 e (1 - e), so e = (1 - sqrt(1 - 2 d)) / 2; d is counted over all pairs with two verdicts or more. The kept
    pairs: the mean probability that `rejected` is the better response after all.

    Args:
        toward_low: How many counted verdicts prefer each pair's low response, `(P,)`.
        toward_high: The same for the high one, `(P,)`.
        p_chosen: Of the kept pairs, `(K,)`, or their mean alone.
        occur: On how many pairs there are just so many verdicts, `(P,)`; absent: on one.

    Returns:
        `one_verdict` with `one_verdict_low` and `one_verdict_high` (95 %; by pairs, so that a pair of many verdicts is
        one observation), `kept_pairs`, `pairs_compared`; None where nothing can be told. Half, the most there can be,
        says that the verdicts are chance.

    >>> label_noise(np.array([2, 2, 2, 1]), np.array([0, 0, 0, 1]), np.array([0.9, 0.9, 0.9]))["one_verdict"]
    0.1464
    """
    verdicts = toward_low + toward_high
    several = verdicts > 1
    times = (np.ones(len(verdicts), np.int64) if occur is None else occur)[several]
    low, high, size = (some[several].astype(float) for some in (toward_low, toward_high, verdicts))
    differing, compared = float(2 * low * high / np.maximum(size * (size - 1), 1) @ times), int(times.sum())
    shares = [None, None, None]
    if compared:
        ends = wilson_interval(np.array([differing]), np.array([compared]))
        shares = [_one_of_two(value) for value in (differing / compared, float(ends[0][0]), float(ends[1][0]))]
    return {
        "one_verdict": shares[0],
        "one_verdict_low": shares[1],
        "one_verdict_high": shares[2],
        "kept_pairs": round(float((1.0 - p_chosen.astype(float)).mean()), 4) if len(p_chosen) else None,
        "pairs_compared": compared,
    }


def noise_sentence(noise: dict[str, Any]) -> str:
    """What was estimated and which setting takes it."""
    if noise["kept_pairs"] is None:
        return "label noise: no pair is kept, nothing to estimate"
    kept = f"{noise['kept_pairs']:.1%} of the kept pairs are probably labelled the wrong way round"
    if noise["one_verdict"] is None:
        return f"label noise: no pair has two verdicts to compare; by the consensus' prior {kept}"
    return (
        f"label noise: a single verdict is wrong in {noise['one_verdict']:.1%} ({noise['one_verdict_low']:.1%} to "
        f"{noise['one_verdict_high']:.1%}, {noise['pairs_compared']:,} pairs compared); {kept}: the value for "
        "dpo.label_smoothing under the losses robust and sigmoid"
    )


def _one_of_two(differ: float) -> float:
    """The error of one verdict where two differ with this probability."""
    return round((1.0 - float(np.sqrt(max(0.0, 1.0 - 2.0 * differ)))) / 2.0, 4)
