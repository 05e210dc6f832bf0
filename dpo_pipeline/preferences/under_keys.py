"""Rows under some keys of each band: who alone is looked at when two groups are searched for near copies of each other.

Shapes: N rows, R of them under any of the keys.
"""

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from dpo_pipeline.core.metrics import Quiet, Reporter
from dpo_pipeline.preferences.progress import Progress
from dpo_pipeline.preferences.prompt_index import KEYS_SEARCHED, find_across
from dpo_pipeline.preferences.shingles import NO_KEY, Shingles
from dpo_pipeline.preferences.spill import RowFile, Scratch, slices

UNDER_KEY = np.dtype([("row", "<i4"), ("key", "<u4")])
ROWS_AT_ONCE = 1 << 16
"""Rows whose shingles are read together."""


class UnderKeys:
    """Rows noted band by band, then compared where they share a key; known when all bands were noted.

    Args:
        count: N.
        shingles_of: Gives the shingles of some rows, ascending, in their order.
        similarity: Jaccard similarity of word 2-grams from which two are near copies.
        scratch: Where what was noted lies.
        reporter: Told now and then how far a search is.
    """

    def __init__(
        self,
        count: int,
        shingles_of: Callable[[np.ndarray], Shingles],
        *,
        similarity: float,
        scratch: Scratch,
        reporter: Reporter | None = None,
    ) -> None:
        self._shingles_of, self._similarity = shingles_of, similarity
        self._scratch, self._reporter = scratch, reporter or Quiet()
        self._is_in = scratch.empty(count, bool)
        self._bands: list[RowFile] = []

    def note(self, rows: np.ndarray, keys: np.ndarray) -> None:
        """The next band's rows and their keys; the others stand under none that matters."""
        self._is_in[rows] = True
        some = np.empty(len(rows), UNDER_KEY)
        some["row"], some["key"] = rows, keys
        self._bands.append(self._scratch.rows(UNDER_KEY))
        self._bands[-1].append(some)

    @cached_property
    def rows(self) -> np.ndarray:
        """All that were noted, ascending, `(R,)` int32."""
        return np.flatnonzero(self._is_in).astype(np.int32)

    def near(self, asked: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether each of some is a near copy of one of the others, `(A,)` bool; both are places in `rows`."""
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
        """Per band the keys noted, `(R,)`, `NO_KEY` for who stands under none."""
        for file in self._bands:
            keys, noted = np.full(len(self.rows), NO_KEY), file.read(0, len(file))
            keys[np.searchsorted(self.rows, noted["row"])] = noted["key"]
            yield keys

    @cached_property
    def _sets(self) -> Shingles:
        bounds, values = self._scratch.empty(len(self.rows) + 1, np.int64), self._scratch.rows(np.dtype(np.uint32))
        for some in slices(len(self.rows), ROWS_AT_ONCE):
            sets = self._shingles_of(self.rows[some])
            values.append(sets.values)
            bounds[some.start + 1 : some.stop + 1] = bounds[some.start] + sets.bounds[1:]
        return Shingles(values.mapped(), bounds)
