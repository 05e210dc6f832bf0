"""Which pairs are near duplicates of which, and which prompts belong on one side of the split.

A pair is a near duplicate of another when prompt and both responses match: whichever response is called low, since
an edit moves a response's key. Together they must be alike and no part may be too different: an edit in a short
prompt changes much of the prompt, little of the pair. System prompt and numbers must be the very same: "2 + 2" is not
"2 + 3".
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.preferences import CODE_VERSION, likeness
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.crowds import Crowd
from dpo_pipeline.preferences.likeness import Likenesses
from dpo_pipeline.preferences.near_duplicates import (
    ROWS_AT_ONCE,
    ROWS_PER_PIECE,
    WINDOW,
    jaccard,
    overlaps,
    propose,
    ratio,
)
from dpo_pipeline.preferences.personal_data import redacted_by
from dpo_pipeline.preferences.progress import Progress
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.shingles import Shingles
from dpo_pipeline.preferences.sketch_tables import PROMPT_BANDS, PROMPT_HASHES
from dpo_pipeline.preferences.spill import slices

EARLY_PROMPTS = 64
"""Prompts of a bucket that are all compared with one another, and one more. In larger ones `crowds` compares the rest
across the sides of the split: a pair of pairs that is overlooked is one row too many, of prompts it may be a leak."""


NEAR = np.dtype([("edges", "<i4", 2), ("similarity", "<f8"), ("least", "<f8"), ("prompt", "<f8")])


class NearPairs(NamedTuple):
    """Edges between near-duplicate pairs, `(E, 2)`, and how alike they are along each, `(E,)`.

    `similarity` is that of prompt and responses together, `least` that of the least similar of the three, `prompt`
    that of the prompts.
    """

    edges: np.ndarray
    similarity: np.ndarray
    least: np.ndarray
    prompt: np.ndarray

    def only(self, mask: np.ndarray) -> "NearPairs":
        """Some of the edges."""
        return NearPairs(*(column[mask] for column in self))


def near_duplicate_pairs(
    catalogue: Catalogue,
    order: np.ndarray,
    *,
    likenesses: Likenesses,
    settings: PreferenceSettings,
    reporter: Reporter,
) -> NearPairs:
    """The verified near duplicates among some pairs.

    Args:
        catalogue: The pairs.
        order: The pairs to look at, the best keeper first: all of a large bucket are compared with its best.
        likenesses: Those of pairs that are known already; texts are read for the others only.
        settings: `near_duplicate_jaccard` and `near_duplicate_part_jaccard`.
        reporter: Told how many candidates there are.
    """
    same = [catalogue.prompts.column(name) for name in ("system", "numbers")]
    progress = Progress(reporter, "pairs searched for near duplicates", len(catalogue.pairs.ids))
    found = catalogue.scratch.rows(NEAR)

    def candidates() -> Iterator[np.ndarray]:
        for edges in propose(catalogue.pair_bands(), order, len(catalogue.pairs.ids), catalogue.scratch):
            left, right = catalogue.prompt[edges].T
            yield edges[np.logical_and.reduce([value[left] == value[right] for value in same])]
            progress.add(ROWS_PER_PIECE)

    def measure(rows: np.ndarray, local: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return _likeness(*catalogue.shingles_of_pairs(rows, redacted=redacted_by(settings)), local)

    for edges in _enough(candidates()):
        catalogue.scratch.let_go()
        similarity, least, prompt = likenesses.of(edges, measure).T
        is_near = (similarity >= settings.near_duplicate_jaccard) & (least >= settings.near_duplicate_part_jaccard)
        rows = np.zeros(int(is_near.sum()), NEAR)
        for name, values in zip(NearPairs._fields, (edges, similarity, least, prompt), strict=True):
            rows[name] = values[is_near]
        found.append(rows)
    reporter.say(f"near duplicates: {_told(likenesses)}")
    every = found.mapped()
    return NearPairs(*(every[name] for name in NearPairs._fields))


def _enough(pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Pieces put together until they are worth a reading of the texts, which lie all over the judgments."""
    held: list[np.ndarray] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) >= likeness.EDGES_PER_READING:
            yield np.concatenate(held)
            held.clear()
    if held:
        yield np.concatenate(held)


