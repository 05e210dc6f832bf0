"""Which pairs are near duplicates of which, and which prompts belong on one side of the split.

A pair is a near duplicate of another when prompt and both responses match: whichever response is called low, since
an edit moves a response's key.
"""

import numpy as np

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.near_duplicates import jaccard, overlaps, propose
from dpo_pipeline.preferences.settings import PreferenceSettings

EDGES_PER_READING = 150_000
"""Candidates verified per reading of the texts: bounds the shingles in memory to some 150 MB."""


def near_duplicate_pairs(
    catalogue: Catalogue, is_alive: np.ndarray, *, settings: PreferenceSettings, reporter: Reporter
) -> tuple[np.ndarray, np.ndarray]:
    """The verified edges between near-duplicate pairs, `(E, 2)`, and their similarities, `(E,)`.

    Args:
        catalogue: The pairs.
        is_alive: The pairs to look at, `(P,)` bool.
        settings: `near_duplicate_jaccard`.
        reporter: Told how many candidates there are.
    """
    order = catalogue.pair_order()
    edges = propose(catalogue.pair_bands(), order[is_alive[order]])
    system = catalogue.prompt_column("system")[catalogue.prompt]
    edges = edges[system[edges[:, 0]] == system[edges[:, 1]]]
    reporter.say(f"{len(edges):,} candidate pairs of near duplicates")
    kept, similarity = [np.zeros((0, 2), np.int64)], [np.zeros(0)]
    for some in _portions(edges):
        rows, local = np.unique(some, return_inverse=True)
        likeness = _pair_likeness(catalogue, rows, local.reshape(-1, 2))
        is_match = likeness >= settings.near_duplicate_jaccard
        kept.append(some[is_match])
        similarity.append(likeness[is_match])
    return np.concatenate(kept), np.concatenate(similarity)


def _pair_likeness(catalogue: Catalogue, rows: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The smallest of the three parts' similarities along each edge, under the better matching of the responses."""
    prompt, low, high = catalogue.shingles_of_pairs(rows)

    def likeness(left, right) -> np.ndarray:  # noqa: ANN001 - shingles
        shared, either = overlaps(left, right, edges)
        return np.where(either == 0, 1.0, shared / np.maximum(either, 1))

    straight = np.minimum(likeness(low, low), likeness(high, high))
    crossed = np.minimum(likeness(low, high), likeness(high, low))
    return np.minimum(likeness(prompt, prompt), np.maximum(straight, crossed))


def prompt_neighbours(catalogue: Catalogue, *, settings: PreferenceSettings, reporter: Reporter) -> np.ndarray:
    """The edges between prompts that must stand on the same side of the split, `(E, 2)`.

    Near-duplicate prompts, and prompts with the same first user turn: the same opening recurs with other continuations.
    """
    order = catalogue.prompt_order()
    edges = propose(catalogue.prompt_bands(), order)
    reporter.say(f"{len(edges):,} candidate pairs of near-duplicate prompts")
    kept = [_same_opening(catalogue.prompt_column("opening"), order)]
    for some in _portions(edges):
        rows, local = np.unique(some, return_inverse=True)
        sets = catalogue.shingles_of_prompts(rows)
        kept.append(some[jaccard(sets, local.reshape(-1, 2)) >= settings.prompt_cluster_jaccard])
    return np.concatenate(kept)


def _same_opening(opening: np.ndarray, order: np.ndarray) -> np.ndarray:
    known = order[opening[order] != 0]
    by_opening = known[np.argsort(opening[known], kind="stable")]
    is_same = opening[by_opening][1:] == opening[by_opening][:-1]
    return np.stack([by_opening[:-1][is_same], by_opening[1:][is_same]], axis=1).astype(np.int64)


def _portions(edges: np.ndarray) -> list[np.ndarray]:
    return [edges[start : start + EDGES_PER_READING] for start in range(0, len(edges), EDGES_PER_READING)]
