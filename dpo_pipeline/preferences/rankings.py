"""Rankings of K responses to one prompt: how many there are, and whether their pairs fit into an order.

Shapes, of a range of prompts: Q pairs, N verdicts, M prompts, I responses (numbered over all prompts).
"""

from collections import Counter
from typing import Any

import numpy as np

from dpo_pipeline.preferences.comparisons import Comparisons

LEAST_RESPONSES = 3


class Rankings:
    """What the prompts with three or more responses look like, a range of prompts at a time."""

    def __init__(self) -> None:
        self._sizes: Counter[int] = Counter()
        self._counts: Counter[str] = Counter()
        self._concordance = 0.0

    def add(self, some: Comparisons) -> None:
        """Add all comparisons of some prompts."""
        items, prompt, verdicts = some.items, some.prompt, some.verdicts
        group_of_item = np.zeros(int(items.max(initial=-1)) + 1, np.int64)
        group_of_item[items] = prompt[:, None]
        group_count = int(prompt.max(initial=-1)) + 1
        size = np.bincount(group_of_item, minlength=group_count)
        is_group = size >= LEAST_RESPONSES
        own = verdicts.side.astype(np.int64) * verdicts.votes

        toward_low = np.sign(np.bincount(verdicts.pair, weights=own, minlength=len(items)))
        decided = np.flatnonzero(toward_low)
        wins = np.bincount(_winners(items, decided, toward_low[decided]), minlength=len(group_of_item))
        is_complete = is_group & (np.bincount(prompt[decided], minlength=group_count) == size * (size - 1) // 2)
        squares = np.bincount(group_of_item, weights=wins.astype(float) ** 2, minlength=group_count)
        circles = np.round(size * (size - 1) * (2 * size - 1) / 12 - squares / 2)[is_complete]
        triples = (size * (size - 1) * (size - 2) / 6)[is_complete]
        concordance = _concordance(some, group_of_item, np.where(is_group, size, 0))
        self._sizes.update(size[is_group].tolist())
        self._counts["complete"] += int(is_complete.sum())
        self._counts["circles"] += int(circles.sum())
        self._counts["triples"] += int(triples.sum())
        self._counts["ordered"] += int((circles == 0).sum())
        self._counts["ranked_by_several"] += len(concordance)
        self._concordance += float(concordance.sum())

    def figures(self) -> dict[str, Any]:
        """The figures of the report.

        Returns:
            `groups` (prompts with three or more responses), `sizes` (groups by K), `complete` (groups whose every pair
            is decided by the votes), `circular_share` (of the triples of responses in these, the share that goes in a
            circle: a over b over c over a; a quarter by chance; Kendall and Babington Smith 1940), `ordered_share`
            (complete groups without a circle), `ranked_by_several` (groups that two or more annotators ordered
            completely) and `kendall_w` (their mean coefficient of concordance; 1: the same order, 0: none).
        """
        counts = self._counts
        complete, several = counts["complete"], counts["ranked_by_several"]
        return {
            "groups": self._sizes.total(),
            "sizes": {str(size): self._sizes[size] for size in sorted(self._sizes)},
            "complete": complete,
            "circular_share": round(counts["circles"] / counts["triples"], 4) if complete else None,
            "ordered_share": round(counts["ordered"] / complete, 4) if complete else None,
            "ranked_by_several": several,
            "kendall_w": round(self._concordance / several, 4) if several else None,
        }


def _winners(items: np.ndarray, pairs: np.ndarray, toward_low: np.ndarray) -> np.ndarray:
    """The preferred response of some decided pairs."""
    return np.where(toward_low > 0, items[pairs, 0], items[pairs, 1])


def _concordance(comparisons: Comparisons, group_of_item: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Kendall's W of every group that two or more annotators ordered completely."""
    _, prompt, items, verdicts = comparisons
    some = np.flatnonzero((verdicts.annotator >= 0) & (verdicts.side != 0))
    some = some[size[prompt[verdicts.pair[some]]] > 0]
    pair, annotators = verdicts.pair[some], int(verdicts.annotator.max(initial=-1)) + 1
    rater, raters = np.unique(
        prompt[pair].astype(np.int64) * annotators + verdicts.annotator[some], return_inverse=True
    )
    group = rater // max(annotators, 1)
    is_complete = np.bincount(raters, minlength=len(rater)) == size[group] * (size[group] - 1) // 2
    judges = np.bincount(group[is_complete], minlength=len(size))
    kept = is_complete[raters]
    winners = _winners(items, pair[kept], verdicts.side[some][kept])
    wins = np.bincount(winners, minlength=len(group_of_item)).astype(float)
    # Wins are ranks counted from the bottom: R_i sums them over the judges, and S is their spread within the group.
    mean = judges * (size - 1) / 2
    spread = np.bincount(group_of_item, weights=(wins - mean[group_of_item]) ** 2, minlength=len(size))
    several = judges >= 2
    return 12 * spread[several] / (judges[several] ** 2 * (size[several] ** 3 - size[several]))
