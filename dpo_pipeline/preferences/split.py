"""Train or held-out, by clusters of near-duplicate prompts, decided once and never taken back.

The ledger of splits is not kept anywhere: it is replayed from the drops in their order of arrival, and what is decided
at one drop depends on no later one. Measured over ten drops, a third of their prompts edits of earlier ones
(`tests/benchmarks/bench_split.py`): of the held-out rows 56 % have a near copy among the trained ones when rows are
drawn at random per drop, 48 % by the hash of the prompt, 47 % by that of the normalised prompt, none here. Edits too
far from their origin to count as near copies are no concern of this split: 2.8 % of the held-out rows have one.

In crowds of prompts made from one template not all pairs are compared for edges; there each newcomer is compared with
the whole other side, and set apart where it is like one (`docs/decisions/0009`).

Shapes: M prompts, E edges.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from dpo_pipeline.preferences.near_duplicates import connect
from dpo_pipeline.preferences.spill import Scratch, slices, stable_order

TRAIN, HELD_OUT, QUARANTINED = 0, 1, 2
SPLIT_NAMES = ("train", "held_out", "quarantined")
NONE = np.iinfo(np.int64).max
"""Stands for no cluster; greater than all."""
CROSSING = np.dtype([("drop", "<i2"), ("new", "<i4"), ("known", "<i4")])


class Splits(NamedTuple):
    """Per prompt its side (`TRAIN`, `HELD_OUT` or `QUARANTINED`, int8) and the prompt that founded its cluster.

    `is_apart`: whether it is quarantined by itself, though its cluster stands on a side.
    """

    side: np.ndarray
    cluster: np.ndarray
    is_apart: np.ndarray


class Crowd(Protocol):
    """Prompts among which near copies may stand that no edge leads between."""

    @property
    def prompts(self) -> np.ndarray:
        """Their numbers, ascending, `(R,)`."""
        ...

    def near(self, asked: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether each of some is a near copy of one of the others, `(N,)` bool; both are places in `prompts`."""
        ...


class Taught(Protocol):
    """Demonstrations, asked about drop by drop."""

    @property
    def drops(self) -> int:
        """How many drops there are, also such as bring no new prompt of a pair."""
        ...

    def like(self, drop: int) -> np.ndarray:
        """The prompts that first came with a drop and are like what earlier drops may have taught."""
        ...

    def learn(self, drop: int, side: np.ndarray) -> None:
        """Take in what a drop may teach, now that its prompts have their sides, `(M,)`."""
        ...


class Searched(NamedTuple):
    """What an earlier build found in crowds: of so many of the first drops the prompts it set apart, ascending."""

    drops: int
    apart: np.ndarray


NOTHING_SEARCHED = Searched(0, np.zeros(0, np.int64))


