"""Verdicts per rubric dimension ("tone", "accuracy", ...), averaged per pair."""

import numpy as np
import pyarrow as pa

from dpo_pipeline.preferences.schemas import DIMENSION_MEANS
from dpo_pipeline.preferences.verdict_file import VerdictFile
from dpo_pipeline.preferences.verdicts import Verdicts


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
    def read(cls, file: VerdictFile, verdicts: Verdicts) -> "DimensionVerdicts":
        """The dimensions of some verdicts of the file."""
        verdict, name, strength = file.dimensions_of(verdicts)
        order = np.lexsort((name, verdict))
        verdict, name, strength = verdict[order], name[order], strength[order]
        toward_low = strength * np.where(verdicts.b_is_low[verdict], 1, -1).astype(np.float32)
        return cls(verdict, name, toward_low, file.dimensions)

    def means(self, verdicts: Verdicts) -> "DimensionMeans":
        """The mean over each pair's counted judgments, weighed by their votes."""
        counted = np.flatnonzero(verdicts.is_counted[self.verdict])
        key = verdicts.pair[self.verdict[counted]].astype(np.int64) * max(len(self.names), 1) + self.name[counted]
        # By what they say: the order of additions shows in the last bits of a sum, and ids tell of files and lines.
        order = np.lexsort((verdicts.votes[self.verdict[counted]], self.toward_low[counted], key))
        counted, key = counted[order], key[order]
        verdict = self.verdict[counted]
        distinct, code = np.unique(key, return_inverse=True)
        votes = verdicts.votes[verdict].astype(float)
        total = np.bincount(code, weights=self.toward_low[counted] * votes, minlength=len(distinct))
        mean = total / np.maximum(np.bincount(code, weights=votes, minlength=len(distinct)), 1)
        pair, name = np.divmod(distinct, max(len(self.names), 1))
        return DimensionMeans(np.searchsorted(pair, np.arange(verdicts.pair_count + 1)), name, mean, self.names)


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
