"""Reads a folder of files the way the pipeline does, and hands back plain rows."""

import json
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from dpo_pipeline.annotations.read import read_drop
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.core.metrics import Quiet


def _read_folder(files, out, *, drop="drop", settings=None, key=b"test key", reporter=None):
    """Read `files` (a raw_annotations' files/ folder lies under its parent) into tables under `out`."""
    folders = {name: out / name for name in ("judgments", "rejected", "demonstrations")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    outcomes = read_drop(
        files.parent,
        drop=drop,
        settings=settings or AnnotationSettings(),
        pseudonym_key=key,
        reporter=reporter or Quiet(),
        **folders,
    )
    tables = {
        "judgments": pq.read_table(folders["judgments"] / "judgments.parquet"),
        "rejected": pq.read_table(folders["rejected"] / "rejected_records.parquet"),
        "demonstrations": pq.read_table(folders["demonstrations"] / "demonstrations.parquet"),
    }
    for table in tables.values():
        table.validate(full=True)
    return SimpleNamespace(
        outcomes=outcomes,
        books=outcomes.books,
        per_file=json.loads((folders["rejected"] / "books.json").read_text())["files"],
        tables=tables,
        folders=folders,
        **{name: table.to_pylist() for name, table in tables.items()},
    )


@pytest.fixture
def read_folder():
    """Reads a folder that exists already: `read_folder(files, out)`."""
    return _read_folder


@pytest.fixture
def read(tmp_path):
    """Reads files given by name and content; every call gets a folder of its own."""
    count = 0

    def read_files(files, **options):
        nonlocal count
        count += 1
        folder = tmp_path / f"raw{count}" / "files"
        folder.mkdir(parents=True)
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return _read_folder(folder, tmp_path / f"out{count}", **options)

    return read_files
