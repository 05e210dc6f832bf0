"""Which of two pairs is the better keeper: that with most judgments, then the first to arrive."""

import numpy as np

from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.fates import ALIVE, Fates
from dpo_pipeline.preferences.near_duplicates import elect
from dpo_pipeline.preferences.spill import stable_order
from dpo_pipeline.preferences.verdict_file import VerdictFile

MOST_RANKED = 1_000
"""Judgments beyond which pairs are looked at in order of arrival: more would not make a better keeper of a bucket."""


class Ranks:
    """The pairs by how well each would stand for others.

    Within a drop pairs have no order of arrival but that of their identities, which is their order here.

    Args:
        catalogue: The pairs.
        verdicts: The verdicts on them.

    Attributes:
        judged: How many judgments count for each pair, `(P,)`; whoever moves judgments keeps it true.
    """

    def __init__(self, catalogue: Catalogue, verdicts: VerdictFile) -> None:
        self.drop, self.scratch = catalogue.pairs.place.drop, catalogue.scratch
        self.judged = catalogue.scratch.empty(len(self.drop), np.int32)
        for start, end, some in verdicts.slices():
            self.judged[start:end] = np.bincount(some.pair[some.is_counted], minlength=end - start)

    def best_first(self, fates: Fates) -> np.ndarray:
        """The pairs still kept, from the best to the worst, int32."""

        def key(some: slice) -> np.ndarray:
            judged = np.minimum(self.judged[some], MOST_RANKED).astype(np.int64)
            rank = ((MOST_RANKED - judged) << 16) | self.drop[some]
            return np.where(fates.reason[some] == ALIVE, rank, -1)

        return stable_order(key, len(self.drop), self.scratch)

    def elect(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the pairs at the ends of edges fall, ascending, and the one that stays in the stead of each."""
        pairs, local = np.unique(edges, return_inverse=True)
        rank = np.empty(len(pairs), np.int64)
        rank[np.lexsort((self.drop[pairs], -self.judged[pairs]))] = np.arange(len(pairs))
        winner = elect(local.reshape(-1, 2), rank)
        return pairs[winner >= 0], pairs[winner[winner >= 0]]
