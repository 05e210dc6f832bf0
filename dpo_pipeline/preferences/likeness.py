"""How alike two pairs or two prompts are, measured once: published with the tables and taken over by the next build.

Identities hash the normalised texts, so under the same rules for personal data the likeness of two of them never
changes. What an earlier build measured only
saves reading texts again, and where its drops were the first of this build's, looking for candidates among them;
whether it is there or not, the tables are the same to the byte.

Shapes: N things sorted by identity, E edges between them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_pipeline.core.tables import RowGroups, column, table_schema
from dpo_pipeline.preferences import identifiers, near_duplicates
from dpo_pipeline.preferences.identifiers import places
from dpo_pipeline.preferences.normalize import KEY_VERSION
from dpo_pipeline.preferences.personal_finds import FINDS_VERSION
from dpo_pipeline.preferences.shingles import SHINGLE_VERSION
from dpo_pipeline.preferences.sorted_rows import SortedRows

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
FOUND_AMONG = b"found_among"
"""Where a table holds all that is found among the things of some drops, in whatever build: how it is looked for, and
the digests of the drops in order."""

Measure = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""From some rows and the edges between places among them to the three similarities of `LIKENESS`, `(E,)` each."""
SIMILARITIES = 3
MIX = np.uint64(0x9E3779B97F4A7C15)


def found_among(among: Sequence[str]) -> dict[bytes, bytes]:
    """What a table says that holds all that is found among some drops; nothing where it may not hold it."""
    return {FOUND_AMONG: " ".join(among).encode()} if among else {}


def drops_covered(says: Mapping[bytes, bytes], among: Sequence[str]) -> int:
    """Of how many of the first drops a table that says so holds what would be found in them."""
    theirs = says.get(FOUND_AMONG, b"").decode().split()
    return max(len(theirs) - 1, 0) if theirs == list(among[: len(theirs)]) else 0


