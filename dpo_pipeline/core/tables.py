"""Parquet the same way everywhere: described columns, deterministic bytes, row groups fit for streaming."""

from collections.abc import Mapping
from pathlib import Path

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


def open_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer with the house's options; equal batches give equal bytes under one pyarrow version."""
    return pq.ParquetWriter(path, schema, compression="zstd", write_page_index=True)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a whole table with the house's options."""
    with open_writer(path, table.schema) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
