"""Rows too many for memory, on disk: put aside by identity and given back range by range, or kept as arrays in files.

Files live in a scratch folder and have no name once they are open: they vanish with the process, whatever ends it.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import itertools
import mmap
import os
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

PENDING_BYTES = 32_000_000
"""Rows gathered before they are put aside: many small writes would cost more than the rows."""
RANGE_ROWS, RANGE_BYTES = 20_000, 64_000_000
"""What a range of identities holds, about; it is read into memory as a whole."""
MOST_MAPPED = 300_000_000
"""Bytes of mapped files, this program's libraries among them, beyond which arrays are let go: each page that is asked
for again costs a microsecond."""
MOST_RANGES = 250
"""Files open at a time."""


def range_count(rows: int, size: int) -> int:
    """Into how many ranges of identities so many rows of so many bytes together are put aside."""
    return min(MOST_RANGES, max(1, -(-rows // RANGE_ROWS), -(-size // RANGE_BYTES)))


class Spill:
    """Takes rows in any order, from several threads, and gives them back by ascending ranges of their identities.

    Within a range rows come in no order. Identities are hashes, so equal ranges hold about equally many.

    Args:
        folder: Where the files go; None: where the system keeps temporary ones.
        schema: Of the rows.
        ranges: Number of ranges.
    """

    def __init__(self, folder: Path | None, schema: pa.Schema, ranges: int) -> None:
        self._schema = schema
        self._files: list[BinaryIO] = [tempfile.TemporaryFile(dir=folder) for _ in range(ranges)]  # noqa: SIM115
        self._writers = [pa.ipc.new_file(file, schema) for file in self._files]
        self._pending: list[tuple[np.ndarray, pa.RecordBatch]] = []
        self._size = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Forget what was not given back."""
        for file in self._files:
            file.close()

    def put(self, identities: np.ndarray, batch: pa.RecordBatch) -> None:
        """Take the rows of a batch, whose identities are `(N, 2)` uint64."""
        place = (identities[:, 0] >> np.uint64(32)) * np.uint64(len(self._files)) >> np.uint64(32)
        with self._lock:
            self._pending.append((place.astype(np.uint8), batch))
            self._size += batch.nbytes
            if self._size > PENDING_BYTES:
                self._put_aside()

    def ranges(self) -> Iterator[pa.Table]:
        """The rows of one range after another; each can be gone through once."""
        with self._lock:
            self._put_aside()
        for writer in self._writers:
            writer.close()
        for file in self._files:
            file.flush()
            file.seek(0)
            with file:
                yield pa.ipc.open_file(pa.PythonFile(file, mode="r")).read_all()

    def _put_aside(self) -> None:
        if not self._pending:
            return
        place = np.concatenate([some for some, _ in self._pending])
        order = np.argsort(place, kind="stable")
        table = pa.Table.from_batches([batch for _, batch in self._pending], schema=self._schema)
        rows = table.combine_chunks().take(pa.array(order))
        ranges, starts = np.unique(place[order], return_index=True)
        for number, start, end in zip(ranges, starts, [*starts[1:], len(order)], strict=True):
            self._writers[number].write_table(rows.slice(start, end - start))
        self._pending, self._size = [], 0


class Scratch:
    """Arrays with an entry per pair, prompt or judgment, in files of a folder.

    The system pages in what is read of them and may page it out again: the memory that a build needs does not grow with
    them. What a step has touched stays mapped until `let_go`.

    Args:
        folder: Where the files go; None: arrays stay in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()

    def empty(self, shape: int | tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
        """An array of zeros."""
        if self.folder is None or np.prod(shape) == 0:
            return np.zeros(shape, dtype)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            return self._kept(np.memmap(file, dtype, "w+", shape=shape))

    def mapped(self, path: Path, dtype: np.typing.DTypeLike) -> np.ndarray:
        """A file that is there already, as an array to read."""
        return self._kept(np.memmap(path, dtype, "r")) if path.stat().st_size else np.zeros(0, dtype)

    def let_go(self) -> None:
        """Where many pages are mapped, give them back to the system, which keeps or writes them; nothing is lost."""
        if _mapped_bytes() >= MOST_MAPPED:
            for one in self._maps:
                one.madvise(mmap.MADV_DONTNEED)

    def _kept(self, array: np.memmap) -> np.ndarray:
        self._maps.add(array._mmap)  # noqa: SLF001
        return np.asarray(array)

    def full(self, count: int, value: float, dtype: np.typing.DTypeLike) -> np.ndarray:
        """An array of one value."""
        array = self.empty(count, dtype)
        array[:] = value
        return array

    def rows(self, dtype: np.dtype) -> "RowFile":
        """An empty file of records."""
        return RowFile(self, self.folder, dtype)


class RowFile:
    """Records of one type end to end in a file: appended, and read by their places; none of it stays in memory."""

    def __init__(self, scratch: Scratch, folder: Path | None, dtype: np.dtype) -> None:
        self.dtype, self._scratch = dtype, scratch
        self._file: BinaryIO = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __del__(self) -> None:
        self._file.close()

    def append(self, rows: np.ndarray) -> None:
        """Add records at the end."""
        assert rows.dtype == self.dtype
        rows.tofile(self._file)
        self._count += len(rows)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The records of the given places."""
        size = self.dtype.itemsize
        data = bytearray((stop - start) * size)
        view, at = memoryview(data), 0
        while at < len(data):
            at += os.preadv(self._file.fileno(), [view[at:]], start * size + at)
        return np.frombuffer(data, self.dtype)

    def mapped(self) -> np.ndarray:
        """All records so far, as an array of the scratch."""
        array = self._scratch.empty(self._count, self.dtype)
        for some in slices(self._count):
            array[some] = self.read(some.start, some.stop)
        return array


def slices(count: int, size: int = 1 << 20) -> Iterator[slice]:
    """The places below `count`, some at a time."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def stable_order(keys: Callable[[slice], np.ndarray], count: int, scratch: Scratch) -> np.ndarray:
    """The places below `count` by ascending keys, of which there are few distinct; equal ones in their order, int32.

    Args:
        keys: Gives the keys of some places, int64; what has a negative one is left out.
        count: How many there are.
        scratch: Where the result lies.
    """
    sizes: Counter[int] = Counter()
    for some in slices(count):
        found, hits = np.unique(keys(some), return_counts=True)
        sizes.update(dict(zip(found.tolist(), hits.tolist(), strict=True)))
    wanted = sorted(key for key in sizes if key >= 0)
    starts = dict(zip(wanted, itertools.accumulate((sizes[key] for key in wanted), initial=0), strict=False))
    order = scratch.empty(sum(sizes[key] for key in wanted), np.int32)
    for some in slices(count):
        own = keys(some)
        by_key = np.argsort(own, kind="stable")
        found, first = np.unique(own[by_key], return_index=True)
        for key, start, end in zip(found.tolist(), first, [*first[1:], len(own)], strict=True):
            if key >= 0:
                order[starts[key] : starts[key] + end - start] = some.start + by_key[start:end]
                starts[key] += end - start
    return order


def _mapped_bytes() -> int:
    """How much of this process's memory is pages of files; where the system does not tell, as much as there may be."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[2]) * mmap.PAGESIZE
    except OSError:
        return MOST_MAPPED
