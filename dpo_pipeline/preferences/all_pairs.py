"""Near copies between two groups of sets, all pairs at once: where many share a key, pair by pair takes too long.

Prompts made from one template share its shingles and differ in rare ones. So the size of an intersection is counted in
two parts: shingles that many of both groups have become bits of a few words, and 64 of them are counted by one
instruction (the bitmaps of Sandes, Teodoro and Melo, "Bitmap filter: speeding up exact set similarity joins with
bitwise operations", 2020, here with a bit of its own for each shingle, so that they count instead of bounding); the
others are multiplied as sparse matrices, which costs as much as there are coincidences. J(A, B) >= t asks for
|A n B| >= t / (1 + t) (|A| + |B|) shared shingles (Xiao, Wang, Lin and Yu, "Efficient similarity joins for near
duplicate detection", 2008), and no pair shares more frequent ones than either has. Prefixes are not filtered as there
and by Bayardo, Ma and Srikant ("Scaling up all pairs similarity search", 2007): at t = 0.5 they reach into the template
(docs/decisions/0009).

Shapes: A sets asked about, B others, W words of bits. Sets are `Shingles`; what repeats in one counts once.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy import sparse

from dpo_pipeline.preferences.near_duplicates import distinct, ratio
from dpo_pipeline.preferences.shingles import Shingles, rows_of

ASKED_AT_ONCE, OTHERS_AT_ONCE = 2048, 4096
"""Sets that are read together."""
FIRST_OTHERS = 64
"""The first of the others: most copies are found at once, and of who is found no more is asked."""
SHINGLES_AT_ONCE = 1 << 20
"""Shingles that are worked on together: fewer sets, where they are large."""
PAIRS_AT_ONCE = 1 << 18
"""Pairs that are counted together: 2 MB of bits, the size of a second-level cache."""
COINCIDENCES_PER_BIT = 450
"""So many pairs are compared by one more bit (1.1 ns for 64 of them) while one coincidence is added up (8 ns)."""


class Block(NamedTuple):
    """Some sets: each distinct shingle of each, sorted, with the place of its set, both `(S,)`; sizes of the sets."""

    value: np.ndarray
    place: np.ndarray
    size: np.ndarray


def near_copies_in(
    asked: Shingles, others: Shingles, places: np.ndarray, enough: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """For each set asked about one of the others that it is a near copy of, -1 where there is none, `(A,)` int64.

    Law: the same as measuring every pair, whatever the sizes of the blocks.

    Args:
        asked: The sets asked about, not empty.
        others: Where the others are.
        places: Their places there, `(B,)`.
        enough: How many shared shingles make near copies (`enough_for`).
    """
    near = np.full(len(asked), -1, np.int64)
    for mine in pieces(np.diff(asked.bounds), ASKED_AT_ONCE):
        left = np.arange(mine.start, mine.stop)
        block = None
        for theirs in pieces(others.bounds[places + 1] - others.bounds[places], OTHERS_AT_ONCE, first=FIRST_OTHERS):
            block = block or block_of(rows_of(asked, left))
            found = _best(block, block_of(rows_of(others, places[theirs])), enough)
            if (is_found := found >= 0).any():
                near[left[is_found]] = places[theirs][found[is_found]]
                left, block = left[~is_found], None
            if not len(left):
                break
    return near


def enough_for(similarity: float) -> Callable[[np.ndarray], np.ndarray]:
    """By the sum of two sets' sizes, how many shingles they share at least, if they are so similar.

    >>> enough_for(0.5)(np.array([4, 5, 6])).tolist()
    [2, 2, 2]
    """

    def enough(sizes: np.ndarray) -> np.ndarray:
        # One below the bound, then up to it: whether a ratio suffices is asked of the quotient itself, as elsewhere.
        shared = np.maximum(np.floor(sizes * (similarity / (1 + similarity))).astype(np.int64) - 1, 0)
        for _ in range(3):
            shared += ratio(shared, sizes - shared) < similarity
        return shared

    return enough


def block_of(sets: Shingles) -> Block:
    """The sets as they are compared."""
    rows = np.repeat(np.arange(len(sets), dtype=np.uint64), np.diff(sets.bounds))
    packed = distinct((sets.values.astype(np.uint64) << np.uint64(32)) | rows)
    place = (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return Block(packed >> np.uint64(32), place, np.bincount(place, minlength=len(sets)))


def pieces(sizes: np.ndarray, most: int, *, first: int | None = None) -> Iterator[slice]:
    """Places of sets of the given sizes, so many at a time or fewer, where they hold too many shingles together."""
    ends, start = np.cumsum(sizes), 0
    count = most if first is None else min(first, most)
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, before + SHINGLES_AT_ONCE, "right"))
        stop = min(start + count, max(fitting, start + 1), len(sizes))
        yield slice(start, stop)
        start, count = stop, min(4 * count, most)


def _best(asked: Block, others: Block, enough: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The place of the most alike of the others, -1 where none is alike enough, `(A,)`."""
    bits, rare = _shared_shingles(asked, others)
    near, step = np.full(len(asked.size), -1, np.int64), max(1, PAIRS_AT_ONCE // len(others.size))
    for start in range(0, len(asked.size), step):
        size, own = asked.size[start : start + step], bits[0][:, start : start + step]
        found = [_by_bits(own, bits[1], size, others.size, enough)]
        if rare is not None:
            counted = (rare[0][start : start + step] @ rare[1]).tocoo()
            row, column = counted.coords
            shared = counted.data + np.bitwise_count(own[:, row] & bits[1][:, column]).sum(axis=0, dtype=np.int64)
            found.append((row, column, shared))
        row, column, shared = (np.concatenate(part) for part in zip(*found, strict=True))
        both = size[row] + others.size[column]
        is_near = shared >= enough(both)
        row, column, alike = row[is_near], column[is_near], (shared / np.maximum(both - shared, 1))[is_near]
        order = np.argsort(alike, kind="stable")
        near[start + row[order]] = column[order]  # the last write, so the most alike, counts
    return near


def _by_bits(
    own: np.ndarray, theirs: np.ndarray, size: np.ndarray, sizes: np.ndarray, enough: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs that may share enough by their bits alone: both places, and how many bits they share."""
    counts, sums = (np.bitwise_count(bits).sum(axis=0, dtype=np.int64) for bits in (own, theirs))
    rows = np.flatnonzero(counts >= enough(size + sizes.min()))
    if not len(rows):
        return rows, rows, rows
    least = enough(size[rows].min() + sizes)
    columns = np.flatnonzero(sums >= least)
    few = np.uint8 if 64 * len(own) < 256 else np.int64
    shared = np.zeros((len(rows), len(columns)), few)
    for mine, other in zip(own[:, rows], theirs[:, columns], strict=True):
        shared += np.bitwise_count(mine[:, None] & other)
    # What passed has bits enough, so `least` fits their type.
    row, column = np.nonzero(shared >= least[columns].astype(few))
    return rows[row], columns[column], shared[row, column].astype(np.int64)


def _shared_shingles(
    asked: Block, others: Block
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[sparse.csr_array, sparse.csr_array] | None]:
    """The shingles that both have: the frequent as bits, `(W, A)` and `(W, B)`, the rest as matrices to multiply."""
    own, own_start, own_count = np.unique(asked.value, return_index=True, return_counts=True)
    other, other_start, other_count = np.unique(others.value, return_index=True, return_counts=True)
    at = np.minimum(np.searchsorted(other, own), max(len(other) - 1, 0))
    mine = np.flatnonzero(other[at] == own) if len(other) else np.zeros(0, np.int64)
    at = at[mine]
    coincidences = own_count[mine] * other_count[at]
    by_frequency = np.argsort(-coincidences, kind="stable")
    mine, at, coincidences = mine[by_frequency], at[by_frequency], coincidences[by_frequency]
    is_frequent = coincidences * COINCIDENCES_PER_BIT > len(asked.size) * len(others.size)
    words = max(1, -(-int(np.count_nonzero(is_frequent)) // 64))  # the last one's free bits go to the next frequent
    bits, rare = [], []
    for block, start, count in (
        (asked, own_start[mine], own_count[mine]),
        (others, other_start[at], other_count[at]),
    ):
        bits.append(_bits(block, start[: 64 * words], count[: 64 * words], words))
        rare.append(_matrix(block, start[64 * words :], count[64 * words :]))
    is_left = len(mine) > 64 * words
    return (bits[0], bits[1]), (sparse.csr_array(rare[0].T), rare[1]) if is_left else None


def _bits(block: Block, start: np.ndarray, count: np.ndarray, words: int) -> np.ndarray:
    """A bit for each of some shingles, which stand at `start` and `count` times, `(W, sets)` uint64."""
    bits = np.zeros((words, len(block.size)), np.uint64)
    column = np.repeat(np.arange(len(start)), count)
    bit = np.uint64(1) << (column % 64).astype(np.uint64)
    np.add.at(bits, (column // 64, block.place[_ranges(start, count)]), bit)
    return bits


def _matrix(block: Block, start: np.ndarray, count: np.ndarray) -> sparse.csr_array:
    """A one where a set has a shingle, `(shingles, sets)`."""
    places, bounds = block.place[_ranges(start, count)], np.concatenate([[0], np.cumsum(count)])
    return sparse.csr_array((np.ones(len(places), np.int32), places, bounds), shape=(len(start), len(block.size)))


def _ranges(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.arange(count.sum()) + np.repeat(start - np.cumsum(count) + count, count)
