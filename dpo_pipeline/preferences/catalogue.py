"""Everything the drops' sketches say, joined: which pairs and prompts exist, and where the text of each is.

Shapes: P distinct pairs and M distinct prompts over all drops, both sorted by identity, so that a pair's number is also
its place in the finished table.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_pipeline.core.errors import InputError
from dpo_pipeline.preferences import identifiers
from dpo_pipeline.preferences.cleaning import RULES
from dpo_pipeline.preferences.normalize import map_contents, render
from dpo_pipeline.preferences.personal_data import compared
from dpo_pipeline.preferences.shingles import Shingles, rows_of, shingle
from dpo_pipeline.preferences.sketch_tables import (
    DIALOGUE,
    PAIR_BANDS,
    PAIRS_FILE,
    PROMPT_BANDS,
    PROMPTS_FILE,
    SHINGLES_FILE,
    salted,
)
from dpo_pipeline.preferences.sorted_rows import SortedRows
from dpo_pipeline.preferences.spill import Scratch, slices, stable_order
from dpo_pipeline.preferences.texts import DropTables, read_texts

IDS_AT_ONCE = 500_000
"""Identities joined at a time."""
VALUES_AT_ONCE = 500_000
"""Values of a column read at a time."""


class Place(NamedTuple):
    """For K distinct things: the first drop that has them, and their row in that drop's sketch, `(K,)` each."""

    drop: np.ndarray
    row: np.ndarray


class Joined:
    """One sorted table of every drop's sketch, joined by identity: K distinct things.

    Attributes:
        ids: `(K, 2)` uint64, sorted.
        place: Where each is sketched: in the first drop that has it.
        numbers: Per drop the number of each of its rows among the distinct, ascending.
        digests: Per drop the digest of its identities, in hex: equal ones stand for equal tables of texts.
    """

    def __init__(self, drops: Sequence[DropTables], file: str, key: str, scratch: Scratch) -> None:
        paths, self._scratch = [drop.sketches / file for drop in drops], scratch
        self._files = [pq.ParquetFile(path, pre_buffer=False) for path in paths]
        sizes = [one.metadata.num_rows for one in self._files]
        total = sum(sizes)
        ids, drop, row = (
            scratch.empty((2, total), np.uint64).T,  # either word end to end, so that searching it copies nothing
            scratch.empty(total, np.int16),
            scratch.empty(total, np.int32),
        )
        self.numbers = [scratch.empty(size, np.int32) for size in sizes]
        readers = [SortedRows(path, [key], lambda some: _identities(some)[:, 0]) for path in paths]
        count, done, hashes = 0, np.zeros(len(sizes), np.int64), [hashlib.blake2b(digest_size=16) for _ in sizes]
        for bound in _bounds(total):
            parts = [_identities(reader.until(bound)) for reader in readers]
            distinct, first, number = identifiers.unique(np.concatenate(parts))
            starts = np.cumsum([0, *map(len, parts)])
            here = np.searchsorted(starts, first, "right") - 1
            end = count + len(distinct)
            ids[count:end], drop[count:end] = distinct, here
            row[count:end] = first - starts[here] + done[here]
            for which, (start, part) in enumerate(zip(starts, parts, strict=False)):
                self.numbers[which][done[which] : done[which] + len(part)] = count + number[start : start + len(part)]
                hashes[which].update(part.tobytes())
                done[which] += len(part)
            count = end
            scratch.let_go()
        self.ids, self.place = ids[:count], Place(drop[:count], row[:count])
        self.digests = [one.hexdigest() for one in hashes]

    def column(self, name: str, into: np.ndarray | None = None) -> np.ndarray:
        """A column of the sketches, `(K,)`, or `(K, 2)` uint64 for identities; in an array that is there already."""
        kind = _no_values(self._files[0], name)
        result = self._scratch.empty((len(self.ids), *kind.shape[1:]), kind.dtype) if into is None else into
        for one, numbers in reversed([*zip(self._files, self.numbers, strict=True)]):
            for start, values in _groups(one, name):
                # What several drops have is written several times, the first drop's last.
                result[numbers[start : start + len(values)]] = values
        return result

    def columns(self, names: Iterable[str]) -> Iterator[np.ndarray]:
        """Columns of one type, one at a time, each in the place of the one before it."""
        into = None
        for name in names:
            into = self.column(name, into)
            yield into

    def column_at(self, name: str, things: np.ndarray) -> np.ndarray:
        """The same for some of the things only, in the order asked for."""
        kind = _no_values(self._files[0], name)
        result = np.empty((len(things), *kind.shape[1:]), kind.dtype)
        for which, one in enumerate(self._files):
            here = np.flatnonzero(self.place.drop[things] == which)
            here = here[np.argsort(self.place.row[things[here]], kind="stable")]
            rows = self.place.row[things[here]]
            for start, values in _groups(one, name, rows):
                first, last = np.searchsorted(rows, (start, start + len(values)))
                result[here[first:last]] = values[rows[first:last] - start]
        return result


