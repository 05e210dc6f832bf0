"""An upper bound of how alike two sets are, from a few bits of each: most pairs need not be measured then.

The filter of Sandes, Teodoro and Melo ("Bitmap filter: speeding up exact set similarity joins with bitwise operations",
2020): each element sets one bit of its set's bitmap. A bit that differs between two has an element that only one of
them has, another for every bit; so the bitmaps differ in at most as many bits as the sets do in elements.
"""

import numpy as np

from dpo_pipeline.preferences.near_duplicates import ratio
from dpo_pipeline.preferences.shingles import Shingles, rows_of

WORDS = 8
"""64 bits each: 512, so that prompts of a hundred shingles leave most of them free."""


def likeness_bound(left: Shingles, right: Shingles, edges: np.ndarray) -> np.ndarray:
    """No less than the Jaccard similarity along each edge from one of the left sets to a right one, `(E,)` float64.

    Law: never below what `near_duplicates.jaccard_between` gives, to the last bit: both are one rounded quotient. What
    repeats within a set makes it seem larger, which raises the bound.
    """
    (bits, size, at), (others, sizes, to) = (_used(sets, edges[:, end]) for end, sets in enumerate((left, right)))
    differing = np.zeros(len(edges), np.int64)
    for own, other in zip(bits, others, strict=True):
        differing += np.bitwise_count(own[at] ^ other[to])
    both = size[at] + sizes[to]
    return ratio(both - differing, both + differing)


def _used(sets: Shingles, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bitmaps `(WORDS, U)` and sizes `(U,)` of the sets that the rows name, and where each row's set is among them."""
    some, place = np.unique(rows, return_inverse=True)
    used = rows_of(sets, some)
    size = np.diff(used.bounds)
    bits = np.zeros((WORDS, len(some)), np.uint64)
    place_of = np.repeat(np.arange(len(some)), size)
    bit = np.uint64(1) << (used.values & np.uint32(63)).astype(np.uint64)
    np.bitwise_or.at(bits, ((used.values >> np.uint32(6)) % WORDS, place_of), bit)
    return bits, size, place
