"""Prompts the evaluation asks, and prompts so like them that learning them would be learning the answers.

The same sketches and the same similarity as in the preference split: MinHash proposes, true Jaccard decides.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.tables import MESSAGES
from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.near_duplicates import overlaps
from dpo_pipeline.preferences.normalize import map_contents, normalise_once_each, prompt_keys, render
from dpo_pipeline.preferences.shingles import Shingles, band_keys, shingle, signatures
from dpo_pipeline.preferences.sketch_tables import DIALOGUE, PROMPT_BANDS, PROMPT_HASHES

PAIRS, SPLITS = "pairs.parquet", "splits.parquet"
MOST_CANDIDATES = 16


class HeldOutPrompts:
    """The evaluation's side of the preference split.

    Args:
        pairs: The `preference_pairs` artifact folder.
        similarity: Jaccard similarity of word 2-grams from which a prompt counts as a copy of a held-out one.
    """

    def __init__(self, pairs: Path, *, similarity: float) -> None:
        self.similarity = similarity
        splits = pq.read_table(pairs / SPLITS, columns=["prompt_id", "split"])
        self._ids = set(splits.filter(pc.field("split") != "train")["prompt_id"].to_pylist())
        table = pq.read_table(pairs / PAIRS, columns=["prompt", "split"])
        prompts = table.filter(pc.field("split") == "held_out")["prompt"].combine_chunks()
        self._sets, keys = _sketches(prompts)
        self._order = np.argsort(keys, axis=1, kind="stable")
        self._keys = np.take_along_axis(keys, self._order, axis=1)

    def reasons(self, prompts: list[list[dict[str, str]]]) -> tuple[list[str], list[str | None]]:
        """The prompts' ids, and why each is kept out of training: `prompt_held_out`, `prompt_near_held_out` or None."""
        array = pa.array(prompts, MESSAGES)
        ids = to_hex(prompt_keys(array)).to_pylist()
        near = self._near(array)
        return ids, [
            "prompt_held_out" if name in self._ids else "prompt_near_held_out" if is_near else None
            for name, is_near in zip(ids, near.tolist(), strict=True)
        ]

    def _near(self, prompts: pa.ListArray) -> np.ndarray:
        """Whether each prompt is a near copy of a held-out one, (N,) bool."""
        sets, keys = _sketches(prompts)
        edges = [self._candidates(band, keys[band]) for band in range(PROMPT_BANDS)]
        found = np.unique(np.concatenate(edges), axis=0)
        shared, either = overlaps(sets, self._sets, found)
        near = np.zeros(len(prompts), bool)
        near[found[shared >= self.similarity * np.maximum(either, 1), 0]] = True
        return near

    def _candidates(self, band: int, keys: np.ndarray) -> np.ndarray:
        """Pairs (prompt, held-out prompt) that share the key of a band; at most 16 held-out prompts each, (E, 2)."""
        first = np.searchsorted(self._keys[band], keys, "left")
        last = np.searchsorted(self._keys[band], keys, "right")
        count = np.where(keys == 0, 0, np.minimum(last - first, MOST_CANDIDATES))
        rows = np.repeat(np.arange(len(keys)), count)
        offsets = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
        return np.stack([rows, self._order[band][first[rows] + offsets]], axis=1)


def _sketches(prompts: pa.ListArray) -> tuple[Shingles, np.ndarray]:
    """The shingles of each prompt's dialogue and its band keys, (bands, N)."""
    sets = shingle(render(map_contents(prompts, normalise_once_each), roles=DIALOGUE, with_roles=False))
    return sets, band_keys(signatures(sets, count=PROMPT_HASHES), bands=PROMPT_BANDS)
