"""The texts of chosen judgments, streamed from the judgments tables of the drops: never all in memory at once."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

JUDGMENTS_FILE = "judgments.parquet"
BATCH_ROWS = 4_096
BATCH_BYTES = 32_000_000
"""Rows and, by the row group's average, bytes of text read at a time: records may be megabytes long."""

TEXT_COLUMNS = ("prompt", "response_a", "response_b")


class DropTables(NamedTuple):
    """A drop's name and its two artifact folders.

    Attributes:
        name: The drop.
        judgments: Folder with `judgments.parquet`.
        sketches: Folder written by `preferences.sketch.sketch_drop` from those judgments.
    """

    name: str
    judgments: Path
    sketches: Path


class Texts(NamedTuple):
    """Some of the asked-for rows: where each stands among those asked for, and its texts as exported."""

    place: np.ndarray
    prompt: pa.ListArray
    response_a: pa.StringArray
    response_b: pa.StringArray


def batches(judgments: Path, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Some columns of a drop's judgments, and the row each batch starts at."""
    with pq.ParquetFile(judgments / JUDGMENTS_FILE, pre_buffer=False) as file:
        start = 0
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(_batch_rows(file, group), row_groups=[group], columns=list(columns)):
                yield start, batch
                start += batch.num_rows


def read_texts(judgments: Path, rows: np.ndarray, *, columns: Sequence[str] = TEXT_COLUMNS) -> Iterator[Texts]:
    """The texts of the given rows of a drop, in the order of the table.

    Args:
        judgments: The judgments artifact's folder.
        rows: Row numbers in `judgments.parquet`, each at most once, in any order.
        columns: Of the text columns, those to read; the others come as empty strings.
    """
    order = np.argsort(rows, kind="stable")
    wanted = np.asarray(rows)[order]
    with pq.ParquetFile(judgments / JUDGMENTS_FILE, pre_buffer=False) as file:
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if np.searchsorted(wanted, start) < np.searchsorted(wanted, end):
                yield from _read_group(file, group, start, wanted, order, columns)
            start = end


def _read_group(
    file: pq.ParquetFile, group: int, start: int, wanted: np.ndarray, order: np.ndarray, columns: Sequence[str]
) -> Iterator[Texts]:
    for batch in file.iter_batches(_batch_rows(file, group), row_groups=[group], columns=list(columns)):
        first, last = np.searchsorted(wanted, (start, start + batch.num_rows))
        if first < last:
            some = batch.take(pa.array(wanted[first:last] - start)) if last - first < batch.num_rows else batch
            texts = [
                some.column(name) if name in columns else pa.nulls(len(some)).cast(pa.string()).fill_null("")
                for name in TEXT_COLUMNS
            ]
            yield Texts(order[first:last], *texts)
        start += batch.num_rows


def _batch_rows(file: pq.ParquetFile, group: int) -> int:
    about = file.metadata.row_group(group)
    return max(1, min(BATCH_ROWS, BATCH_BYTES * about.num_rows // max(about.total_byte_size, 1)))
