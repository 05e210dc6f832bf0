"""Parquet the same way everywhere: described columns, deterministic bytes, row groups fit for streaming."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_ROWS = 20_000

MESSAGES = pa.list_(
    pa.struct([pa.field("role", pa.string(), nullable=False), pa.field("content", pa.string(), nullable=False)])
)


def column(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    """A column whose description travels inside the Parquet file and into the Dagster UI."""
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


def table_schema(name: str, version: int, columns: list[pa.Field]) -> pa.Schema:
    """A schema that carries its own name and version."""
    return pa.schema(columns, metadata={"table": name, "version": str(version)})


def describe(schema: pa.Schema) -> list[Mapping[str, str]]:
    """Name, type and description of each column, for people."""
    return [
        {
            "name": field.name,
            "type": str(field.type),
            "description": (field.metadata or {}).get(b"description", b"").decode(),
            "nullable": "yes" if field.nullable else "no",
        }
        for field in schema
    ]


def open_writer(path: Path, schema: pa.Schema, *, unique: Collection[str] = ()) -> pq.ParquetWriter:
    """A writer with the house's options; equal batches give equal bytes under one pyarrow version.

    Args:
        path: File to write.
        schema: Its schema.
        unique: Columns whose values hardly ever repeat (identities, texts): a dictionary of them only takes time.
    """
    repeating = [leaf for field in schema if field.name not in unique for leaf in _leaves(field.type, field.name)]
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        write_page_index=True,
        use_dictionary=repeating if unique else True,  # pyright: ignore[reportArgumentType] (pyarrow takes names)
    )


def _leaves(kind: pa.DataType, path: str) -> list[str]:
    """What Parquet calls the columns of numbers and texts that a column of a type is made of."""
    if pa.types.is_list(kind):
        return _leaves(kind.value_type, f"{path}.list.element")
    if pa.types.is_struct(kind):
        return [leaf for part in kind for leaf in _leaves(part.type, f"{path}.{part.name}")]
    return [path]


class RowGroups:
    """A file being written in row groups of one size, however its rows come in: the same rows give the same bytes.

    Args:
        path: File to write.
        schema: Its schema.
        unique: As for `open_writer`.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, unique: Collection[str] = ()) -> None:
        self._writer, self._schema = open_writer(path, schema, unique=unique), schema
        self._pending: list[pa.Table] = []
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._count:
            self._write(self._count)
        self._writer.close()

    def write(self, columns: Mapping[str, pa.Array]) -> None:
        """Add rows, given as columns by name."""
        table = pa.Table.from_arrays([columns[field.name] for field in self._schema], schema=self._schema)
        self._pending.append(table)
        self._count += len(table)
        while self._count >= ROW_GROUP_ROWS:
            self._write(ROW_GROUP_ROWS)

    def _write(self, count: int) -> None:
        rows = pa.concat_tables(self._pending)
        # In one piece: where a table's chunks end would show in the file's pages.
        self._writer.write_table(rows.slice(0, count).combine_chunks(), row_group_size=ROW_GROUP_ROWS)
        self._pending, self._count = [rows.slice(count)], self._count - count


def write_table(path: Path, table: pa.Table) -> None:
    """Write a whole table with the house's options."""
    with open_writer(path, table.schema) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)


def preview(path: Path, *, rows: int = 5, width: int = 160) -> list[dict[str, str]]:
    """The first rows of a Parquet file as short texts, for a person to glance at.

    Args:
        path: The Parquet file.
        rows: How many rows at most.
        width: Longest text of one cell, in characters; a longer one ends in an ellipsis.
    """
    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=rows), None)
    return (
        []
        if batch is None
        else [{name: _cell(value, width) for name, value in row.items()} for row in batch.to_pylist()]
    )


def columns_of(path: Path) -> list[Mapping[str, str]]:
    """Name, type and description of each column of a Parquet file."""
    return describe(pq.read_schema(path))


def row_count(path: Path) -> int:
    """How many rows a Parquet file holds, from its footer."""
    return pq.read_metadata(path).num_rows


def _cell(value: object, width: int) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= width else text[: width - 1] + "…"
