"""Prompts that others must not be like: MinHash proposes, true Jaccard similarity decides, as in the split.

Shapes: N prompts asked about, G prompts of the index, E candidate pairs of one of each.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dpo_pipeline.preferences.all_pairs import ASKED_AT_ONCE, enough_for, near_copies_in
from dpo_pipeline.preferences.bitmaps import likeness_bound
from dpo_pipeline.preferences.near_duplicates import jaccard_between, under
from dpo_pipeline.preferences.normalize import map_contents, normalise_once_each, render
from dpo_pipeline.preferences.progress import Progress
from dpo_pipeline.preferences.shingles import NO_KEY, Shingles, band_keys, rows_of, shingle, signatures
from dpo_pipeline.preferences.sketch_tables import DIALOGUE, PROMPT_BANDS, PROMPT_HASHES
from dpo_pipeline.preferences.spill import Scratch, slices

CANDIDATES_AT_ONCE = 1 << 16
"""Candidates measured together: bounds memory, not what is compared."""
PAIRS_OF_A_CROWD = 2_000
"""Pairs under one key from which all are compared at once (`all_pairs`): fewer are measured sooner one by one."""
KEYS_SEARCHED = "keys of prompts searched for near copies across the split"
"""What progress tells: each prompt asked about has a key per band."""


class PromptIndex:
    """Some prompts, by their band keys.

    Law: a prompt is found if it shares the key of any band with any prompt of the index that it is alike enough to,
    however many others stand under that key. What leaks must not hide in a crowd.

    Args:
        prompts: Conversations, whose system turns are left out; or the shingles of their other turns.
        similarity: Jaccard similarity of word 2-grams from which a prompt counts as a copy of one of them.
    """

    def __init__(self, prompts: pa.ListArray | Shingles, *, similarity: float) -> None:
        self.similarity = similarity
        self.sets, keys = (prompts, _keys(prompts)) if isinstance(prompts, Shingles) else sketched(prompts)
        self._order = np.argsort(keys, axis=1, kind="stable").astype(np.int32)
        self._keys = np.take_along_axis(keys, self._order, axis=1)

    def near(self, prompts: pa.ListArray) -> np.ndarray:
        """Whether each prompt is a near copy of one of the index, `(N,)` bool."""
        sets, keys = sketched(prompts)
        return self.search(keys, lambda rows: rows_of(sets, rows))

    def search(self, bands: Iterable[np.ndarray], shingles_of: Callable[[np.ndarray], Shingles]) -> np.ndarray:
        """The same for prompts given by their sketches, `(N,)` bool; arguments as of `find_near`."""
        shelves = (
            Shelf(keys, *own) for keys, own in zip(bands, zip(self._keys, self._order, strict=True), strict=True)
        )
        return find_near(shelves, shingles_of, self.sets, similarity=self.similarity) >= 0


class Shelf(NamedTuple):
    """One band: the keys asked about, `(N,)`, and those of the index, sorted, with their places in it, `(G,)`."""

    asked: np.ndarray
    keys: np.ndarray
    places: np.ndarray


def find_near(
    bands: Iterable[Shelf],
    shingles_of: Callable[[np.ndarray], Shingles],
    index: Shingles,
    *,
    similarity: float,
    progress: Progress | None = None,
) -> np.ndarray:
    """The place in the index of one prompt that each is a near copy of, -1 where there is none, `(N,)` int32.

    Law: one is found wherever a prompt shares the key of any band with any that it is alike enough to.

    Args:
        bands: One at a time.
        shingles_of: Gives the shingles of some of the prompts asked about.
        index: The shingles of the index.
        similarity: Least Jaccard similarity.
        progress: Told of every key of every prompt asked about, when it was searched.
    """
    near = np.zeros(0, np.int32)
    for band, shelf in enumerate(bands):
        near = near if band else np.full(len(shelf.asked), -1, np.int32)
        for some in slices(len(near)):
            rows = some.start + np.flatnonzero((near[some] < 0) & (shelf.asked[some] != NO_KEY))
            crowds = [rows[:0]]
            for crowd, places in _crowds(shelf, rows):
                near[crowd] = near_copies_in(shingles_of(crowd), index, places, enough_for(similarity))
                crowds.append(crowd)
                if progress:
                    progress.add(len(crowd))
            # Taken out once for all crowds: one by one would cost as many passes over the rows as there are crowds.
            others = np.setdiff1d(rows, np.concatenate(crowds), assume_unique=True)
            _search(shelf, others, near, shingles_of, index, similarity)
            if progress:
                progress.add(some.stop - some.start - len(rows) + len(others))
    return near


def find_across(
    bands: Iterable[np.ndarray],
    sets: Shingles,
    asked: np.ndarray,
    others: np.ndarray,
    *,
    similarity: float,
    scratch: Scratch,
    progress: Progress | None = None,
) -> np.ndarray:
    """For each of some prompts one of the others that it is a near copy of, -1 where there is none, `(N,)` int32.

    Args:
        bands: Per band the keys of all prompts, of which the two are parts; one at a time.
        sets: The shingles of all prompts.
        asked: Numbers of the prompts asked about, `(N,)`.
        others: Numbers of those they must not be like.
        similarity: Least Jaccard similarity.
        scratch: Lets go of what was read of it after every band.
        progress: As of `find_near`.
    """

    def shelves() -> Iterator[Shelf]:
        for band in bands:
            scratch.let_go()
            keys, known = band[asked], band[others]
            rows = under(known, keys)
            rows = rows[np.argsort(known[rows], kind="stable")]
            yield Shelf(keys, known[rows], others[rows])

    return find_near(
        shelves(), lambda places: rows_of(sets, asked[places]), sets, similarity=similarity, progress=progress
    )


def _crowds(shelf: Shelf, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows under one key, some at a time, and the places under it, where these are many pairs."""
    start, stop = _under_key(shelf, rows)
    # A key that nobody has would begin where the next one does, and pass for it.
    is_there = start < stop
    rows, start, stop = rows[is_there], start[is_there], stop[is_there]
    order = np.argsort(start, kind="stable")
    first = np.flatnonzero(np.diff(start[order], prepend=-1))
    count = np.diff(first, append=len(order))
    for one in np.flatnonzero(count * (stop - start)[order[first]] >= PAIRS_OF_A_CROWD):
        low, high = start[order[first[one]]], stop[order[first[one]]]
        for some in slices(count[one], ASKED_AT_ONCE):
            yield rows[order[first[one] :][some]], shelf.places[low:high]