def split_prompts(  # noqa: PLR0913 - each is another source of what decides
    draws: np.ndarray,
    first_drop: np.ndarray,
    edges: np.ndarray,
    *,
    share: float,
    pinned: np.ndarray | None = None,
    crowd: Crowd | None = None,
    searched: Searched | None = None,
    taught: Taught | None = None,
    scratch: Scratch | None = None,
) -> Splits:
    """Replay the drops: each new prompt joins what it touches, or founds a cluster whose side its hash decides.

    A new cluster with a prompt like a demonstration that an earlier drop may have taught is trained on instead; in one
    that is held out already, whoever is like it is set apart. Then new prompts in a crowd are compared with all of the
    other side there, and what is a near copy is set apart.

    Laws: no edge, and no likeness in the crowd, leads from train to held-out; appending drops changes no earlier
    prompt's side or cluster; the order of prompts and edges does not matter; pinning prompts moves none from held-out
    to train; nothing held out is like a demonstration of an earlier drop that was not kept out of training, and
    demonstrations move none to held-out.

    Args:
        draws: What each prompt drew (`draws_of`), the prompts sorted by identity, `(M,)` uint64.
        first_drop: The drop each prompt first came with, by order of arrival, `(M,)`.
        edges: Prompts that must stand on the same side, `(E, 2)`.
        share: Share of new clusters held out.
        pinned: Prompts that are like the golden set's, `(M,)` bool: what is connected with one is never trained on.
        crowd: Prompts to be searched; those of drops that were searched before need not be among them.
        searched: What an earlier build found in the first drops.
        taught: The demonstrations of all drops.
        scratch: Where arrays of all prompts and edges go; absent: into memory.
    """
    count, scratch, searched = len(draws), scratch or Scratch(None), searched or NOTHING_SEARCHED
    # The smallest prompt of its own drop that each is connected with, which founds a cluster or joins an older one.
    founder = scratch.empty(count, np.int32)
    for some in slices(count):
        founder[some] = np.arange(some.start, some.stop)
    connect(founder, lambda: _within_drops(first_drop, edges))
    crossing = _Crossing(first_drop, edges, scratch)
    side, cluster = scratch.full(count, -1, np.int8), scratch.empty(count, np.int32)
    is_apart = scratch.empty(count, bool)
    order, end = stable_order(lambda some: first_drop[some].astype(np.int64), count, scratch), 0
    sizes = _sizes(first_drop)
    sizes += [0] * ((taught.drops if taught else 0) - len(sizes))
    for drop, size in enumerate(sizes):
        start, end = end, end + size
        parts = [order[start + some.start : start + some.stop] for some in slices(size)]
        joins = _joins(founder, side, cluster, crossing.of(drop))
        if pinned is not None:
            like_golden = (founder[rows[pinned[rows]]] for rows in parts)
            joins = joins.pinning(np.unique(np.concatenate([np.zeros(0, np.int32), *like_golden])))
        like = taught.like(drop) if taught else np.zeros(0, np.int64)
        joins = joins.teaching(np.unique(founder[like]))
        for rows in parts:
            own = founder[rows]
            decided = np.where(_is_held_out(draws[own], share), HELD_OUT, TRAIN).astype(np.int8)
            side[rows], cluster[rows] = joins.applied(own, decided)
        told = like[side[like] == HELD_OUT]
        side[told], is_apart[told] = QUARANTINED, True
        if drop < searched.drops:
            apart = searched.apart[first_drop[searched.apart] == drop]
        else:
            apart = _leaking(crowd, side, first_drop, drop) if crowd else np.zeros(0, np.int64)
        side[apart], is_apart[apart] = QUARANTINED, True
        if taught:
            taught.learn(drop, side)
    return Splits(side, cluster, is_apart)


def _leaking(crowd: Crowd, side: np.ndarray, first_drop: np.ndarray, drop: int) -> np.ndarray:
    """The prompts of a drop that are in the crowd near copies of one on the other side; they alone are set apart.

    Not their clusters, nor are these joined: in a crowd a single bridge would cost all of them. A held-out newcomer
    gives way to what is trained on since earlier drops, then whoever is to be trained gives way to what is held out.
    So whether one is set apart rests on whether a near copy is there, never on which was found first, and more held
    out (a golden set) never trains anybody.
    """
    drops, sides = first_drop[crowd.prompts], side[crowd.prompts]
    found = []
    for mine, theirs, others in ((HELD_OUT, TRAIN, drops < drop), (TRAIN, HELD_OUT, drops <= drop)):
        asked = np.flatnonzero((drops == drop) & (sides == mine))
        leaks = asked[crowd.near(asked, np.flatnonzero(others & (sides == theirs)))]
        sides[leaks] = QUARANTINED
        found.append(crowd.prompts[leaks])
    return np.concatenate(found)


