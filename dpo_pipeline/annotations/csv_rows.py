"""CSV and TSV as records: cells are texts, a broken row costs itself, and no row fills the memory.

Number 1 is the first row below the header.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from dpo_pipeline.annotations.encodings import guess_encoding, not_utf8
from dpo_pipeline.annotations.json_records import Entry
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable
from dpo_pipeline.annotations.streams import Bounded

MAX_COLUMNS = 2_000
_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?\r?\n')
"""What Excel writes, and reads, before the header."""


def read_csv(stream: Bounded, *, max_record_bytes: int, delimiter: str | None = None) -> Iterator[Entry]:
    """The rows of a CSV file; the delimiter is what a first line `sep=;` says, else the most frequent in the header."""
    number = 0
    # The limit is the csv module's own and global; a cell over it is refused before it grows further.
    previous = csv.field_size_limit(max_record_bytes)
    try:
        text = io.TextIOWrapper(
            io.BufferedReader(stream, 1 << 20), encoding="utf-8", errors="surrogateescape", newline=""
        )
        lines = _Lines(text, max_record_bytes)
        first = next((line for line in lines if line.strip()), "").removeprefix("\ufeff")
        if said := _SEPARATOR.fullmatch(first):
            delimiter, first = said[1], next(lines, "")
        if not first:
            return
        rows = csv.reader(chain([first], lines), delimiter=delimiter or _delimiter_of(first))
        header = next(rows)
        problem = header_problem(header)
        if problem is not None:
            yield 1, problem, first[:1_000]
            return
        for number, value, raw in _rows(rows, header, lines):
            yield number, value, raw
    except csv.Error as error:
        yield number + 1, Unusable(Reason.INVALID_CSV, str(error)), b""
    except _TooLong as problem:
        yield number + 1, Unusable(Reason.RECORD_TOO_LONG, str(problem)), problem.beginning
    except Unusable as problem:
        yield number + 1, problem, b""
    finally:
        csv.field_size_limit(previous)


class _TooLong(Exception):  # noqa: N818 (control flow inside this module)
    """A row is longer than rows may be; the line that made it so was skipped."""

    def __init__(self, limit: int, beginning: str) -> None:
        super().__init__(f"longer than {limit} characters")
        self.beginning = beginning


class _Lines(Iterator[str]):
    """The lines of a file; one that makes a row too long is skipped to its end without being held.

    Attributes:
        taken: Characters given since this was set to 0, as the reader of rows does before each.
        number: The line given last.
    """

    def __init__(self, text: io.TextIOWrapper, limit: int) -> None:
        self._text, self._limit = text, limit
        self.taken = self.number = 0

    def __next__(self) -> str:
        line = self._text.readline(self._limit)
        if not line:
            raise StopIteration
        self.number += 1
        self.taken += len(line)
        if self.taken > self._limit or (len(line) == self._limit and not line.endswith(("\n", "\r"))):
            piece = line
            while piece and not piece.endswith(("\n", "\r")):
                piece = self._text.readline(self._limit)
            raise _TooLong(self._limit, line[:1_000])
        return line


def _rows(rows: Iterator[list[str]], header: list[str], lines: _Lines) -> Iterator[Entry]:
    """The rows below the header; a blank line is none."""
    number = 0
    while True:
        lines.taken = 0
        try:
            row = next(rows)
        except StopIteration:
            return
        except _TooLong as problem:
            number += 1
            yield number, Unusable(Reason.RECORD_TOO_LONG, str(problem)), problem.beginning
            continue
        except csv.Error as error:
            number += 1
            yield number, Unusable(Reason.INVALID_CSV, f"near line {lines.number}: {error}"), b""
            continue
        if row:
            number += 1
            value = _row(header, row)
            yield number, value, value if isinstance(value, dict) else dict(zip(header, row, strict=False))


def _delimiter_of(header: str) -> str:
    return max(",;\t|", key=header.count)


def header_problem(header: Sequence[str]) -> Unusable | None:
    """Why rows cannot be told apart by this header, or None."""
    if len(header) > MAX_COLUMNS:
        return Unusable(Reason.WRONG_CELL_COUNT, f"{len(header)} columns; at most {MAX_COLUMNS} are read")
    joined = "".join(header)
    if not joined.isascii() and _undecodable(joined):
        return not_utf8("the header", _bytes_of(header))
    if "\0" in joined:
        wide = (guess_encoding(_bytes_of(header)) or "").startswith("utf-16")
        return (
            not_utf8("the header", _bytes_of(header))
            if wide
            else Unusable(Reason.NUL_CHARACTER, "the header holds a NUL character")
        )
    repeated = {name for name in header if name and header.count(name) > 1}
    if repeated:
        return Unusable(Reason.DUPLICATE_KEY, f"the header names {min(repeated)[:60]!r} twice")
    return None


def _row(header: Sequence[str], row: Sequence[str]) -> Any:
    if len(row) != len(header):
        return Unusable(Reason.WRONG_CELL_COUNT, f"{len(row)} cells, the header has {len(header)}")
    joined = "".join(row)
    if not joined.isascii() and _undecodable(joined):
        return not_utf8("a cell", _bytes_of(row))
    if "\0" in joined:
        return Unusable(Reason.NUL_CHARACTER, "a cell holds a NUL character")
    return dict(zip(header, row, strict=True))


def _bytes_of(cells: Sequence[str]) -> bytes:
    """The bytes of a row as they came, as far as is needed to guess their encoding."""
    return " ".join(cells)[:10_000].encode("utf-8", "surrogateescape")


def _undecodable(text: str) -> bool:
    """Whether bytes that are no UTF-8 were carried along as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