def _under_key(shelf: Shelf, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where on the shelf the keys of some rows begin and end."""
    keys = shelf.asked[rows]
    return np.searchsorted(shelf.keys, keys), np.searchsorted(shelf.keys, keys, "right")


def _search(
    shelf: Shelf,
    rows: np.ndarray,
    near: np.ndarray,
    shingles_of: Callable[[np.ndarray], Shingles],
    index: Shingles,
    similarity: float,
) -> None:
    """Look among all that share the keys of some rows, and enter for each row the most alike that was measured."""
    start, stop = _under_key(shelf, rows)
    # Few at first: most copies are found at once, and of who is found no more is asked. Then all the others.
    depth = 1
    while (is_left := start < stop).any():
        rows, start, stop = rows[is_left], start[is_left], stop[is_left]
        for at in range(0, len(rows), CANDIDATES_AT_ONCE // depth):
            some = slice(at, at + CANDIDATES_AT_ONCE // depth)
            count = np.minimum(depth, stop[some] - start[some])
            asked = np.repeat(np.arange(len(count)), count)
            place = shelf.places[np.arange(len(asked)) - np.repeat(np.cumsum(count) - count - start[some], count)]
            sets, edges = shingles_of(rows[some]), np.stack([asked, place], axis=1)
            edges = edges[likeness_bound(sets, index, edges) >= similarity]
            asked, place = edges.T
            alike = jaccard_between(sets, index, edges)
            best = np.argsort(alike, kind="stable")
            best = best[alike[best] >= similarity]
            near[rows[some][asked[best]]] = place[best]  # the last write, so the most alike, counts
        start = start + depth
        stop = np.where(near[rows] < 0, stop, start)
        depth = min(2 * depth, CANDIDATES_AT_ONCE)


def sketched(prompts: pa.ListArray) -> tuple[Shingles, np.ndarray]:
    """The shingles of each prompt's dialogue and its band keys, `(bands, N)`."""
    sets = shingle(render(map_contents(prompts, normalise_once_each), roles=DIALOGUE, with_roles=False))
    return sets, _keys(sets)


def _keys(sets: Shingles) -> np.ndarray:
    return band_keys(signatures(sets, count=PROMPT_HASHES), bands=PROMPT_BANDS)