class Likenesses:
    """Measures how alike things are, or takes it from an earlier build, and writes down what was asked for.

    Args:
        ids: Identities of the things, sorted, `(N, 2)` uint64; rows of edges are places here.
        out: The table to write.
        known: Tables of earlier builds; absent files and those of other versions are passed over.
        among: How candidates are proposed, then the digest of each drop in order; empty where the edges among the
            first drops may change with later ones.
        redacted: Rules for personal data whose finds were taken out of the texts before they are measured.

    Attributes:
        covered: Of so many of the first drops an earlier build holds all edges: `extended` hands them out.
        reused: How many of the likenesses asked for were known.
        measured: How many were not.
    """

    def __init__(
        self,
        ids: np.ndarray,
        out: Path,
        known: Sequence[Path] = (),
        among: Sequence[str] = (),
        redacted: frozenset[str] = frozenset(),
    ) -> None:
        self.ids, self.reused, self.measured = ids, 0, 0
        versions = {**(LIKENESS.metadata or {}), **VERSIONS, b"redacted": _says(redacted)}
        says = {path: pq.read_schema(path).metadata or {} for path in known if path.is_file()}
        fitting = [path for path, found in says.items() if versions.items() <= found.items()]
        self._earlier, self.covered = None, 0
        for path in fitting:
            if self.covered < (covered := drops_covered(says[path], among)):
                self._earlier, self.covered = path, covered
        self._known = [SortedRows(path, LIKENESS.names, _left_words) for path in fitting if path != self._earlier]
        found = LIKENESS.with_metadata({**versions, **found_among(among)})
        self._writer = RowGroups(out, found, unique=("left", "right"))

    def __enter__(self) -> "Likenesses":
        return self

    def __exit__(self, *failure: object) -> None:
        self._writer.__exit__(*failure)

    def of(self, edges: np.ndarray, measure: Measure) -> np.ndarray:
        """The similarities along each edge, `(E, 3)`; edges are asked for in ascending order, the lower row first."""
        values = self._values(edges, measure)
        self._write(edges, values)
        return values

    def extended(self, fresh: Iterable[np.ndarray], measure: Measure) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The edges of the earlier build and fresh ones, `(E, 2)`, with their similarities, `(E, 3)`, in pieces.

        Args:
            fresh: Edges that lead to things of later drops, one piece for every `ROWS_PER_PIECE` lower rows.
            measure: As for `of`.
        """
        assert self._earlier is not None
        reader, start = SortedRows(self._earlier, LIKENESS.names, _left_words), 0
        for new in fresh:
            end = min(start + near_duplicates.ROWS_PER_PIECE, len(self.ids))
            rows = reader.until(int(self.ids[end, 0]) if end < len(self.ids) else None)
            left, right = (identifiers.from_binary(rows.column(side).combine_chunks()) for side in (0, 1))
            old = np.stack([start + places(self.ids[start:end], left), places(self.ids, right)], axis=1)
            self.reused += len(old)
            edges = np.concatenate([old, new])
            values = np.concatenate([_similarities(rows), self._values(new, measure)])
            order = np.argsort((edges[:, 0] << 32) | edges[:, 1])
            edges, values = edges[order], values[order]
            self._write(edges, values)
            yield edges, values
            start = end

    def _values(self, edges: np.ndarray, measure: Measure) -> np.ndarray:
        """The similarities along each edge, known or measured."""
        values = np.empty((len(edges), SIMILARITIES))
        is_known = np.zeros(len(edges), bool)
        if len(edges):
            for reader in self._known:
                after = int(edges[-1, 0]) + 1
                rows = reader.until(int(self.ids[after, 0]) if after < len(self.ids) else None)
                if len(rows):
                    self._look_up(edges, rows, values, is_known)
        unknown = np.flatnonzero(~is_known)
        for start in range(0, len(unknown), EDGES_PER_READING):
            some = unknown[start : start + EDGES_PER_READING]
            rows, local = np.unique(edges[some], return_inverse=True)
            values[some] = np.stack(measure(rows, local.reshape(-1, 2)), axis=1)
        self.reused += len(edges) - len(unknown)
        self.measured += len(unknown)
        return values

    def _write(self, edges: np.ndarray, values: np.ndarray) -> None:
        ends = (identifiers.to_binary(self.ids[side]) for side in edges.T)
        self._writer.write(dict(zip(LIKENESS.names, (*ends, *map(pa.array, values.T)), strict=True)))

    def _look_up(self, edges: np.ndarray, rows: pa.Table, values: np.ndarray, is_known: np.ndarray) -> None:
        """Fill in what some rows of an earlier table say of the edges."""
        known = [identifiers.from_binary(rows.column(side).combine_chunks()) for side in (0, 1)]
        wanted = [self.ids[side] for side in edges.T]
        keys = _mixed(*known)
        order = np.argsort(keys)
        place = np.searchsorted(keys[order], _mixed(*wanted))
        place = order[np.minimum(place, len(order) - 1)]
        fits = np.logical_and.reduce(
            [(one[place] == other).all(axis=1) for one, other in zip(known, wanted, strict=True)]
        )
        values[fits] = _similarities(rows)[place[fits]]
        is_known |= fits


def _says(redacted: frozenset[str]) -> bytes:
    """What was taken out of the texts, and by which version of the rules."""
    return " ".join([FINDS_VERSION, *sorted(redacted)]).encode() if redacted else b""


def _similarities(rows: pa.Table) -> np.ndarray:
    return np.stack([rows.column(name).to_numpy() for name in LIKENESS.names[2:]], axis=1)


def _left_words(rows: pa.Table) -> np.ndarray:
    return identifiers.from_binary(rows.column(0).combine_chunks())[:, 0]


def _mixed(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """A hash of each pair of identities: they are hashes themselves."""
    return (left[:, 0] * MIX) ^ right[:, 0]
