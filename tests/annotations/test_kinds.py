"""Every kind of file, plain, compressed or in an archive, gives the same rows; a format may be stated or recognised."""

import bz2
import csv
import gzip
import io
import json
import lzma
import shutil
import tarfile
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from dpo_pipeline.annotations.registry import FORMATS, recognise
from dpo_pipeline.annotations.rules import Rules

GOLDENS = Path(__file__).parent / "goldens"
ROWS = [
    {"prompt": 'Say "hi", please.', "chosen": "Hi, you.\nAnd welcome.", "rejected": "No; never."},
    {"prompt": "Wie heißt du?", "chosen": "Ich bin ein Modell.", "rejected": "Das sage ich nicht, 你好."},
]


def as_sheet(delimiter):
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return stream.getvalue().encode()


def as_workbook():
    book, stream = openpyxl.Workbook(), io.BytesIO()
    for row in (list(ROWS[0]), *(list(row.values()) for row in ROWS)):
        book.active.append(row)
    book.save(stream)
    return stream.getvalue()


def as_parquet():
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), stream)
    return stream.getvalue()


LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()
KINDS = {
    ".json": json.dumps(ROWS, indent=2).encode(),
    ".jsonl": LINES,
    ".ndjson": LINES + b"\r\n",
    ".csv": as_sheet(","),
    ".tsv": as_sheet("\t"),
    ".xlsx": as_workbook(),
    ".parquet": as_parquet(),
}


def zipped(name, content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def tarred(name, content):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


WRAPPERS = {
    "": lambda name, content: (name, content),
    ".gz": lambda name, content: (f"{name}.gz", gzip.compress(content)),
    ".zst": lambda name, content: (f"{name}.zst", zstandard.ZstdCompressor().compress(content)),
    ".bz2": lambda name, content: (f"{name}.bz2", bz2.compress(content)),
    ".xz": lambda name, content: (f"{name}.xz", lzma.compress(content)),
    ".zip": lambda name, content: ("drop.zip", zipped(name, content)),
    ".tar.gz": lambda name, content: ("drop.tar.gz", tarred(name, content)),
    ".gz in .zip": lambda name, content: ("drop.zip", zipped(f"{name}.gz", gzip.compress(content))),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_rows(read, kind, wrapper):
    name, content = WRAPPERS[wrapper](f"export{kind}", KINDS[kind])
    result = read({name: content})
    assert [(row["prompt"][0]["content"], row["response_a"], row["response_b"]) for row in result.judgments] == [
        tuple(row.values()) for row in ROWS
    ]
    assert [row["record_number"] for row in result.judgments] == [1, 2]
    assert result.rejected == []


UNSTATED = sorted(path for path in GOLDENS.iterdir() if not (path / "drop.yaml").exists())


def without(names, row):
    return {name: value for name, value in row.items() if name not in names}


@pytest.mark.parametrize("golden", UNSTATED, ids=lambda path: path.name)
def test_a_format_that_is_stated_reads_what_is_recognised(golden, tmp_path, read_folder):
    results = []
    for stated in (False, True):
        folder = tmp_path / str(stated) / "files"
        folder.mkdir(parents=True)
        for path in golden.iterdir():
            if path.name not in {"source.txt", "expected.json"}:
                shutil.copy(path, folder)
        if stated:
            (name,) = set(results[0].outcomes.judgments.facts["formats"].values())
            (folder / "drop.yaml").write_text(f"format: {name}\n")
        results.append(read_folder(folder, tmp_path / f"out {stated}"))
    recognised, stated = results
    assert stated.judgments == recognised.judgments
    assert stated.demonstrations == recognised.demonstrations
    assert stated.rejected == recognised.rejected


def records_of(path):
    if path.suffix in {".csv", ".tsv"}:
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ","))
    text = path.read_text(encoding="utf-8-sig")
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("golden", UNSTATED, ids=lambda path: path.name)
def test_the_first_whole_record_alone_tells_the_format(golden):
    """A drop may hold one record; what it is read as must not hang on how many there are."""
    expected = json.loads((golden / "expected.json").read_text(encoding="utf-8"))
    for name, source in expected["formats"].items():
        first = next(
            row["record_number"] for row in (*expected["judgments"], *expected["demonstrations"]) if row["file"] == name
        )
        found = recognise([records_of(golden / name)[first - 1]], Rules())
        assert found is FORMATS[source], name


def test_every_format_has_a_golden_file():
    read = {
        source
        for path in GOLDENS.glob("*/expected.json")
        for source in json.loads(path.read_text(encoding="utf-8"))["formats"].values()
    }
    # `outlier` and `acme_labels` are names that goldens' drop.yaml give to columns and to Label Studio.
    assert set(FORMATS) - read == set()