class SketchedPrompts(Joined):
    """The prompts of every drop's pairs, or of its demonstrations, with what finds near copies of them: M in all.

    Args:
        drops: In order of arrival.
        file: Their table in each sketch.
        shingles: The file of their shingles.
        scratch: Where arrays of all prompts go.
    """

    def __init__(self, drops: Sequence[DropTables], file: str, shingles: str, scratch: Scratch) -> None:
        super().__init__(drops, file, "prompt_id", scratch)
        self._shingles = [_shingles_in(drop.sketches / file, drop.sketches / shingles, scratch) for drop in drops]

    def bands(self) -> Iterator[np.ndarray]:
        """The band keys, one band at a time, `(M,)` uint32."""
        return self.columns(f"band_{band:02}" for band in range(PROMPT_BANDS))

    def shingles_of(self, prompts: np.ndarray) -> Shingles:
        """The shingles of some prompts, in the order asked for."""
        parts = []
        for which, sets in enumerate(self._shingles):
            here = np.flatnonzero(self.place.drop[prompts] == which)
            parts.append((here, rows_of(sets, self.place.row[prompts[here]])))
        return _collect(parts, len(prompts))


class Catalogue:
    """The pairs and prompts of all drops.

    Args:
        drops: In order of arrival.
        scratch: Where arrays of all pairs and prompts go; absent: into memory.

    Attributes:
        pairs: The pairs.
        prompts: The prompts.
        prompt: Number of each pair's prompt, `(P,)` int32.
    """

    def __init__(self, drops: Sequence[DropTables], scratch: Scratch | None = None) -> None:
        self.drops, self.scratch = drops, scratch or Scratch(None)
        self.pairs = Joined(drops, PAIRS_FILE, "pair_id", self.scratch)
        self.prompts = SketchedPrompts(drops, PROMPTS_FILE, SHINGLES_FILE, self.scratch)
        self.prompt = self.pairs.column("prompt").astype(np.int32, copy=False)
        for which, numbers in enumerate(self.prompts.numbers):
            for some in slices(len(self.prompt)):
                here = some.start + np.flatnonzero(self.pairs.place.drop[some] == which)
                self.prompt[here] = numbers[self.prompt[here]]

    def pair_bands(self) -> Iterator[np.ndarray]:
        """The band keys of all pairs, one band at a time, `(P,)` uint32."""
        return self.pairs.columns(f"band_{band:02}" for band in range(PAIR_BANDS))

    def prompt_bands(self) -> Iterator[np.ndarray]:
        """The band keys of all prompts, one band at a time, `(M,)` uint32."""
        return self.prompts.bands()

    def found(self) -> Iterator[tuple[str, np.ndarray]]:
        """What each cleaning rule found, one rule at a time: its name, `(P,)` bool."""
        return ((rule.name, self.pairs.column(f"rule_{rule.name}")) for rule in RULES)

    def draws(self, salt: str) -> np.ndarray:
        """What each prompt drew for the split, `(M,)` uint64.

        Raises:
            InputError: If a drop's prompts drew with another salt.
        """
        for drop in self.drops:
            if not salted(salt).items() <= (pq.read_schema(drop.sketches / PROMPTS_FILE).metadata or {}).items():
                raise InputError(
                    f"the prompts of drop {drop.name} were sketched with another split_salt",
                    expected=f"draws with the salt {salt!r}",
                    do="Materialize the sketches of the drop again",
                )
        return self.prompts.column("draw")

    def prompt_order(self) -> np.ndarray:
        """The prompts in order of arrival, within a drop by identity, `(M,)`."""
        drop = self.prompts.place.drop
        return stable_order(lambda some: drop[some].astype(np.int64), len(drop), self.scratch)

    def shingles_of_pairs(
        self, pairs: np.ndarray, *, redacted: frozenset[str] = frozenset()
    ) -> tuple[Shingles, Shingles, Shingles]:
        """The shingles of the prompts, low and high responses of some pairs, in the order asked for.

        Args:
            pairs: Their rows.
            redacted: Rules for personal data whose finds are taken out of the texts first.
        """
        change = partial(compared, rules=redacted)
        rows, b_is_low = self.pairs.column_at("row", pairs), self.pairs.column_at("b_is_low", pairs)
        parts: list[list[tuple[np.ndarray, Shingles]]] = [[], [], []]
        for drop, tables in enumerate(self.drops):
            here = np.flatnonzero(self.pairs.place.drop[pairs] == drop)
            for texts in read_texts(tables.judgments, rows[here]):
                at = here[texts.place]
                a, b = (shingle(change(some)) for some in (texts.response_a, texts.response_b))
                swap = b_is_low[at]
                dialogue = render(map_contents(texts.prompt, change), roles=DIALOGUE, with_roles=False)
                for part, sets in zip(parts, (shingle(dialogue), _pick(swap, b, a), _pick(swap, a, b)), strict=True):
                    part.append((at, sets))
        return tuple(_collect(part, len(pairs)) for part in parts)  # type: ignore[return-value]

    def shingles_of_prompts(self, prompts: np.ndarray) -> Shingles:
        """The shingles of some prompts, system turns left out, in the order asked for."""
        return self.prompts.shingles_of(prompts)