def _likeness(
    prompt: Shingles, low: Shingles, high: Shingles, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarity of the whole, of the least similar part and of the prompts, the responses matched as fits better."""

    def sizes(left: Shingles, right: Shingles) -> np.ndarray:
        return np.stack(overlaps(left, right, edges))

    prompts = sizes(prompt, prompt)
    straight = np.stack([prompts, sizes(low, low), sizes(high, high)], axis=1)  # (2, 3, E): shared and either by part
    crossed = np.stack([prompts, sizes(low, high), sizes(high, low)], axis=1)
    is_straight = ratio(*straight[:, 1:]).min(axis=0) >= ratio(*crossed[:, 1:]).min(axis=0)
    best = np.where(is_straight, straight, crossed)
    return ratio(*best.sum(axis=1)), ratio(*best).min(axis=0), ratio(*prompts)


def prompt_neighbours(
    catalogue: Catalogue, *, crowd: Crowd, likenesses: Likenesses, settings: PreferenceSettings, reporter: Reporter
) -> np.ndarray:
    """The edges between prompts that must stand on the same side of the split, `(E, 2)`; the crowd is gathered as well.

    Near-duplicate prompts, and prompts with the same first user turn: the same opening recurs with other continuations.
    """
    order, count = catalogue.prompt_order(), len(catalogue.prompts.ids)
    since = int(np.count_nonzero(catalogue.prompts.place.drop < likenesses.covered)) if likenesses.covered else 0

    def measure(rows: np.ndarray, local: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        alike = jaccard(catalogue.shingles_of_prompts(rows), local)
        return alike, alike, alike

    progress = Progress(reporter, "prompts searched for near duplicates", count)
    bands = crowd.gathering(catalogue.prompt_bands())
    proposed = propose(bands, order, count, catalogue.scratch, since=since, early=EARLY_PROMPTS)
    pieces = (
        likenesses.extended(proposed, measure)
        if likenesses.covered
        else ((edges, likenesses.of(edges, measure)) for edges in proposed)
    )
    near = catalogue.scratch.rows(np.dtype(np.int32))
    for edges, values in pieces:
        near.append(edges[values[:, 0] >= settings.prompt_cluster_jaccard].astype(np.int32).ravel())
        progress.add(ROWS_PER_PIECE)
        catalogue.scratch.let_go()
    reporter.say(f"near-duplicate prompts: {_told(likenesses)}")
    for edges in _same_opening(catalogue.prompts.column("opening"), order):
        near.append(edges.ravel())
    return near.mapped().reshape(-1, 2)


def among_prompts(catalogue: Catalogue) -> list[str]:
    """What the edges between prompts rest on, drop by drop: those among the first drops stay as others come.

    The code version, because other code may propose other edges: likenesses are taken over from it, the search is not.
    """
    return [f"{CODE_VERSION}:{PROMPT_BANDS}x{PROMPT_HASHES}/{EARLY_PROMPTS}/{WINDOW}", *catalogue.prompts.digests]


def _told(likenesses: Likenesses) -> str:
    return f"{likenesses.measured:,} candidates measured, {likenesses.reused:,} known from an earlier build"


def _same_opening(opening: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    """Each prompt linked to the first and to the latest before it with the same opening, `(E, 2)` in pieces."""
    parts = np.uint64(-(-len(opening) // ROWS_AT_ONCE))
    for part in range(int(parts)):
        known = np.concatenate([np.zeros(0, np.int32), *_openings_of(part, parts, opening, order)])
        known = known[np.argsort(opening[known], kind="stable")]
        is_same = opening[known][1:] == opening[known][:-1]
        later = np.flatnonzero(is_same) + 1
        starts = np.flatnonzero(np.concatenate([[True], ~is_same]))
        first = starts[np.searchsorted(starts, later, "right") - 1]
        for earlier in (first, later - 1):
            yield np.stack([known[earlier], known[later]], axis=1).astype(np.int32)


def _openings_of(part: int, parts: np.uint64, opening: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    """The prompts whose opening is known and in one of equal ranges, in order."""
    for some in slices(len(order)):
        hashes = opening[order[some]]
        yield order[some][(hashes != 0) & ((hashes >> np.uint64(32)) * parts >> np.uint64(32) == part)]
