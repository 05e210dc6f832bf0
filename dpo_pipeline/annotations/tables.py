"""Writers of the three tables of a drop: rows gathered as Python values, written as Arrow batches of bounded size."""

import hashlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from dpo_pipeline.annotations.records import Demonstration, Judgment, Turns
from dpo_pipeline.annotations.schemas import DEMONSTRATIONS, DIMENSIONS, JUDGMENTS, REJECTED_RECORDS
from dpo_pipeline.core.tables import MESSAGES, ROW_GROUP_ROWS, open_writer

BATCH_ROWS = 1_000
"""Rows held as Python objects before they become Arrow's, which take a third of the memory."""
BATCH_BYTES, ROW_GROUP_BYTES = 32_000_000, 128_000_000
"""Bounds of the same for records that are far longer than usual."""


class Origin:
    """Where the records of one table of a file come from.

    Args:
        drop: Name of the delivery.
        source: Format or platform the records are read as.
        file: Name inside the drop.
        sha256: Digest of the file's bytes.
    """

    def __init__(self, drop: str, source: str, file: str, sha256: str) -> None:
        self.drop, self.source, self.file, self.sha256 = drop, source, file, sha256
        # Members of one archive share its digest, so the member's name is part of what identifies a record.
        member = file.partition("!")[2]
        self._digest = hashlib.blake2b(f"{sha256}\0{member}\0".encode(), digest_size=16)

    def id_of(self, record_number: int, position: int) -> str:
        """The id of a row: hex of 16 bytes, the same wherever and whenever the file is read."""
        digest = self._digest.copy()
        digest.update(b"%d:%d" % (record_number, position))
        return digest.hexdigest()

    def group_of(self, record_number: int, group: str) -> str:
        """The id of a ranking inside a record."""
        digest = self._digest.copy()
        digest.update(f"{record_number}:group:{group}".encode())
        return digest.hexdigest()


class Pseudonyms:
    """Keyed pseudonyms of annotators: without the key they can be neither computed nor undone.

    Args:
        key: The home's secret, at most 64 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: dict[str, str] = {}

    def of(self, annotator: str | None) -> str | None:
        """The pseudonym: 16 hexadecimal digits; None where the annotator is unknown.

        >>> Pseudonyms(b"secret").of("worker 7") == Pseudonyms(b"secret").of("worker 7") != "worker 7"
        True
        """
        if annotator is None:
            return None
        found = self._known.get(annotator)
        if found is None:
            name = annotator.encode("utf-8", "surrogatepass")
            found = hashlib.blake2b(name, digest_size=8, key=self._key).hexdigest()
            if len(self._known) < 1_000_000:
                self._known[annotator] = found
        return found


class TableFile:
    """One Parquet file being written: rows come in one by one, go out in row groups of `ROW_GROUP_ROWS`.

    Args:
        path: File to write.
        schema: Its schema.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = open_writer(path, schema)
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._rows_in_group = 0
        self._begin_batch([])
        self.row_count = 0

    def add(self, origin: Origin, number: int, row: Any, row_id: str = "", weight: int = 0) -> None:
        """Take one row of about `weight` bytes."""
        if not self._origins or self._origins[-1] is not origin:
            self._origins.append(origin)
        self._origin_of_row.append(len(self._origins) - 1)
        self._numbers.append(number)
        self._ids.append(row_id)
        self._rows.append(row)
        self._weight += weight
        if len(self._rows) == BATCH_ROWS or self._weight > BATCH_BYTES:
            self._end_batch()

    def close(self) -> None:
        """Write what is left; a table without rows is still a whole Parquet file."""
        if self._rows:
            self._end_batch()
        self._end_row_group()
        self._writer.close()

    def columns(self, rows: Sequence[Any]) -> list[pa.Array]:
        """The table's own columns, after those of the origin."""
        raise NotImplementedError

    def _begin_batch(self, origins: list[Origin]) -> None:
        self._origins = origins
        self._origin_of_row: list[int] = []
        self._numbers: list[int] = []
        self._ids: list[str] = []
        self._rows: list[Any] = []
        self._weight = 0

    def _end_batch(self) -> None:
        places = pa.array(self._origin_of_row, pa.int32())
        origins = [
            pa.array([getattr(origin, name) for origin in self._origins], pa.string()).take(places)
            for name in ("drop", "source", "file", "sha256")
        ]
        arrays = [*origins, pa.array(self._numbers, pa.int64()), *self.columns(self._rows)]
        if self._schema.names[0] != "drop":
            arrays.insert(0, pa.array(self._ids, pa.string()))
        self._batches.append(pa.record_batch(arrays, schema=self._schema))
        self.row_count += len(self._rows)
        self._rows_in_group += len(self._rows)
        self._begin_batch([self._origins[-1]])
        is_large = sum(batch.nbytes for batch in self._batches) > ROW_GROUP_BYTES
        if is_large or self._rows_in_group + BATCH_ROWS > ROW_GROUP_ROWS:
            self._end_row_group()

    def _end_row_group(self) -> None:
        if self._batches:
            self._writer.write_table(pa.Table.from_batches(self._batches), row_group_size=ROW_GROUP_ROWS)
            self._batches, self._rows_in_group = [], 0


