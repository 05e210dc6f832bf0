"""Verdicts per rubric dimension ("tone", "accuracy", ...), averaged per pair."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.preferences.schemas import DIMENSION_MEANS
from dpo_pipeline.preferences.texts import JUDGMENTS_FILE, DropTables
from dpo_pipeline.preferences.verdicts import Verdicts

BATCH_ROWS = 65_536


class DimensionVerdicts:
    """One entry per judgment and dimension.

    Attributes:
        verdict: Number of the judgment in the verdicts, `(S,)` ascending.
        name: Number of the dimension in `names`, `(S,)`.
        toward_low: Strength toward the pair's low response, -3..3, `(S,)` float32.
        names: The dimensions, sorted.
    """

    def __init__(self, verdict: np.ndarray, name: np.ndarray, toward_low: np.ndarray, names: list[str]) -> None:
        self.verdict, self.name, self.toward_low, self.names = verdict, name, toward_low, names

    @classmethod
    def read(cls, drops: Sequence[DropTables], verdicts: Verdicts) -> "DimensionVerdicts":
        """The dimensions of all drops' judgments."""
        rows, texts, strengths = [np.zeros(0, np.int64)], [], [np.zeros(0, np.float32)]
        for number, drop in enumerate(drops):
            mine = np.flatnonzero(verdicts.drop == number)
            place = np.empty(len(mine), np.int64)
            place[verdicts.row[mine]] = mine
            start = 0
            with pq.ParquetFile(drop.judgments / JUDGMENTS_FILE) as file:
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=["dimensions"]):
                    lists = batch.column(0)
                    rows.append(place[start + pc.list_parent_indices(lists).to_numpy()])
                    entries = lists.flatten()
                    texts.append(entries.field("name").dictionary_encode())
                    strengths.append(entries.field("strength").to_numpy())
                    start += batch.num_rows
        names, codes = _numbered(texts)
        verdict, strength = np.concatenate(rows), np.concatenate(strengths)
        order = np.lexsort((codes, verdict))
        verdict, codes, strength = verdict[order], codes[order], strength[order]
        toward_low = strength * np.where(verdicts.b_is_low[verdict], 1, -1).astype(np.float32)
        return cls(verdict, codes, toward_low, names)

    def means(self, verdicts: Verdicts, pair_count: int) -> "DimensionMeans":
        """The mean over each pair's counted judgments, weighed by their votes."""
        counted = verdicts.is_counted[self.verdict]
        verdict, name = self.verdict[counted], self.name[counted]
        key = verdicts.pair[verdict].astype(np.int64) * max(len(self.names), 1) + name
        distinct, code = np.unique(key, return_inverse=True)
        votes = verdicts.votes[verdict].astype(float)
        total = np.bincount(code, weights=self.toward_low[counted] * votes, minlength=len(distinct))
        mean = total / np.maximum(np.bincount(code, weights=votes, minlength=len(distinct)), 1)
        pair, name = np.divmod(distinct, max(len(self.names), 1))
        return DimensionMeans(np.searchsorted(pair, np.arange(pair_count + 1)), name, mean, self.names)


class DimensionMeans:
    """Mean strength toward the low response per pair and dimension."""

    def __init__(self, bounds: np.ndarray, name: np.ndarray, mean: np.ndarray, names: list[str]) -> None:
        self.bounds, self.name, self.mean, self.names = bounds, name, mean, names

    def take(self, pairs: np.ndarray, *, chosen_is_low: np.ndarray) -> pa.ListArray:
        """The means of some pairs, toward the chosen response, as schema `preference_pairs` has them."""
        sizes = self.bounds[pairs + 1] - self.bounds[pairs]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        place = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - self.bounds[pairs], sizes)
        sign = np.repeat(np.where(chosen_is_low, 1.0, -1.0), sizes)
        entries = pa.StructArray.from_arrays(
            [
                pa.array(self.names, pa.string()).take(pa.array(self.name[place])),
                pa.array((self.mean[place] * sign + 0.0).astype(np.float32)),
            ],
            fields=list(DIMENSION_MEANS.value_type),
        )
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), entries, type=DIMENSION_MEANS)


def _numbered(texts: list[pa.DictionaryArray]) -> tuple[list[str], np.ndarray]:
    names = sorted({name for text in texts for name in text.dictionary.to_pylist()})
    places = {name: place for place, name in enumerate(names)}
    codes = [
        np.array([places[name] for name in text.dictionary.to_pylist()], np.int64)[text.indices.to_numpy()]
        for text in texts
        if len(text)
    ]
    return names, np.concatenate([np.zeros(0, np.int64), *codes])
