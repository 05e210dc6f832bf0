"""A sorted Parquet file read from front to back, as far as asked: how tables sorted alike are merged."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


class SortedRows:
    """The rows of a file in its order; one row group is in memory.

    Args:
        path: The file.
        columns: To read.
        key: What the rows are sorted by, ascending: from some rows to an array or column of numbers.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], key: Callable[[pa.Table], pa.ChunkedArray | np.ndarray]
    ) -> None:
        self._file, self._columns, self._key_of = pq.ParquetFile(path, pre_buffer=False), list(columns), key
        self._group = 0
        self._empty = self._file.schema_arrow.empty_table().select(self._columns)
        self._table, self._key, self._at = self._empty, np.zeros(0), 0

    def until(self, bound: int | None) -> pa.Table:
        """The rows not yet handed out whose key is below the bound; all that are left where there is none."""
        parts = [self._empty]
        while self._at < len(self._table) or self._next():
            end = len(self._table) if bound is None else int(np.searchsorted(self._key, self._key.dtype.type(bound)))
            parts.append(self._table.slice(self._at, end - self._at))
            self._at = end
            if end < len(self._table):
                break
        return pa.concat_tables(parts)

    def _next(self) -> bool:
        """Read the next row group; False where there is none."""
        if self._group == self._file.num_row_groups:
            self._file.close()
            return False
        self._table = self._file.read_row_group(self._group, columns=self._columns).replace_schema_metadata(
            self._empty.schema.metadata
        )
        self._key, self._at = np.asarray(self._key_of(self._table)), 0
        self._group += 1
        return True