class _Joins(NamedTuple):
    """Founders of a drop that join older clusters, ascending; the smallest on either side that each touches, if any."""

    founder: np.ndarray
    train: np.ndarray
    held_out: np.ndarray

    def pinning(self, founders: np.ndarray) -> "_Joins":
        """The same, with some founders, ascending, held out at least under their own names."""
        every, at = self._with(founders)
        every.held_out[at] = np.where(every.held_out[at] == NONE, founders, every.held_out[at])
        return every

    def teaching(self, founders: np.ndarray) -> "_Joins":
        """The same, with some founders, ascending, trained on under their own names where nothing else decides."""
        every, at = self._with(founders)
        is_free = (every.held_out[at] == NONE) & (every.train[at] == NONE)
        every.train[at] = np.where(is_free, founders, every.train[at])
        return every

    def _with(self, founders: np.ndarray) -> tuple["_Joins", np.ndarray]:
        """These founders and others, ascending, that may touch nothing; and the places of the others."""
        every = np.union1d(self.founder, founders)
        train, held_out = (np.full(len(every), NONE) for _ in range(2))
        at = np.searchsorted(every, self.founder)
        train[at], held_out[at] = self.train, self.held_out
        return _Joins(every, train, held_out), np.searchsorted(every, founders)

    def applied(self, founders: np.ndarray, decided: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Side and cluster of prompts with the given founders, which decided so for themselves."""
        at = np.minimum(np.searchsorted(self.founder, founders), max(len(self.founder) - 1, 0))
        joins = self.founder[at] == founders if len(self.founder) else np.zeros(len(founders), bool)
        train, held_out = (np.full(len(founders), NONE) for _ in range(2))
        train[joins], held_out[joins] = self.train[at[joins]], self.held_out[at[joins]]
        is_train, is_held_out = train != NONE, held_out != NONE
        side = np.select([is_train & is_held_out, is_held_out, is_train], [QUARANTINED, HELD_OUT, TRAIN], decided)
        home = np.select([is_train & is_held_out, is_held_out, is_train], [founders, held_out, train], founders)
        return side.astype(np.int8), home.astype(np.int32)


class _Crossing:
    """The edges between a prompt and one of an earlier drop, by the drop of the later."""

    def __init__(self, first_drop: np.ndarray, edges: np.ndarray, scratch: Scratch) -> None:
        file = scratch.rows(CROSSING)
        for some in slices(len(edges)):
            drops = first_drop[edges[some]]
            cross = np.flatnonzero(drops[:, 0] != drops[:, 1])
            later = drops[cross].argmax(axis=1)
            rows = np.zeros(len(cross), CROSSING)
            rows["drop"] = drops[cross].max(axis=1)
            rows["new"], rows["known"] = edges[some][cross, later], edges[some][cross, 1 - later]
            file.append(rows)
        self._rows = file.mapped()
        drop = self._rows["drop"]
        self._order = stable_order(lambda some: drop[some].astype(np.int64), len(drop), scratch)
        self._ends = np.cumsum([0, *_sizes(drop)])

    def of(self, drop: int) -> tuple[np.ndarray, np.ndarray]:
        """The ends of a drop's edges: its own prompts, and earlier ones."""
        start, end = (int(self._ends[min(at, len(self._ends) - 1)]) for at in (drop, drop + 1))
        rows = self._rows[self._order[start:end]]
        return rows["new"], rows["known"]


def _within_drops(first_drop: np.ndarray, edges: np.ndarray) -> Iterator[np.ndarray]:
    for some in slices(len(edges)):
        drops = first_drop[edges[some]]
        yield edges[some][drops[:, 0] == drops[:, 1]]


def _joins(
    founder: np.ndarray, side: np.ndarray, cluster: np.ndarray, crossing: tuple[np.ndarray, np.ndarray]
) -> _Joins:
    """Which older clusters the founders of a drop touch."""
    new, known = crossing
    founders, at = np.unique(founder[new], return_inverse=True)
    train, held_out = (np.full(len(founders), NONE) for _ in range(2))
    for touched, of in ((train, TRAIN), (held_out, HELD_OUT)):
        mine = side[known] == of
        np.minimum.at(touched, at[mine], cluster[known[mine]])
    return _Joins(founders, train, held_out)


def _sizes(drops: np.ndarray) -> list[int]:
    """How many there are of each drop."""
    sizes = np.zeros(0, np.int64)
    for some in slices(len(drops)):
        more = np.bincount(drops[some], minlength=len(sizes))
        more[: len(sizes)] += sizes
        sizes = more
    return sizes.tolist()


def draws_of(prompts: np.ndarray, salt: str) -> np.ndarray:
    """A salted hash of each prompt's identity, `(M,)` uint64: below the share of 2^64, a cluster it founds is held out.

    blake2b, a call per prompt: it is paid once, by the sketch of the drop that brings the prompt.

    Args:
        prompts: Identities, `(M, 2)` uint64.
        salt: Makes the draws of one setting independent of those of another.
    """
    key = hashlib.blake2b(salt.encode()).digest()
    blob, blake = prompts.astype(">u8").tobytes(), hashlib.blake2b
    hashes = [blake(blob[at : at + 16], digest_size=8, key=key).digest() for at in range(0, len(blob), 16)]
    return np.frombuffer(b"".join(hashes), ">u8").astype(np.uint64)


def _is_held_out(draws: np.ndarray, share: float) -> np.ndarray:
    limit = int(share * 2**64)
    return draws <= np.uint64(limit - 1) if limit else np.zeros(len(draws), bool)
