"""Lists per pair, kept as flat arrays until a slice of pairs is written."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.near_duplicates import distinct
from dpo_pipeline.preferences.verdicts import Verdicts


class PairLists:
    """Something of each of P pairs, end to end.

    Args:
        pair: The pair each entry belongs to, ascending, `(S,)`.
        values: The entries, `(S,)` numbers.
        pair_count: P.
        to_arrow: Turns entries into an Arrow array of the same length.
    """

    def __init__(
        self, pair: np.ndarray, values: np.ndarray, pair_count: int, to_arrow: Callable[[np.ndarray], pa.Array]
    ) -> None:
        self.bounds = np.searchsorted(pair, np.arange(pair_count + 1))
        self.values, self.to_arrow = values, to_arrow

    def sizes(self, pairs: np.ndarray) -> np.ndarray:
        """How long the lists of some pairs are, `(K,)` int32."""
        return (self.bounds[pairs + 1] - self.bounds[pairs]).astype(np.int32)

    def take(self, pairs: np.ndarray) -> pa.ListArray:
        """The lists of some pairs."""
        sizes = self.sizes(pairs)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        place = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - self.bounds[pairs], sizes)
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), self.to_arrow(self.values[place]))


def judgment_lists(verdicts: Verdicts, mask: np.ndarray) -> PairLists:
    """The judgments of each pair, sorted by identity."""
    where = np.flatnonzero(mask)
    return PairLists(verdicts.pair[where], where, verdicts.pair_count, lambda some: to_hex(verdicts.judgment[some]))


def annotator_lists(verdicts: Verdicts, mask: np.ndarray) -> PairLists:
    """The known annotators of each pair, each once, sorted."""
    return name_lists(verdicts, mask & (verdicts.annotator >= 0), verdicts.annotator, verdicts.annotators)


def name_lists(verdicts: Verdicts, mask: np.ndarray, codes: np.ndarray, names: list[str]) -> PairLists:
    """The names some judgments of each pair carry, each once, sorted; `codes` number the names."""
    by_name = sorted(range(len(names)), key=names.__getitem__)
    place = np.argsort(by_name)
    key = distinct((verdicts.pair[mask].astype(np.int64) << 32) | place[codes[mask]]) if names else np.zeros(0, int)
    text = pa.array([names[code] for code in by_name], pa.string())
    return PairLists(key >> 32, key & 0xFFFFFFFF, verdicts.pair_count, lambda some: text.take(pa.array(some)))
