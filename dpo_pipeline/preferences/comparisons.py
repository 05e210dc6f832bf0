"""The comparisons of the responses to one prompt, together: a range of prompts at a time, so memory stays bounded.

Shapes: Q pairs of a range of prompts, N verdicts on them, I responses.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa

from dpo_pipeline.preferences import identifiers
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.consensus import Verdict
from dpo_pipeline.preferences.spill import Spill, range_count, slices

PAIR_ROW = pa.schema([("pair", pa.int32()), ("prompt", pa.int32()), ("low", pa.binary(16)), ("high", pa.binary(16))])
VERDICT_ROW = pa.schema([("pair", pa.int32()), *((name, pa.int32()) for name in Verdict._fields[1:])])
PAIR_BYTES = 40


class Comparisons(NamedTuple):
    """All comparisons of the responses to some prompts.

    Attributes:
        pairs: Numbers of the pairs among all, ascending, `(Q,)`.
        prompt: The prompt of each, numbered from 0 without gaps, `(Q,)`.
        items: Numbers of its low and high response: equal ones to one prompt have one number, `(Q, 2)`.
        verdicts: The verdicts that count, those on a pair in the order given, pairs numbered from 0, `(N,)` each.
    """

    pairs: np.ndarray
    prompt: np.ndarray
    items: np.ndarray
    verdicts: Verdict


class ByPrompt:
    """Puts verdicts aside by the prompt of their pair, and gives them back with the pairs.

    Args:
        catalogue: The pairs.
        least_pairs: Prompts with fewer pairs are passed over.
    """

    def __init__(self, catalogue: Catalogue, *, least_pairs: int) -> None:
        count = len(catalogue.prompt)
        self._prompt, self._ids = catalogue.prompt, catalogue.prompts.ids
        pairs_of = catalogue.scratch.empty(len(self._ids), np.int32)
        for some in slices(count):
            np.add.at(pairs_of, self._prompt[some], 1)
        self._is_wanted, wanted = catalogue.scratch.empty(count, bool), 0
        for some in slices(count):
            self._is_wanted[some] = pairs_of[self._prompt[some]] >= least_pairs
            wanted += int(self._is_wanted[some].sum())
        ranges = range_count(wanted, wanted * PAIR_BYTES)
        self._pairs = Spill(catalogue.scratch.folder, PAIR_ROW, ranges)
        self._verdicts = Spill(catalogue.scratch.folder, VERDICT_ROW, ranges)
        if wanted:
            low, high = (catalogue.pairs.column(f"{side}_id") for side in ("low", "high"))
            for some in slices(count, 1 << 18):
                own = some.start + np.flatnonzero(self._is_wanted[some])
                numbers = [pa.array(own.astype(np.int32)), pa.array(self._prompt[own])]
                ids = [identifiers.to_binary(column[own]) for column in (low, high)]
                self._pairs.put(self._prompt_ids(own), pa.RecordBatch.from_arrays([*numbers, *ids], schema=PAIR_ROW))
                catalogue.scratch.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._pairs.close()
        self._verdicts.close()

    def add(self, start: int, verdicts: Verdict) -> None:
        """Take the verdicts that count on a range of pairs, the first of which has a number among all."""
        pair = start + verdicts.pair
        wanted = np.flatnonzero(self._is_wanted[pair])
        if len(wanted):
            columns = [pa.array(column[wanted].astype(np.int32)) for column in (pair, *verdicts[1:])]
            batch = pa.RecordBatch.from_arrays(columns, schema=VERDICT_ROW)
            self._verdicts.put(self._prompt_ids(pair[wanted]), batch)

    def ranges(self) -> Iterator[Comparisons]:
        """The comparisons of one range of prompts after another."""
        for pairs, verdicts in zip(self._pairs.ranges(), self._verdicts.ranges(), strict=True):
            rows = pairs.sort_by("pair").combine_chunks()
            numbers, prompt = (rows.column(name).to_numpy() for name in ("pair", "prompt"))
            ids = np.concatenate(
                [identifiers.from_binary(rows.column(name).combine_chunks()) for name in ("low", "high")]
            )
            prompt = np.unique(prompt, return_inverse=True)[1]
            code = identifiers.unique(ids)[2]
            key = (np.tile(prompt, 2).astype(np.int64) << 32) | code
            items = np.unique(key, return_inverse=True)[1].reshape(2, -1).T
            columns = [verdicts.column(name).to_numpy() for name in VERDICT_ROW.names]
            order = np.argsort(columns[0], kind="stable")
            pair, *rest = (column[order] for column in columns)
            yield Comparisons(numbers, prompt, items, Verdict(np.searchsorted(numbers, pair), *rest))

    def _prompt_ids(self, pairs: np.ndarray) -> np.ndarray:
        return self._ids[self._prompt[pairs]]