def _bounds(total: int) -> list[int | None]:
    """Where to cut the identities, which are hashes, into ranges of `IDS_AT_ONCE`: bounds of their high words."""
    count = max(1, -(-total // IDS_AT_ONCE))
    return [*((number << 64) // count for number in range(1, count)), None]


def _identities(table: pa.Table) -> np.ndarray:
    return identifiers.from_binary(table.column(0).combine_chunks())


def _groups(file: pq.ParquetFile, name: str, rows: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """A column in pieces, and where each starts; only pieces that hold one of the rows, ascending."""
    some: list[int] = []
    start = end = 0
    for group in range(file.num_row_groups):
        some.append(group)
        end += file.metadata.row_group(group).num_rows
        if end - start >= VALUES_AT_ONCE or group == file.num_row_groups - 1 or rows is not None:
            if rows is None or np.searchsorted(rows, start) < np.searchsorted(rows, end):
                yield start, _values(file.read_row_groups(some, columns=[name]).column(0).combine_chunks())
            some, start = [], end


def _no_values(file: pq.ParquetFile, name: str) -> np.ndarray:
    """An empty array of a column's type."""
    return _values(pa.array([], file.schema_arrow.field(name).type))


def _values(column: pa.Array) -> np.ndarray:
    is_id = pa.types.is_fixed_size_binary(column.type)
    return identifiers.from_binary(column) if is_id else column.to_numpy(zero_copy_only=False)


def _shingles_in(prompts: Path, shingles: Path, scratch: Scratch) -> Shingles:
    """The shingles of all prompts of a drop, mapped from their file beside the table of the prompts."""
    with pq.ParquetFile(prompts, pre_buffer=False) as file:
        bounds = scratch.empty(file.metadata.num_rows + 1, np.int64)
        for start, sizes in _groups(file, "shingles"):
            bounds[start + 1 : start + 1 + len(sizes)] = bounds[start] + np.cumsum(sizes)
    return Shingles(scratch.mapped(shingles, np.uint32), bounds)


def _pick(swap: np.ndarray, yes: Shingles, no: Shingles) -> Shingles:
    """Row by row the first sets or the second."""
    both = Shingles(
        np.concatenate([yes.values, no.values]), np.concatenate([yes.bounds, no.bounds[1:] + yes.bounds[-1]])
    )
    return rows_of(both, np.where(swap, 0, len(yes)) + np.arange(len(yes)))


def _collect(parts: list[tuple[np.ndarray, Shingles]], count: int) -> Shingles:
    """Shingles read in pieces, put into the order asked for."""
    place = np.concatenate([np.zeros(0, np.int64), *(at for at, _ in parts)])
    sizes = np.concatenate([np.zeros(0, np.int64), *(np.diff(sets.bounds) for _, sets in parts)])
    values = np.concatenate([np.zeros(0, np.uint32), *(sets.values for _, sets in parts)])
    order = np.empty(count, np.int64)
    order[place] = np.arange(len(place))
    return rows_of(Shingles(values, np.concatenate([[0], np.cumsum(sizes)])), order)
