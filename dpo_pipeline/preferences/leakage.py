"""Whether the split holds: recomputed from the published table, not from the code that made it."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.preferences import near_duplicates
from dpo_pipeline.preferences.likeness import EDGES_PER_READING
from dpo_pipeline.preferences.normalize import map_contents, normalise_once_each, render
from dpo_pipeline.preferences.shingles import Shingles, band_keys, shingle, signatures
from dpo_pipeline.preferences.sketch_tables import DIALOGUE, PROMPT_BANDS, PROMPT_HASHES
from dpo_pipeline.preferences.spill import Scratch
from dpo_pipeline.preferences.texts import BATCH_ROWS

PAIRS_FILE = "pairs.parquet"


def prompts_on_both_sides(pairs: Path) -> list[str]:
    """The prompt ids and cluster ids that stand both in train and in held-out; empty when the split is clean.

    Args:
        pairs: The preference_pairs artifact folder.
    """
    table = pq.read_table(pairs / PAIRS_FILE, columns=["prompt_id", "cluster_id", "split"])
    shared: set[str] = set()
    for name in ("prompt_id", "cluster_id"):
        sides = [
            set(table.filter(pc.equal(table["split"], split))[name].to_pylist()) for split in ("train", "held_out")
        ]
        shared |= sides[0] & sides[1]
    return sorted(shared)


def near_leaks(pairs: Path, *, jaccard: float) -> list[tuple[str, str, float]]:
    """Prompts of train and of held-out that are near duplicates, found without trusting the clusters in the table.

    Each is (prompt id in train, prompt id in held-out, similarity), the most alike first; a prompt that stands on both
    sides is its own near duplicate. System turns are left out, as in the split. MinHash proposes and may overlook:
    of two prompts of similarity 0.5 it misses one case in sixty.

    Memory: only ids and candidates are held whole; band keys lie in a temporary file, texts are read in pieces.

    Args:
        pairs: The preference_pairs artifact folder; nothing but its `pairs.parquet` is read.
        jaccard: Similarity of word 2-grams from which two prompts are near duplicates.
    """
    ids, rows, is_held_out = _prompts(pairs)
    if is_held_out.all() or not is_held_out.any():
        return []
    with tempfile.TemporaryDirectory() as folder:
        keys = np.memmap(Path(folder) / "keys", np.uint32, "w+", shape=(PROMPT_BANDS, len(rows)))
        for place, sets in _dialogues(pairs, rows):
            keys[:, place] = band_keys(signatures(sets, count=PROMPT_HASHES), bands=PROMPT_BANDS)
        # Train first: every held-out prompt is compared with the first trained one of its bucket.
        order = np.argsort(is_held_out, kind="stable").astype(np.int32)
        edges = np.concatenate(list(near_duplicates.propose(keys, order, len(rows), Scratch(Path(folder)))))
        del keys
    edges = edges[is_held_out[edges].sum(axis=1) == 1]
    edges = np.stack([edges[~is_held_out[edges]], edges[is_held_out[edges]]], axis=1)
    alike = np.concatenate([np.zeros(0), *_likenesses(pairs, rows, edges)])
    order = np.argsort(-alike, kind="stable")[: np.count_nonzero(alike >= jaccard)]
    names = [ids.take(pa.array(edges[order, end])).to_pylist() for end in (0, 1)]
    return list(zip(*names, alike[order].tolist(), strict=True))


def _prompts(pairs: Path) -> tuple[pa.StringArray, np.ndarray, np.ndarray]:
    """Each prompt of each side once: its id, a row of the table that has it, whether it is held out; `(M,)` each."""
    table = pq.read_table(pairs / PAIRS_FILE, columns=["prompt_id", "split"]).combine_chunks()
    ids = pc.dictionary_encode(table["prompt_id"]).combine_chunks()
    is_held_out = pc.equal(table["split"], "held_out").to_numpy()
    _, rows = np.unique(2 * ids.indices.to_numpy().astype(np.int64) + is_held_out, return_index=True)
    rows.sort()
    return ids.take(pa.array(rows)).dictionary_decode(), rows, is_held_out[rows]


def _dialogues(pairs: Path, rows: np.ndarray) -> Iterator[tuple[slice, Shingles]]:
    """The shingles of the prompts in some rows, sorted, in pieces: their places among the rows, and the sets."""
    start = 0
    with pq.ParquetFile(pairs / PAIRS_FILE) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=["prompt"]):
            first, last = np.searchsorted(rows, (start, start + batch.num_rows))
            if first < last:
                prompts = batch.column(0).take(pa.array(rows[first:last] - start))
                turns = map_contents(prompts, normalise_once_each)
                yield slice(first, last), shingle(render(turns, roles=DIALOGUE, with_roles=False))
            start += batch.num_rows


def _likenesses(pairs: Path, rows: np.ndarray, edges: np.ndarray) -> Iterator[np.ndarray]:
    """The true Jaccard similarity along the edges, in pieces."""
    for start in range(0, len(edges), EDGES_PER_READING):
        ends, local = np.unique(edges[start : start + EDGES_PER_READING], return_inverse=True)
        sets = [some for _, some in _dialogues(pairs, rows[ends])]
        bounds = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(some.bounds) for some in sets]))])
        together = Shingles(np.concatenate([some.values for some in sets]), bounds)
        yield near_duplicates.jaccard(together, local.reshape(-1, 2))
