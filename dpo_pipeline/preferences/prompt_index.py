"""Prompts that others must not be like: MinHash proposes, true Jaccard similarity decides, as in the split.

Shapes: N prompts asked about, G prompts of the index, E candidate pairs of one of each.
"""

import numpy as np
import pyarrow as pa

from dpo_pipeline.preferences.near_duplicates import overlaps
from dpo_pipeline.preferences.normalize import map_contents, normalise_once_each, render
from dpo_pipeline.preferences.shingles import Shingles, band_keys, shingle, signatures
from dpo_pipeline.preferences.sketch_tables import DIALOGUE, PROMPT_BANDS, PROMPT_HASHES

MOST_CANDIDATES = 16
"""Prompts of the index each prompt is compared with per band; keeps hostile buckets linear."""


class PromptIndex:
    """Some prompts, by their band keys.

    Args:
        prompts: Conversations; their system turns are left out.
        similarity: Jaccard similarity of word 2-grams from which a prompt counts as a copy of one of them.
    """

    def __init__(self, prompts: pa.ListArray, *, similarity: float) -> None:
        self.similarity = similarity
        self.sets, keys = sketched(prompts)
        self._order = np.argsort(keys, axis=1, kind="stable")
        self._keys = np.take_along_axis(keys, self._order, axis=1)

    def near(self, prompts: pa.ListArray) -> np.ndarray:
        """Whether each prompt is a near copy of one of the index, `(N,)` bool."""
        sets, keys = sketched(prompts)
        found = distinct_edges([self.candidates(band, keys[band]) for band in range(PROMPT_BANDS)])
        return self.are_near(sets, found, len(prompts))

    def are_near(self, sets: Shingles, edges: np.ndarray, count: int) -> np.ndarray:
        """Which of `count` prompts are alike along some edge (prompt, prompt of the index), `(count,)` bool."""
        shared, either = overlaps(sets, self.sets, edges)
        near = np.zeros(count, bool)
        near[edges[shared >= self.similarity * np.maximum(either, 1), 0]] = True
        return near

    def candidates(self, band: int, keys: np.ndarray) -> np.ndarray:
        """Pairs (prompt, prompt of the index) that share the key of a band, `(E, 2)`."""
        first = np.searchsorted(self._keys[band], keys, "left")
        last = np.searchsorted(self._keys[band], keys, "right")
        count = np.where(keys == 0, 0, np.minimum(last - first, MOST_CANDIDATES))
        rows = np.repeat(np.arange(len(keys)), count)
        offsets = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
        return np.stack([rows, self._order[band][first[rows] + offsets]], axis=1)


def sketched(prompts: pa.ListArray) -> tuple[Shingles, np.ndarray]:
    """The shingles of each prompt's dialogue and its band keys, `(bands, N)`."""
    sets = shingle(render(map_contents(prompts, normalise_once_each), roles=DIALOGUE, with_roles=False))
    return sets, band_keys(signatures(sets, count=PROMPT_HASHES), bands=PROMPT_BANDS)


def distinct_edges(edges: list[np.ndarray]) -> np.ndarray:
    """The edges of several bands, each once, `(E, 2)`."""
    return np.unique(np.concatenate([np.zeros((0, 2), np.int64), *edges]), axis=0)
