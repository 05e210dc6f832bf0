"""Everything the drops' sketches say, joined: which pairs and prompts exist, and where the text of each is.

Shapes: P distinct pairs and M distinct prompts over all drops, both sorted by identity, so that a pair's number is also
its place in the finished table.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from dpo_pipeline.preferences import identifiers
from dpo_pipeline.preferences.cleaning import RULES
from dpo_pipeline.preferences.normalize import map_contents, normalise_once_each, render
from dpo_pipeline.preferences.shingles import Shingles, shingle
from dpo_pipeline.preferences.sketch import DIALOGUE, PAIR_BANDS, PAIRS_FILE, PROMPT_BANDS, PROMPTS_FILE
from dpo_pipeline.preferences.texts import DropTables, read_texts


class Place(NamedTuple):
    """For K distinct things: the first drop that has them, and their row in that drop's sketch, `(K,)` each."""

    drop: np.ndarray
    row: np.ndarray


@dataclass(slots=True)
class Catalogue:
    """The pairs and prompts of all drops.

    Attributes:
        drops: In order of arrival.
        pair_ids: `(P, 2)` uint64, sorted.
        prompt_ids: `(M, 2)` uint64, sorted.
        pair_place: Where each pair's sketch is, the first drop that has it.
        prompt_place: The same for prompts.
        pair_numbers: Per drop the number of each of its sketch's pairs.
        prompt: Number of each pair's prompt, `(P,)` int32.
    """

    drops: Sequence[DropTables]
    pair_ids: np.ndarray
    prompt_ids: np.ndarray
    pair_place: Place
    prompt_place: Place
    pair_numbers: list[np.ndarray]
    prompt: np.ndarray

    @classmethod
    def read(cls, drops: Sequence[DropTables]) -> "Catalogue":
        """The joined sketches of the drops."""
        pair_ids, pair_place, pair_numbers = _join(drops, PAIRS_FILE, "pair_id")
        prompt_ids, prompt_place, prompt_numbers = _join(drops, PROMPTS_FILE, "prompt_id")
        catalogue = cls(drops, pair_ids, prompt_ids, pair_place, prompt_place, pair_numbers, np.empty(0, np.int32))
        local = catalogue.pair_column("prompt")
        catalogue.prompt = np.empty(len(local), np.int32)
        for place, numbers in enumerate(prompt_numbers):
            here = pair_place.drop == place
            catalogue.prompt[here] = numbers[local[here]]
        return catalogue

    def pair_column(self, name: str) -> np.ndarray:
        """A column of the pairs' sketches, `(P,)`, or `(P, 2)` uint64 for identities."""
        return _gather(self.drops, PAIRS_FILE, name, self.pair_place)

    def prompt_column(self, name: str) -> np.ndarray:
        """A column of the prompts' sketches, `(M,)`."""
        return _gather(self.drops, PROMPTS_FILE, name, self.prompt_place)

    def pair_bands(self) -> Iterator[np.ndarray]:
        """The band keys of all pairs, one band at a time, `(P,)` uint32."""
        return (self.pair_column(f"band_{band:02}") for band in range(PAIR_BANDS))

    def prompt_bands(self) -> Iterator[np.ndarray]:
        """The band keys of all prompts, one band at a time, `(M,)` uint32."""
        return (self.prompt_column(f"band_{band:02}") for band in range(PROMPT_BANDS))

    def found(self) -> dict[str, np.ndarray]:
        """What each cleaning rule found, `(P,)` bool by the rule's name."""
        return {rule.name: self.pair_column(f"rule_{rule.name}") for rule in RULES}

    def prompt_order(self) -> np.ndarray:
        """The prompts in order of arrival, within a drop by identity, `(M,)`."""
        return np.argsort(self.prompt_place.drop, kind="stable")

    def shingles_of_pairs(self, pairs: np.ndarray) -> tuple[Shingles, Shingles, Shingles]:
        """The shingles of the prompts, low and high responses of some pairs, in the order asked for."""
        rows, b_is_low = self.pair_column("row")[pairs], self.pair_column("b_is_low")[pairs]
        parts: list[list[tuple[np.ndarray, Shingles]]] = [[], [], []]
        for drop, tables in enumerate(self.drops):
            here = np.flatnonzero(self.pair_place.drop[pairs] == drop)
            for texts in read_texts(tables.judgments, rows[here]):
                at = here[texts.place]
                a, b = (shingle(normalise_once_each(some)) for some in (texts.response_a, texts.response_b))
                swap = b_is_low[at]
                dialogue = render(map_contents(texts.prompt, normalise_once_each), roles=DIALOGUE, with_roles=False)
                for part, sets in zip(parts, (shingle(dialogue), _pick(swap, b, a), _pick(swap, a, b)), strict=True):
                    part.append((at, sets))
        return tuple(_collect(part, len(pairs)) for part in parts)  # type: ignore[return-value]

    def shingles_of_prompts(self, prompts: np.ndarray) -> Shingles:
        """The shingles of some prompts, system turns left out, in the order asked for."""
        rows = self.prompt_column("row")[prompts]
        parts = []
        for drop, tables in enumerate(self.drops):
            here = np.flatnonzero(self.prompt_place.drop[prompts] == drop)
            for texts in read_texts(tables.judgments, rows[here], columns=("prompt",)):
                dialogue = render(map_contents(texts.prompt, normalise_once_each), roles=DIALOGUE, with_roles=False)
                parts.append((here[texts.place], shingle(dialogue)))
        return _collect(parts, len(prompts))


