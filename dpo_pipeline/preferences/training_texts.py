"""The texts of pairs as they may be trained on: cleaned and sorted once per drop, merged by every build.

Judgments come in any order, tables are sorted by pair. Each sketch puts its texts into that order, so a build only
reads them from front to back beside those of the other drops; no build cleans or sorts a text again.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.tables import MESSAGES, ROW_GROUP_ROWS, column, table_schema
from dpo_pipeline.preferences.normalize import map_contents, training_text
from dpo_pipeline.preferences.personal_data import redact, redacted_by
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.texts import DropTables

TEXTS_FILE = "texts.parquet"
MOST_BUCKETS = 200
ROWS_AT_ONCE = 2_000
"""Rows of a row group: what a build holds of each drop at a time."""

TEXTS = table_schema(
    "sketch_texts",
    1,
    [
        column("prompt", MESSAGES, "The conversation, as it may be trained on; rows are those of the sketch's pairs."),
        column("low", pa.string(), "The low response, as it may be trained on."),
        column("high", pa.string(), "The high response, as it may be trained on."),
    ],
)
SPILL = pa.schema([pa.field("place", pa.int64()), *TEXTS])


class TextSorter:
    """Takes the texts of pairs in any order, from several threads, and puts them aside by place."""

    def __init__(self, folder: Path, count: int, settings: PreferenceSettings, stack: ExitStack) -> None:
        self.step = max(ROW_GROUP_ROWS, -(-count // MOST_BUCKETS))
        self.redacted = redacted_by(settings)
        self.paths = [folder / f"{number}.arrow" for number in range(-(-count // self.step))]
        self._writers = [stack.enter_context(pa.ipc.new_file(str(path), SPILL)) for path in self.paths]
        self._lock = threading.Lock()

    def put(self, place: np.ndarray, prompt: pa.ListArray, low: pa.StringArray, high: pa.StringArray) -> None:
        """Clean and keep the texts of the pairs of the given places, ascending or not."""
        columns = [pa.array(place), map_contents(prompt, self._clean), self._clean(low), self._clean(high)]
        order = np.argsort(place // self.step, kind="stable")
        batch = pa.RecordBatch.from_arrays(columns, schema=SPILL).take(pa.array(order))
        buckets, starts = np.unique((place // self.step)[order], return_index=True)
        with self._lock:
            for number, start, end in zip(buckets, starts, [*starts[1:], len(order)], strict=True):
                self._writers[number].write_batch(batch.slice(start, end - start))

    def _clean(self, texts: pa.StringArray) -> pa.StringArray:
        return redact(training_text(texts), rules=self.redacted)


@contextmanager
def sorted_texts(out: Path, count: int, settings: PreferenceSettings) -> Iterator[TextSorter]:
    """A sorter for the texts of `count` pairs; they are written to `texts.parquet` when the block ends."""
    with tempfile.TemporaryDirectory(dir=out, prefix=".spill-") as folder:
        with ExitStack() as stack:
            sorter = TextSorter(Path(folder), count, settings, stack)
            yield sorter
        schema = TEXTS.with_metadata({**(TEXTS.metadata or {}), **_says(sorter.redacted)})
        # Read once or a few times, by this program: light compression, and no search for texts that repeat.
        with pq.ParquetWriter(out / TEXTS_FILE, schema, compression="lz4", use_dictionary=False) as writer:
            for path in sorter.paths:
                with pa.memory_map(str(path)) as source:
                    table = pa.ipc.open_file(source).read_all()
                    texts = table.take(pc.sort_indices(table.column("place"))).drop_columns(["place"])
                writer.write_table(texts.cast(schema), row_group_size=ROWS_AT_ONCE)


class TextReader:
    """The texts of all drops, asked for in ascending order of pairs: every row group is decoded once.

    Raises:
        InputError: If the texts of a drop were redacted otherwise than the settings say.
    """

    def __init__(self, drops: Sequence[DropTables], settings: PreferenceSettings, stack: ExitStack) -> None:
        self._drops = []
        for drop in drops:
            file = stack.enter_context(pq.ParquetFile(drop.sketches / TEXTS_FILE, pre_buffer=False))
            if not _says(redacted_by(settings)).items() <= (file.schema_arrow.metadata or {}).items():
                raise InputError(
                    f"the texts of drop {drop.name} were made with other rules for personal data",
                    expected=f"redacted: {', '.join(sorted(redacted_by(settings))) or 'nothing'}",
                    do="Materialize the sketches of the drop again",
                )
            self._drops.append(_DropReader(file))

    def take(self, drop: np.ndarray, row: np.ndarray) -> pa.Table:
        """The texts in some rows of some drops, `(K,)` each; within a drop never a row before one taken earlier."""
        numbers = np.unique(drop)
        here = [np.flatnonzero(drop == number) for number in numbers]
        table = pa.concat_tables(
            part for number, at in zip(numbers, here, strict=True) for part in self._drops[number].take(row[at])
        )
        return table.take(pa.array(np.argsort(np.concatenate(here)))).combine_chunks()


class _DropReader:
    def __init__(self, file: pq.ParquetFile) -> None:
        self.file = file
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self.bounds = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.group, self.table = -1, TEXTS.empty_table()

    def take(self, rows: np.ndarray) -> Iterator[pa.Table]:
        groups = np.searchsorted(self.bounds, rows, "right") - 1
        for group in np.unique(groups):
            if group != self.group:
                self.group, self.table = int(group), self.file.read_row_group(int(group)).replace_schema_metadata()
            yield self.table.take(pa.array(rows[groups == group] - self.bounds[group]))


def _says(redacted: frozenset[str]) -> dict[bytes, bytes]:
    return {b"redacted": ",".join(sorted(redacted)).encode()}
