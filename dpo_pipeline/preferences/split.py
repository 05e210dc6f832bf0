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


def split_prompts(prompts: np.ndarray, first_drop: np.ndarray, edges: np.ndarray, *, share: float, salt: str) -> Splits:
    """Replay the drops: each new prompt joins what it touches, or founds a cluster whose side its hash decides.

    Laws: appending drops changes no earlier prompt's side or cluster; the order of prompts and edges does not matter.

    Args:
        prompts: Identities, sorted, `(M, 2)` uint64.
        first_drop: The drop each prompt first came with, by order of arrival, `(M,)`.
        edges: Prompts that must stand on the same side, `(E, 2)`.
        share: Share of new clusters held out.
        salt: Salt of the hash.
    """
    count = len(prompts)
    side = np.full(count, -1, np.int8)
    cluster = np.arange(count)
    arrival = first_drop[edges].max(axis=1) if len(edges) else np.zeros(0, np.int64)
    for drop in np.unique(first_drop):
        new = first_drop == drop
        own = edges[arrival == drop]
        inner = own[new[own].all(axis=1)]
        label = components(count, inner)
        touched = _touched(own, new, side, cluster, label)
        founders = np.flatnonzero(new & (label == np.arange(count)))
        for_train, for_held_out = touched[TRAIN][founders], touched[HELD_OUT][founders]
        fresh = (for_train < 0) & (for_held_out < 0)
        decided = np.where(for_held_out >= 0, HELD_OUT, TRAIN).astype(np.int8)
        decided[fresh] = np.where(_is_held_out(prompts[founders[fresh]], share, salt), HELD_OUT, TRAIN)
        decided[(for_train >= 0) & (for_held_out >= 0)] = QUARANTINED
        home = np.where(fresh, founders, np.where(for_held_out >= 0, for_held_out, for_train))
        home[decided == QUARANTINED] = founders[decided == QUARANTINED]
        place = np.full(count, -1)
        place[founders] = np.arange(len(founders))
        members = np.flatnonzero(new)
        side[members] = decided[place[label[members]]]
        cluster[members] = home[place[label[members]]]
    return Splits(side, cluster)


def _touched(
    edges: np.ndarray, new: np.ndarray, side: np.ndarray, cluster: np.ndarray, label: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Per component of new prompts the smallest cluster it touches on the train side and on the other; -1 for none."""
    crossing = edges[new[edges].sum(axis=1) == 1]
    newcomer = np.where(new[crossing[:, 0]], crossing[:, 0], crossing[:, 1])
    known = np.where(new[crossing[:, 0]], crossing[:, 1], crossing[:, 0])
    result = []
    for wanted in (TRAIN, HELD_OUT):
        mine = side[known] == wanted
        smallest = np.full(len(side), len(side))
        np.minimum.at(smallest, label[newcomer[mine]], cluster[known[mine]])
        result.append(np.where(smallest == len(side), -1, smallest))
    return result[0], result[1]


def _is_held_out(prompts: np.ndarray, share: float, salt: str) -> np.ndarray:
    """Whether each founding prompt's salted hash lies in the held-out share."""
    limit = int(share * 2**64)
    key = hashlib.blake2b(salt.encode()).digest()
    return np.array(
        [
            int.from_bytes(hashlib.blake2b(prompt, digest_size=8, key=key).digest()) < limit
            for prompt in (row.tobytes() for row in prompts.astype(">u8"))
        ],
        bool,
    )