def _join(drops: Sequence[DropTables], file: str, key: str) -> tuple[np.ndarray, Place, list[np.ndarray]]:
    """The distinct identities, their first places, and per drop the number of each of its rows."""
    per_drop = [_column(drop, file, key) for drop in drops]
    sizes = [len(ids) for ids in per_drop]
    distinct, first, number = identifiers.unique(np.concatenate([np.empty((0, 2), np.uint64), *per_drop]))
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    drop = (np.searchsorted(starts, first, "right") - 1).astype(np.int16)
    row = first - starts[drop]
    return (
        distinct,
        Place(drop, row),
        [number[start : start + size] for start, size in zip(starts, sizes, strict=False)],
    )


def _gather(drops: Sequence[DropTables], file: str, name: str, place: Place) -> np.ndarray:
    result = None
    for number, drop in enumerate(drops):
        here = place.drop == number
        values = _column(drop, file, name)
        if result is None:
            result = np.empty((len(place.drop), *values.shape[1:]), values.dtype)
        result[here] = values[place.row[here]]
    return np.empty(0) if result is None else result


def _column(drop: DropTables, file: str, name: str) -> np.ndarray:
    with pq.ParquetFile(drop.sketches / file) as sketch:
        column = sketch.read(columns=[name]).column(0).combine_chunks()
    return identifiers.from_binary(column) if name.endswith("_id") else column.to_numpy(zero_copy_only=False)


def _pick(swap: np.ndarray, yes: Shingles, no: Shingles) -> Shingles:
    """Row by row the first sets or the second."""
    both = Shingles(
        np.concatenate([yes.values, no.values]), np.concatenate([yes.bounds, no.bounds[1:] + yes.bounds[-1]])
    )
    return _rows(both, np.where(swap, 0, len(yes)) + np.arange(len(yes)))


def _collect(parts: list[tuple[np.ndarray, Shingles]], count: int) -> Shingles:
    """Shingles read in pieces, put into the order asked for."""
    place = np.concatenate([np.zeros(0, np.int64), *(at for at, _ in parts)])
    sizes = np.concatenate([np.zeros(0, np.int64), *(np.diff(sets.bounds) for _, sets in parts)])
    values = np.concatenate([np.zeros(0, np.uint32), *(sets.values for _, sets in parts)])
    order = np.empty(count, np.int64)
    order[place] = np.arange(len(place))
    return _rows(Shingles(values, np.concatenate([[0], np.cumsum(sizes)])), order)


def _rows(sets: Shingles, rows: np.ndarray) -> Shingles:
    starts, sizes = sets.bounds[rows], sets.bounds[rows + 1] - sets.bounds[rows]
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    place = np.arange(bounds[-1]) - np.repeat(bounds[:-1] - starts, sizes)
    return Shingles(sets.values[place], bounds)
