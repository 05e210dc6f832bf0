"""Prompts that others must not be like: MinHash proposes, true Jaccard similarity decides, as in the split.

Shapes: N prompts asked about, G prompts of the index, E candidate pairs of one of each.
"""

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

from dpo_pipeline.preferences.near_duplicates import jaccard_between
from dpo_pipeline.preferences.normalize import map_contents, normalise_once_each, render
from dpo_pipeline.preferences.shingles import NO_KEY, Shingles, band_keys, rows_of, shingle, signatures
from dpo_pipeline.preferences.sketch_tables import DIALOGUE, PROMPT_BANDS, PROMPT_HASHES
from dpo_pipeline.preferences.spill import slices

CANDIDATES_AT_ONCE = 1 << 16
"""Candidates measured together: bounds memory, not what is compared."""


class PromptIndex:
    """Some prompts, by their band keys.

    Law: a prompt is found if it shares the key of any band with any prompt of the index that it is alike enough to,
    however many others stand under that key. What leaks must not hide in a crowd.

    Args:
        prompts: Conversations; their system turns are left out.
        similarity: Jaccard similarity of word 2-grams from which a prompt counts as a copy of one of them.
    """

    def __init__(self, prompts: pa.ListArray, *, similarity: float) -> None:
        self.similarity = similarity
        self.sets, keys = sketched(prompts)
        self._order = np.argsort(keys, axis=1, kind="stable").astype(np.int32)
        self._keys = np.take_along_axis(keys, self._order, axis=1)

    def near(self, prompts: pa.ListArray) -> np.ndarray:
        """Whether each prompt is a near copy of one of the index, `(N,)` bool."""
        sets, keys = sketched(prompts)
        return self.search(keys, lambda rows: rows_of(sets, rows))

    def search(self, bands: Iterable[np.ndarray], shingles_of: Callable[[np.ndarray], Shingles]) -> np.ndarray:
        """The same for prompts given by their sketches, `(N,)` bool.

        Args:
            bands: Per band the prompts' keys, `(N,)` uint32, read one at a time.
            shingles_of: Gives the shingles of some prompts.
        """
        near = np.zeros(0, bool)
        for band, keys in enumerate(bands):
            near = near if band else np.zeros(len(keys), bool)
            for some in slices(len(keys)):
                rows = some.start + np.flatnonzero(~near[some] & (keys[some] != NO_KEY))
                self._search(band, rows, keys[rows], shingles_of, near)
        return near

    def _search(
        self,
        band: int,
        rows: np.ndarray,
        keys: np.ndarray,
        shingles_of: Callable[[np.ndarray], Shingles],
        near: np.ndarray,
    ) -> None:
        """Look among all that share the keys of some rows in a band, and mark the rows that are near one of them."""
        start, stop = (np.searchsorted(self._keys[band], keys, side) for side in ("left", "right"))
        # Few at first: most copies are found at once, and of who is found no more is asked. Then all the others.
        depth = 1
        while (is_left := start < stop).any():
            rows, start, stop = rows[is_left], start[is_left], stop[is_left]
            for at in range(0, len(rows), CANDIDATES_AT_ONCE // depth):
                some = slice(at, at + CANDIDATES_AT_ONCE // depth)
                end = np.minimum(start[some] + depth, stop[some])
                near[rows[some]] = self._is_near(band, shingles_of(rows[some]), start[some], end)
            start = start + depth
            stop = np.where(near[rows], start, stop)
            depth = min(2 * depth, CANDIDATES_AT_ONCE)

    def _is_near(self, band: int, sets: Shingles, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Which sets are alike one of the index's that stand from `start` to before `end` in a band's order, bool."""
        count = end - start
        asked = np.repeat(np.arange(len(count)), count)
        place = np.arange(len(asked)) - np.repeat(np.cumsum(count) - count - start, count)
        alike = jaccard_between(sets, self.sets, np.stack([asked, self._order[band][place]], axis=1))
        return np.bincount(asked[alike >= self.similarity], minlength=len(count)) > 0


def sketched(prompts: pa.ListArray) -> tuple[Shingles, np.ndarray]:
    """The shingles of each prompt's dialogue and its band keys, `(bands, N)`."""
    sets = shingle(render(map_contents(prompts, normalise_once_each), roles=DIALOGUE, with_roles=False))
    return sets, band_keys(signatures(sets, count=PROMPT_HASHES), bands=PROMPT_BANDS)