class JudgmentsFile(TableFile):
    """The table `judgments`; rows are `Judgment`s."""

    def __init__(self, path: Path, pseudonyms: Pseudonyms) -> None:
        super().__init__(path, JUDGMENTS)
        self._pseudonym = pseudonyms.of

    def columns(self, rows: Sequence[Judgment]) -> list[pa.Array]:
        """In the order of the schema."""
        pseudonym = self._pseudonym
        return [
            turns_array([row.prompt for row in rows]),
            pa.array([row.response_a for row in rows], pa.string()),
            pa.array([row.response_b for row in rows], pa.string()),
            pa.array([row.choice for row in rows], pa.string()),
            pa.array([row.strength for row in rows], pa.int8()),
            pa.array([pseudonym(row.annotator) for row in rows], pa.string()),
            pa.array([row.votes for row in rows], pa.int32()),
            _dimensions_array([row.dimensions for row in rows]),
            pa.array([row.justification for row in rows], pa.string()),
            pa.array([row.shown_first for row in rows], pa.string()),
            pa.array([row.seconds for row in rows], pa.float32()),
            pa.array([row.judged_at for row in rows], pa.timestamp("us", tz="UTC")),
            pa.array([row.guideline_version for row in rows], pa.string()),
            pa.array([row.group_id for row in rows], pa.string()),
            pa.array([row.sft_allowed for row in rows], pa.bool_()),
        ]


class DemonstrationsFile(TableFile):
    """The table `demonstrations`; rows are `Demonstration`s."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, DEMONSTRATIONS)

    def columns(self, rows: Sequence[Demonstration]) -> list[pa.Array]:
        """In the order of the schema."""
        return [turns_array([row.messages for row in rows])]


class RejectedFile(TableFile):
    """The table `rejected_records`; rows are (reason, detail, excerpt)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, REJECTED_RECORDS)

    def columns(self, rows: Sequence[tuple[str, str, str]]) -> list[pa.Array]:
        """In the order of the schema."""
        return [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]


def turns_array(conversations: Sequence[Turns]) -> pa.Array:
    """Conversations as a column of messages; built flat, since a dict per message would cost ten times as much."""
    turns = list(chain.from_iterable(conversations))
    fields = [
        pa.array([role for role, _ in turns], pa.string()),
        pa.array([content for _, content in turns], pa.string()),
    ]
    items = pa.StructArray.from_arrays(fields, fields=list(MESSAGES.value_type))
    return pa.ListArray.from_arrays(_offsets(conversations), items, type=MESSAGES)


def _dimensions_array(dimensions: Sequence[tuple[tuple[str, float], ...]]) -> pa.Array:
    pairs = list(chain.from_iterable(dimensions))
    fields = [
        pa.array([name for name, _ in pairs], pa.string()),
        pa.array([strength for _, strength in pairs], pa.float32()),
    ]
    items = pa.StructArray.from_arrays(fields, fields=list(DIMENSIONS.value_type))
    return pa.ListArray.from_arrays(_offsets(dimensions), items, type=DIMENSIONS)


def _offsets(lists: Sequence[Sequence[Any]]) -> pa.Array:
    ends = [0]
    total = 0
    for one in lists:
        total += len(one)
        ends.append(total)
    return pa.array(ends, pa.int32())
