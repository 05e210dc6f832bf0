"""Whether the split holds: recomputed from the published table, not from the code that made it."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.metrics import Quiet, Reporter
from dpo_pipeline.preferences import identifiers
from dpo_pipeline.preferences.near_duplicates import jaccard
from dpo_pipeline.preferences.normalize import map_contents, normalise_once_each, render
from dpo_pipeline.preferences.progress import Progress
from dpo_pipeline.preferences.prompt_index import KEYS_SEARCHED, find_across
from dpo_pipeline.preferences.shingles import Shingles, band_keys, shingle, signatures
from dpo_pipeline.preferences.sketch_tables import DIALOGUE, PROMPT_BANDS, PROMPT_HASHES
from dpo_pipeline.preferences.spill import Scratch, Spill, range_count, stable_order
from dpo_pipeline.preferences.texts import BATCH_ROWS

PAIRS_FILE = "pairs.parquet"
SIDES = pa.schema([("id", pa.binary(16)), ("is_held_out", pa.bool_()), ("row", pa.int64())])


def prompts_on_both_sides(pairs: Path) -> list[str]:
    """The prompt ids and cluster ids that stand both in train and in held-out; empty when the split is clean.

    Args:
        pairs: The preference_pairs artifact folder.
    """
    shared: set[str] = set()
    for name in ("prompt_id", "cluster_id"):
        for ids, _, _ in _each_once_a_side(pairs, name):
            is_repeat = (ids[1:] == ids[:-1]).all(axis=1)
            shared.update(identifiers.to_hex(ids[1:][is_repeat]).to_pylist())
    return sorted(shared)


def near_leaks(pairs: Path, *, jaccard: float, reporter: Reporter | None = None) -> list[tuple[str, str, float]]:
    """Held-out prompts that are near copies of trained ones, found without trusting the clusters in the table.

    Each is (prompt id in train, prompt id in held-out, similarity), the most alike first: every such held-out prompt
    once, with one of those it is near to. A prompt that stands on both sides is its own near copy. System turns are
    left out, as in the split. MinHash proposes and may overlook: of two prompts of similarity 0.5 it misses one case
    in sixty; what shares a key is compared whatever else does. Tables, texts and keys are read anew, the search
    (`find_across`) is the one that the build goes through crowds with; brute force stands against it in the tests.

    Memory: what grows with the table lies in files of a temporary folder; 4 bytes a prompt do not.

    Args:
        pairs: The preference_pairs artifact folder; nothing but its `pairs.parquet` is read.
        jaccard: Similarity of word 2-grams from which two prompts are near duplicates.
        reporter: Told now and then how far the search is.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Scratch(Path(folder))
        prompts = _read(pairs, scratch)
        side = prompts.is_held_out
        order = stable_order(lambda some: side[some].astype(np.int64), len(side), scratch)
        held_out = order[len(order) - int(np.count_nonzero(side)) :]
        trained = order[: len(order) - len(held_out)]
        progress = Progress(reporter or Quiet(), KEYS_SEARCHED, len(held_out) * PROMPT_BANDS)
        found = find_across(
            prompts.keys, prompts.sets, held_out, trained, similarity=jaccard, scratch=scratch, progress=progress
        )
        edges = np.stack([found, held_out], axis=1)[found >= 0]
        alike = _alike(prompts.sets, edges)
        best = np.argsort(-alike, kind="stable")
        names = [identifiers.to_hex(prompts.ids[edges[best, end]]).to_pylist() for end in (0, 1)]
        return list(zip(*names, alike[best].tolist(), strict=True))


class _Prompts(NamedTuple):
    """Each prompt of each side once, M in the order of the table: `(M, 2)`, `(M,)`, sets of M, `(bands, M)`."""

    ids: np.ndarray
    is_held_out: np.ndarray
    sets: Shingles
    keys: np.ndarray


def _alike(sets: Shingles, edges: np.ndarray) -> np.ndarray:
    return jaccard(sets, edges) if len(edges) else np.zeros(0)


def _each_once_a_side(pairs: Path, name: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The distinct ids of either side, sorted, whether each is held out, and its first row; by ranges of ids."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        file = stack.enter_context(pq.ParquetFile(pairs / PAIRS_FILE))
        ranges = range_count(file.metadata.num_rows, 0)
        spill, start = stack.enter_context(closing(Spill(Path(folder), SIDES, ranges))), 0
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[name, "split"]):
            ids = identifiers.from_hex(batch.column(name))
            rows = pa.array(np.arange(start, start + len(batch)))
            columns = [identifiers.to_binary(ids), pc.equal(batch.column("split"), "held_out"), rows]
            spill.put(ids, pa.RecordBatch.from_arrays(columns, schema=SIDES))
            start += len(batch)
        for table in spill.ranges():
            ids = identifiers.from_binary(table.column("id").combine_chunks())
            side, row = (table.column(at).to_numpy() for at in ("is_held_out", "row"))
            order = np.lexsort((row, side, ids[:, 1], ids[:, 0]))
            ids, side, row = ids[order], side[order], row[order]
            is_new = np.ones(len(ids), bool)
            is_new[1:] = (ids[1:] != ids[:-1]).any(axis=1) | (side[1:] != side[:-1])
            yield ids[is_new], side[is_new], row[is_new]


def _read(pairs: Path, scratch: Scratch) -> _Prompts:
    """What is needed of the prompts, in scratch."""
    with pq.ParquetFile(pairs / PAIRS_FILE) as file:
        is_first, count = scratch.empty(file.metadata.num_rows, bool), 0
        for _, _, rows in _each_once_a_side(pairs, "prompt_id"):
            is_first[rows] = True
            count += len(rows)
        ids, sides = scratch.empty((count, 2), np.uint64), scratch.empty(count, bool)
        keys, bounds = scratch.empty((PROMPT_BANDS, count), np.uint32), scratch.empty(count + 1, np.int64)
        values, row, end = scratch.rows(np.dtype(np.uint32)), 0, 0
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=["prompt_id", "split", "prompt"]):
            some = batch.filter(pa.array(is_first[row : row + len(batch)]))
            row, start, end = row + len(batch), end, end + len(some)
            ids[start:end] = identifiers.from_hex(some.column("prompt_id"))
            sides[start:end] = pc.equal(some.column("split"), "held_out").to_numpy(zero_copy_only=False)
            dialogues = render(
                map_contents(some.column("prompt"), normalise_once_each), roles=DIALOGUE, with_roles=False
            )
            sets = shingle(dialogues)
            values.append(sets.values)
            bounds[start + 1 : end + 1] = bounds[start] + sets.bounds[1:]
            keys[:, start:end] = band_keys(signatures(sets, count=PROMPT_HASHES), bands=PROMPT_BANDS)
            scratch.let_go()
    return _Prompts(ids, sides, Shingles(values.mapped(), bounds), keys)
