"""Crowds: so many prompts under one key that the split compares only some of them with each other, and no leak hides.

Prompts made from one template share most of their words, and their keys. Where not all pairs under a key are proposed
(`deduplicate.EARLY_PROMPTS`), the rest of them is looked through here, but only across the two sides of the split.

Shapes: M prompts of the catalogue, R of them in a crowd.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.near_duplicates import under
from dpo_pipeline.preferences.shingles import NO_KEY
from dpo_pipeline.preferences.spill import slices, stable_order
from dpo_pipeline.preferences.under_keys import UnderKeys


class Crowd:
    """The prompts that share a band's key with more others than are all compared with one another.

    Law: of two prompts under one key, either all pairs under it are proposed by `propose`, or both are in the crowd.
    It is known when all bands have passed through `gathering`.

    Args:
        catalogue: The prompts.
        most: So many of a key's first prompts are all compared; more are a crowd.
        since: First drop whose prompts are asked about: a crowd without any of them is passed over.
        similarity: Jaccard similarity of word 2-grams from which a prompt is a near copy.
        reporter: Told now and then how far a search is.
    """

    def __init__(
        self, catalogue: Catalogue, *, most: int, since: int, similarity: float, reporter: Reporter | None = None
    ) -> None:
        count, drops, scratch = len(catalogue.prompts.ids), catalogue.prompts.place.drop, catalogue.scratch
        self._most = most
        self._new = stable_order(lambda some: np.where(drops[some] >= since, 0, -1), count, scratch)
        self._noted = UnderKeys(
            count, catalogue.shingles_of_prompts, similarity=similarity, scratch=scratch, reporter=reporter
        )

    def gathering(self, bands: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The bands' keys handed through, one band at a time, `(M,)`; who stands in a crowd is noted as they pass.

        Whoever proposes edges reads all bands: so they are read once for both. The crowd is known after the last.
        """
        for keys in bands:
            if len(self._new):
                rows = _crowded(keys, self._new, self._most)
                self._noted.note(rows, keys[rows])
            yield keys

    @property
    def prompts(self) -> np.ndarray:
        """Their numbers in the catalogue, ascending, `(R,)` int32."""
        return self._noted.rows

    def near(self, asked: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether each of some prompts of the crowd is a near copy of one of the others, `(N,)` bool.

        Args:
            asked: Places in `prompts`, `(N,)`.
            others: Places of the prompts they must not be like.
        """
        return self._noted.near(asked, others)


def _crowded(keys: np.ndarray, new: np.ndarray, most: int) -> np.ndarray:
    """The rows whose key more than `most` have, one of the `new` rows among them; ascending."""
    rows = _under_full(keys, most) if len(new) == len(keys) else under(keys, keys[new])
    rows = rows[keys[rows] != NO_KEY]
    _, bucket, hits = np.unique(keys[rows], return_inverse=True, return_counts=True)
    return rows[hits[bucket] > most]


def _under_full(keys: np.ndarray, most: int) -> np.ndarray:
    """The rows whose key more than `most` may have: keys are hashes, so counting their upper bits passes most by."""
    shift = np.uint32(32 - max(16, (len(keys) // 8).bit_length()))
    counts = np.zeros(1 << (32 - int(shift)), np.int64)
    for some in slices(len(keys)):
        counts += np.bincount(keys[some] >> shift, minlength=len(counts))
    is_full = counts > most
    return np.flatnonzero(is_full[keys >> shift]) if is_full.any() else np.zeros(0, np.int64)
