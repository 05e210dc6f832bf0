"""Crowds: so many prompts under one key that the split compares only some of them with each other, and no leak hides.

Prompts made from one template share most of their words, and their keys. Where not all pairs under a key are proposed
(`deduplicate.EARLY_PROMPTS`), the rest of them is looked through here, but only across the two sides of the split.

Shapes: M prompts of the catalogue, R of them in a crowd.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np

from dpo_pipeline.core.metrics import Quiet, Reporter
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.near_duplicates import under
from dpo_pipeline.preferences.progress import Progress
from dpo_pipeline.preferences.prompt_index import KEYS_SEARCHED, find_across
from dpo_pipeline.preferences.shingles import NO_KEY, Shingles
from dpo_pipeline.preferences.spill import RowFile, slices, stable_order

UNDER_KEY = np.dtype([("prompt", "<i4"), ("key", "<u4")])
PROMPTS_AT_ONCE = 1 << 16
"""Prompts whose shingles are read together."""


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
        self._catalogue, self._scratch, self._most = catalogue, catalogue.scratch, most
        self._similarity, self._reporter = similarity, reporter or Quiet()
        count = len(catalogue.prompts.ids)
        drops = catalogue.prompts.place.drop
        self._new = stable_order(lambda some: np.where(drops[some] >= since, 0, -1), count, self._scratch)
        self._is_in = self._scratch.empty(count, bool)
        self._bands: list[RowFile] = []

    def gathering(self, bands: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The bands' keys handed through, one band at a time, `(M,)`; who stands in a crowd is noted as they pass.

        Whoever proposes edges reads all bands: so they are read once for both. The crowd is known after the last.
        """
        for keys in bands:
            if len(self._new):
                rows = _crowded(keys, self._new, self._most)
                self._is_in[rows] = True
                some = np.empty(len(rows), UNDER_KEY)
                some["prompt"], some["key"] = rows, keys[rows]
                self._bands.append(self._scratch.rows(UNDER_KEY))
                self._bands[-1].append(some)
            yield keys

    @property
    def prompts(self) -> np.ndarray:
        """Their numbers in the catalogue, ascending, `(R,)` int32."""
        return self._prompts

    @cached_property
    def _prompts(self) -> np.ndarray:
        return np.flatnonzero(self._is_in).astype(np.int32)

    def near(self, asked: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether each of some prompts of the crowd is a near copy of one of the others, `(N,)` bool.

        Args:
            asked: Places in `prompts`, `(N,)`.
            others: Places of the prompts they must not be like.
        """
        if not (len(asked) and len(others)):
            return np.zeros(len(asked), bool)
        found = find_across(
            self._keys(),
            self._sets,
            asked,
            others,
            similarity=self._similarity,
            scratch=self._scratch,
            progress=Progress(self._reporter, KEYS_SEARCHED, len(asked) * len(self._bands)),
        )
        return found >= 0

    def _keys(self) -> Iterator[np.ndarray]:
        """Per band the keys under which there is a crowd, `(R,)`, `NO_KEY` for who stands under none."""
        for file in self._bands:
            keys, rows = np.full(len(self.prompts), NO_KEY), file.read(0, len(file))
            keys[np.searchsorted(self.prompts, rows["prompt"])] = rows["key"]
            yield keys

    @cached_property
    def _sets(self) -> Shingles:
        bounds, values = self._scratch.empty(len(self.prompts) + 1, np.int64), self._scratch.rows(np.dtype(np.uint32))
        for some in slices(len(self.prompts), PROMPTS_AT_ONCE):
            sets = self._catalogue.shingles_of_prompts(self.prompts[some])
            values.append(sets.values)
            bounds[some.start + 1 : some.stop + 1] = bounds[some.start] + sets.bounds[1:]
        return Shingles(values.mapped(), bounds)


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
