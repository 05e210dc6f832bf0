"""Near duplicates: LSH proposes pairs of rows, true Jaccard similarity decides, the best row of a neighbourhood stays.

Shapes: N rows, E edges. An edge is a pair of row numbers; edge arrays are `(E, 2)` int64.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from dpo_pipeline.preferences.shingles import Shingles
from dpo_pipeline.preferences.spill import Scratch, slices

WINDOW = 8
"""Predecessors in a bucket each row is compared with, besides the bucket's first row; keeps hostile buckets linear."""

EDGES_AT_ONCE = 20_000
MOST_PENDING = 2_000_000
"""Links held before they are put aside."""
ROWS_AT_ONCE = 1 << 20
"""Rows whose keys are sorted together, about."""
ROWS_PER_PIECE = 1 << 18
"""Lower rows of the edges that are handed out together."""


def propose(
    bands: Iterable[np.ndarray],
    order: np.ndarray,
    count: int,
    scratch: Scratch,
    *,
    since: int = 0,
    early: int = 0,
) -> Iterator[np.ndarray]:
    """The edges between rows that share a band key, `(E, 2)` int64, each once, sorted, the lower row first.

    A row is linked to the first row of its bucket and to its `WINDOW` nearest predecessors in the order. Since links
    only ever point back, appending rows to it never changes the edges among the earlier ones.

    Args:
        bands: Per band the rows' keys, `(N,)` uint32; read one at a time, so they need not all be in memory.
        order: The rows from first to last; some may be left out.
        count: N.
        scratch: Where links go that are too many for memory.
        early: Among so many of the first rows of a bucket, and one more, all pairs are proposed.
        since: Place in the order from which rows are new: only edges are asked for that lead back from one of them.

    Returns:
        The edges in pieces, one for every `ROWS_PER_PIECE` rows; all edges of a lower row are in one piece.
    """
    step = ROWS_PER_PIECE
    aside = [scratch.rows(np.dtype(np.uint64)) for _ in range(0, count, step)]
    pending: list[np.ndarray] = []

    def put_aside() -> None:
        some = distinct(np.concatenate([np.zeros(0, np.uint64), *pending]))
        cuts = np.searchsorted(some, np.arange(0, count + step, step, dtype=np.uint64) << np.uint64(32))
        for file, start, end in zip(aside, cuts, cuts[1:], strict=False):
            file.append(some[start:end])
        pending.clear()

    for links in _links_back(bands, order, count, since, early, scratch):
        pending.append(links)
        if sum(map(len, pending)) > MOST_PENDING:
            put_aside()
    put_aside()
    for file in aside:
        found = distinct(file.read(0, len(file)))
        yield np.stack([found >> np.uint64(32), found & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)


def _links_back(
    bands: Iterable[np.ndarray], order: np.ndarray, count: int, since: int, early: int, scratch: Scratch
) -> Iterator[np.ndarray]:
    """The links of all bands, each packed as lower row << 32 | higher row."""
    place = scratch.full(count if since else 0, -1, np.int32)
    for some in slices(len(order) if since else 0):
        place[order[some]] = np.arange(some.start, some.stop, dtype=np.int32)
    ordered = scratch.empty(0 if since else len(order), np.uint32)
    for keys in bands:
        scratch.let_go()
        some = order
        if since:
            # Whole buckets, but only those that hold a new row: a small part of them all.
            rows = under(keys, keys[order[since:]])
            rows = rows[place[rows] >= 0]
            some = rows[np.argsort(place[rows])]
        for earlier, later in _links(np.take(keys, some, out=None if since else ordered), some, early):
            if since:
                is_new = place[later] >= since
                earlier, later = earlier[is_new], later[is_new]  # noqa: PLW2901
            ends = earlier.astype(np.uint64), later.astype(np.uint64)
            yield (np.minimum(*ends) << np.uint64(32)) | np.maximum(*ends)


def under(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The rows under some of the keys, which are hashes, ascending; a table of their upper bits passes most by."""
    shift = np.uint32(32 - min(24, max(20, len(wanted).bit_length() + 2)))
    is_wanted = np.zeros(1 << (32 - int(shift)), bool)
    is_wanted[wanted >> shift] = True
    rows = np.flatnonzero(np.take(is_wanted, keys >> shift))
    return rows[are_among(keys[rows], wanted)]


def are_among(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether each key is one of those wanted, `(N,)` bool; `np.isin` hashes millions of keys at many times the cost.

    >>> are_among(np.array([4, 1], np.uint32), np.array([3, 1], np.uint32)).tolist()
    [False, True]
    """
    if not (len(keys) and len(wanted)):
        return np.zeros(len(keys), bool)
    known = np.sort(wanted)
    return known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] == keys


def _links(keys: np.ndarray, order: np.ndarray, early: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The earlier and the later row of the links within the buckets of one band; keys stand in the order."""
    parts = -(-len(keys) // ROWS_AT_ONCE)
    part_of = np.zeros(len(keys), np.uint8)
    for some in slices(len(keys) if parts > 1 else 0):
        # Keys are hashes: ranges of them hold about equally many.
        part_of[some] = keys[some].astype(np.uint64) * np.uint64(parts) >> np.uint64(32)
    for part in range(parts):
        some = np.flatnonzero(part_of == part)
        packed = np.sort((keys[some].astype(np.uint64) << np.uint64(32)) | some.astype(np.uint64))
        packed = packed[np.searchsorted(packed, np.uint64(1 << 32)) :]  # key 0 is NO_KEY
        for earlier, later in _links_of_buckets(packed >> np.uint64(32), packed & np.uint64(0xFFFFFFFF), early):
            yield order[earlier], order[later]


def _links_of_buckets(key: np.ndarray, place: np.ndarray, early: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Earlier and later place of every link; keys are sorted, places ascend within a key."""
    is_repeat = np.zeros(len(key), bool)
    is_repeat[1:] = key[1:] == key[:-1]
    later = np.flatnonzero(is_repeat)
    starts = np.flatnonzero(~is_repeat)
    first = starts[np.searchsorted(starts, later, "right") - 1]
    yield place[first], place[later]
    position = later - first
    for step in range(1, max(WINDOW, early) + 1):
        is_linked = position >= step if step <= WINDOW else (position >= step) & (position <= early)
        later, position = later[is_linked], position[is_linked]
        if len(later) == 0:
            break
        yield place[later - step], place[later]


def distinct(values: np.ndarray) -> np.ndarray:
    """The distinct values, sorted. By sorting: numpy 2.4's hashing `unique` measured 50 times slower on these."""
    values = np.sort(values)
    is_new = np.ones(len(values), bool)
    is_new[1:] = values[1:] != values[:-1]
    return values[is_new]


def overlaps(left: Shingles, right: Shingles, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of intersection and union of the sets at both ends of each edge, two `(E,)` int64.

    >>> sets = Shingles(np.array([1, 2, 3, 2, 3, 4], np.uint32), np.array([0, 3, 6]))
    >>> overlaps(sets, sets, np.array([[0, 1]]))
    (array([2]), array([4]))
    """
    shared = np.zeros(len(edges), np.int64)
    either = np.zeros(len(edges), np.int64)
    for start in range(0, len(edges), EDGES_AT_ONCE):
        some = edges[start : start + EDGES_AT_ONCE]
        keys_left, keys_right = _tagged(left, some[:, 0]), _tagged(right, some[:, 1])
        both = np.concatenate([distinct(keys_left), distinct(keys_right)])
        both.sort()
        is_repeat = np.zeros(len(both), bool)
        is_repeat[1:] = both[1:] == both[:-1]
        edge = (both >> np.uint64(32)).astype(np.int64)
        shared[start : start + len(some)] = np.bincount(edge[is_repeat], minlength=len(some))
        either[start : start + len(some)] = np.bincount(edge[~is_repeat], minlength=len(some))
    return shared, either


def jaccard(sets: Shingles, edges: np.ndarray) -> np.ndarray:
    """The true Jaccard similarity along each edge, `(E,)` float64; two empty sets are alike."""
    return jaccard_between(sets, sets, edges)


def jaccard_between(left: Shingles, right: Shingles, edges: np.ndarray) -> np.ndarray:
    """The same where an edge leads from one of the left sets to one of the right ones."""
    return ratio(*overlaps(left, right, edges))


def ratio(shared: np.ndarray, either: np.ndarray) -> np.ndarray:
    """Jaccard similarities from sizes of intersections and unions; two empty sets are alike."""
    return np.where(either == 0, 1.0, shared / np.maximum(either, 1))


def components(count: int, edges: np.ndarray) -> np.ndarray:
    """The smallest row number each row is connected with, `(N,)`.

    >>> components(4, np.array([[3, 1], [2, 3]])).tolist()
    [0, 1, 1, 1]
    """
    label = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
    connect(label, lambda: [edges])
    return label


def connect(label: np.ndarray, edges: Callable[[], Iterable[np.ndarray]]) -> None:
    """Lower every row's label to the smallest of the rows it is connected with; to begin with it is the row's number.

    Args:
        label: The labels, `(N,)`, changed in place.
        edges: Gives the edges in pieces, the same each time it is called.
    """
    is_done = False
    while not is_done:
        is_done = True
        for some in edges():
            ends = label[some]
            low, high = ends.min(axis=1), ends.max(axis=1)
            if (differs := low != high).any():
                np.minimum.at(label, high[differs], low[differs])
                is_done = False
        _follow(label)


def _follow(label: np.ndarray) -> None:
    """Replace every label by its own label, until it is that of a row labelled with its own number."""
    is_done = False
    while not is_done:
        is_done = True
        for some in slices(len(label)):
            further = label[label[some]]
            if (further != label[some]).any():
                label[some] = further
                is_done = False


def elect(edges: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Per row the row that stays in its stead, or -1 where it stays itself, `(N,)` int64.

    Greedy from the best rank down: a row stays unless a better neighbour stays. So every loser is itself a neighbour
    of its winner, which walking along chains of neighbours would not give.

    Args:
        edges: Rows that are near duplicates of one another.
        rank: Per row its place in the order of preference, 0 the best; no two alike.
    """
    winner = np.full(len(rank), -1, np.int64)
    is_open = np.zeros(len(rank), bool)
    is_open[edges] = True
    both = np.concatenate([edges, edges[:, ::-1]]) if len(edges) else edges
    while len(both):
        best = np.full(len(rank), len(rank), np.int64)
        np.minimum.at(best, both[:, 0], rank[both[:, 1]])
        stays = is_open & (rank < best)
        losing = both[stays[both[:, 1]] & ~stays[both[:, 0]]]
        losing = losing[np.argsort(-rank[losing[:, 1]], kind="stable")]
        winner[losing[:, 0]] = losing[:, 1]  # the last write, so the best ranked of several winners, counts
        is_open &= ~stays
        is_open[losing[:, 0]] = False
        both = both[is_open[both].all(axis=1)]
    return winner


def _tagged(sets: Shingles, rows: np.ndarray) -> np.ndarray:
    """The sets of the given rows end to end, each value tagged with its place in `rows`, `(S',)` uint64."""
    starts, sizes = sets.bounds[rows], sets.bounds[rows + 1] - sets.bounds[rows]
    tag = np.repeat(np.arange(len(rows), dtype=np.uint64), sizes)
    ends = np.cumsum(sizes)
    place = np.arange(len(tag)) - np.repeat(ends - sizes, sizes) + np.repeat(starts, sizes)
    return (tag << np.uint64(32)) | sets.values[place].astype(np.uint64)
