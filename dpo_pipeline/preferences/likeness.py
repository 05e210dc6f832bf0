"""How alike two pairs or two prompts are, measured once: published with the tables and taken over by the next build.

Identities hash the normalised texts, so the likeness of two of them never changes. What an earlier build measured only
saves reading texts again; whether it is there or not, the tables are the same to the byte.

Shapes: N things sorted by identity, E edges between them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_pipeline.core.tables import column, table_schema, write_table
from dpo_pipeline.preferences import identifiers
from dpo_pipeline.preferences.normalize import KEY_VERSION
from dpo_pipeline.preferences.shingles import SHINGLE_VERSION

PAIRS_LIKENESS_FILE, PROMPTS_LIKENESS_FILE = "likeness_of_pairs.parquet", "likeness_of_prompts.parquet"
EDGES_PER_READING = 150_000
"""Candidates measured per reading of the texts: bounds the shingles in memory to some 150 MB."""

LIKENESS = table_schema(
    "likeness",
    2,
    [
        column("left", pa.binary(16), "Identity of one; it sorts before the other."),
        column("right", pa.binary(16), "Identity of the other."),
        column("similarity", pa.float64(), "Jaccard similarity of prompt and responses taken together."),
        column("least_similarity", pa.float64(), "That of the least similar of prompt and responses."),
        column("prompt_similarity", pa.float64(), "Jaccard similarity of the prompts."),
    ],
)
VERSIONS = {b"key_version": str(KEY_VERSION).encode(), b"shingle_version": str(SHINGLE_VERSION).encode()}
"""What a likeness rests on besides the two texts; one measured under other versions is measured again."""

Measure = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""From some rows and the edges between places among them to the three similarities of `LIKENESS`, `(E,)` each."""
SIMILARITIES = 3


class Likenesses:
    """Those of earlier builds, and those asked for in this one.

    Args:
        ids: Identities of the things, sorted, `(N, 2)` uint64; rows of edges are places here.
        known: Tables of earlier builds; absent files and those of other versions are passed over.

    Attributes:
        reused: How many of the likenesses asked for were known.
        measured: How many were not.
    """

    def __init__(self, ids: np.ndarray, known: Sequence[Path] = ()) -> None:
        self.ids = ids
        self.reused = self.measured = 0
        parts = [_read(path, ids) for path in known if path.is_file()]
        edge = np.concatenate([np.zeros(0, np.int64), *(part[0] for part in parts)])
        values = np.concatenate([np.zeros((0, SIMILARITIES)), *(part[1] for part in parts)])
        order = np.argsort(edge, kind="stable")
        self._edge, self._values = edge[order], values[order]

    def of(self, edges: np.ndarray, measure: Measure) -> np.ndarray:
        """The similarities along each edge, `(E, 3)`; what is asked for last is what `write` writes."""
        key = _packed(edges)
        place = np.searchsorted(self._edge, key)
        is_known = np.zeros(len(key), bool)
        inside = place < len(self._edge)
        is_known[inside] = self._edge[place[inside]] == key[inside]
        values = np.empty((len(key), SIMILARITIES))
        values[is_known] = self._values[place[is_known]]
        unknown = np.flatnonzero(~is_known)
        for start in range(0, len(unknown), EDGES_PER_READING):
            some = unknown[start : start + EDGES_PER_READING]
            rows, local = np.unique(edges[some], return_inverse=True)
            values[some] = np.stack(measure(rows, local.reshape(-1, 2)), axis=1)
        self.reused, self.measured = len(key) - len(unknown), len(unknown)
        order = np.argsort(key)
        self._edge, self._values = key[order], values[order]
        return values

    def write(self, path: Path) -> None:
        """Write the likenesses last asked for, sorted: the same table whether they were known or measured."""
        ends = (self._edge >> 32, self._edge & 0xFFFFFFFF)
        columns = [
            *(identifiers.to_binary(self.ids[end]) for end in ends),
            *(pa.array(values) for values in self._values.T),
        ]
        schema = LIKENESS.with_metadata({**LIKENESS.metadata, **VERSIONS})
        write_table(path, pa.Table.from_arrays(columns, schema=schema))


def _read(path: Path, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edges of a table between things that are still there, packed, and their similarities."""
    nothing = np.zeros(0, np.int64), np.zeros((0, SIMILARITIES))
    expected = {**LIKENESS.metadata, **VERSIONS}
    if pq.read_schema(path).metadata != expected:
        return nothing
    parts = [nothing]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            ends = np.stack([_places(ids, identifiers.from_binary(batch.column(at))) for at in (0, 1)], axis=1)
            is_there = (ends >= 0).all(axis=1)
            values = np.stack([some.to_numpy() for some in batch.columns[2:]], axis=1)
            parts.append((_packed(ends[is_there]), values[is_there]))
    return np.concatenate([edge for edge, _ in parts]), np.concatenate([values for _, values in parts])


def _places(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each identity among the sorted ones, -1 where it is not there, `(K,)`."""
    if len(ids) == 0:
        return np.full(len(wanted), -1)
    # By the high words alone: should two identities ever share one, the second is missed and measured again.
    place = np.minimum(np.searchsorted(ids[:, 0], wanted[:, 0]), len(ids) - 1)
    return np.where((ids[place] == wanted).all(axis=1), place, -1)


def _packed(edges: np.ndarray) -> np.ndarray:
    """Each edge as lower row << 32 | higher row, `(E,)` int64."""
    return (edges.min(axis=1, initial=np.iinfo(np.int64).max) << 32) | edges.max(axis=1, initial=0)
