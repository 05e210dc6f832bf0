"""Train or held-out, by clusters of near-duplicate prompts, decided once and never taken back.

The ledger of splits is not kept anywhere: it is replayed from the drops in their order of arrival, and what is decided
at one drop depends on no later one. Measured over ten drops, a third of their prompts edits of earlier ones
(`tests/benchmarks/bench_split.py`): of the held-out rows 56 % have a near copy among the trained ones when rows are
drawn at random per drop, 48 % by the hash of the prompt, 47 % by that of the normalised prompt, none here. Edits too
far from their origin to count as near copies are no concern of this split: 2.8 % of the held-out rows have one.

Shapes: M prompts, E edges.
"""

import hashlib
from typing import NamedTuple

import numpy as np

from dpo_pipeline.preferences.near_duplicates import components

TRAIN, HELD_OUT, QUARANTINED = 0, 1, 2
SPLIT_NAMES = ("train", "held_out", "quarantined")


class Splits(NamedTuple):
    """Per prompt its side (`TRAIN`, `HELD_OUT` or `QUARANTINED`, int8) and the prompt that founded its cluster."""

    side: np.ndarray
    cluster: np.ndarray


def split_prompts(
    draws: np.ndarray,
    first_drop: np.ndarray,
    edges: np.ndarray,
    *,
    share: float,
    pinned: np.ndarray | None = None,
) -> Splits:
    """Replay the drops: each new prompt joins what it touches, or founds a cluster whose side its hash decides.

    Laws: appending drops changes no earlier prompt's side or cluster; the order of prompts and edges does not matter;
    pinning prompts moves none from held-out to train.

    Args:
        draws: What each prompt drew (`draws_of`), the prompts sorted by identity, `(M,)` uint64.
        first_drop: The drop each prompt first came with, by order of arrival, `(M,)`.
        edges: Prompts that must stand on the same side, `(E, 2)`.
        share: Share of new clusters held out.
        pinned: Prompts that are like the golden set's, `(M,)` bool: what is connected with one is never trained on.
    """
    count = len(draws)
    side, cluster = np.full(count, -1, np.int8), np.arange(count, dtype=np.int32)
    arrival = first_drop[edges].max(axis=1) if len(edges) else np.zeros(0, np.int64)
    for drop in np.unique(first_drop):
        new = np.flatnonzero(first_drop == drop)
        own = edges[arrival == drop]
        is_new = first_drop[own] == drop
        # From here on prompts of this drop go by their places in `new`.
        label = components(len(new), np.searchsorted(new, own[is_new.all(axis=1)]))
        crossing, from_new = own[is_new.sum(axis=1) == 1], is_new[is_new.sum(axis=1) == 1]
        component = label[np.searchsorted(new, crossing[from_new])]
        known = crossing[~from_new]
        for_train, for_held_out = (
            _smallest(len(new), component, known, side, cluster, of=one) for one in (TRAIN, HELD_OUT)
        )
        if pinned is not None:
            at = label[np.flatnonzero(pinned[new])]
            for_held_out[at] = np.where(for_held_out[at] >= 0, for_held_out[at], new[at])
        is_held_out, is_train = for_held_out >= 0, for_train >= 0
        decided = np.where(is_held_out, HELD_OUT, TRAIN).astype(np.int8)
        home = np.where(is_held_out, for_held_out, np.where(is_train, for_train, new))
        fresh = np.flatnonzero((label == np.arange(len(new))) & ~is_held_out & ~is_train)
        decided[fresh] = np.where(_is_held_out(draws[new[fresh]], share), HELD_OUT, TRAIN)
        is_bridge = is_held_out & is_train
        decided[is_bridge], home[is_bridge] = QUARANTINED, new[is_bridge]
        side[new], cluster[new] = decided[label], home[label]
    return Splits(side, cluster)


def _smallest(
    count: int, component: np.ndarray, known: np.ndarray, side: np.ndarray, cluster: np.ndarray, *, of: int
) -> np.ndarray:
    """Per component of new prompts the smallest cluster on one side that it touches, -1 for none, `(count,)`."""
    mine = side[known] == of
    smallest = np.full(count, len(side), np.int32)
    np.minimum.at(smallest, component[mine], cluster[known[mine]])
    return np.where(smallest == len(side), -1, smallest)


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
