"""CSV and TSV as records: cells are texts, a broken row costs itself, and no row fills the memory.

Number 1 is the first row below the header.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from dpo_pipeline.annotations.csv_lines import Lines, TooLong
from dpo_pipeline.annotations.encodings import not_utf8
from dpo_pipeline.annotations.headers import (
    LOOKED_AT_ROWS,
    above_header,
    bytes_of,
    header_again,
    header_place,
    header_problem,
    is_undecodable,
    no_header,
    with_groups,
)
from dpo_pipeline.annotations.json_records import Entry
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable
from dpo_pipeline.annotations.streams import Bounded

DELIMITERS = ",;\t|"
_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?\r?\n')
"""What Excel writes, and reads, before the header."""
ROWS_BEFORE = 10
"""Rows of one line each after which rows are taken to be lines."""


def read_csv(
    stream: Bounded, *, max_record_bytes: int, delimiter: str | None = None, header_row: int | None = None
) -> Iterator[Entry]:
    """The rows of a CSV file; the delimiter is what a first line `sep=;` says, else the most frequent in the header.

    Args:
        stream: The file, in UTF-8.
        max_record_bytes: Longest row, in characters.
        delimiter: What stands between cells; absent: found.
        header_row: Which row names the columns, from 1; absent: the first, but for titles above it.
    """
    number = 0
    # The limit is the csv module's own and global; a cell over it is refused before it grows further.
    previous = csv.field_size_limit(max_record_bytes)
    try:
        text = io.TextIOWrapper(
            io.BufferedReader(stream, 1 << 20), encoding="utf-8", errors="surrogateescape", newline=""
        )
        lines = Lines(text, max_record_bytes)
        for number, value, raw in _entries(lines, delimiter, header_row):
            yield number, value, raw
    except csv.Error as error:
        yield number + 1, Unusable(Reason.INVALID_CSV, str(error)), b""
    except TooLong as problem:
        yield number + 1, Unusable(Reason.RECORD_TOO_LONG, str(problem)), problem.beginning
    except Unusable as problem:
        yield number + 1, problem, b""
    finally:
        csv.field_size_limit(previous)


def _entries(lines: Lines, delimiter: str | None, header_row: int | None) -> Iterator[Entry]:
    """What stands above the header, then the rows below it."""
    head = lines.look(max(LOOKED_AT_ROWS, header_row or 0))
    if head and (said := _SEPARATOR.fullmatch(head[0])):
        delimiter = said[1]
        next(lines)
        head = head[1:]
    if not any(line.strip() for line in head):
        return
    delimiter, place = _layout(head, delimiter, header_row)
    rows = csv.reader(lines, delimiter=delimiter)
    above: list[str] = []
    for row in islice(rows, place):
        above = row or above
        if any(row):
            yield 0, above_header(row), row
    lines.start_row()
    header = next((row for row in rows if any(row)), None)
    if header is None:
        yield 0, no_header(header_row or 1), b""
        return
    header = with_groups(header, above)
    problem = _unclosed(lines.number - lines.held + 1) if lines.is_open else header_problem(header)
    if problem is None:
        yield from _rows(header, lines, delimiter)
    else:
        yield 1, problem, delimiter.join(header)[:1_000]


def _layout(head: list[str], delimiter: str | None, header_row: int | None) -> tuple[str, int]:
    """The delimiter, and how many rows stand above the header."""
    if header_row is not None:
        stated = head[header_row - 1] if header_row <= len(head) else head[0]
        return delimiter or _most_frequent(stated), header_row - 1
    first = next(line for line in head if line.strip())
    found = delimiter or _most_frequent(first)
    place = header_place(_parsed(head, found))
    if delimiter is None and (place or not any(first.count(one) for one in DELIMITERS)):
        # What stands above the header need not be delimited; what its rows agree on is what delimits them.
        found = max(DELIMITERS, key=lambda one: _agreement(_parsed(head, one)))
        place = header_place(_parsed(head, found))
    return found, place


def _most_frequent(line: str) -> str:
    return max(DELIMITERS, key=line.count)


def _parsed(head: list[str], delimiter: str) -> list[list[str]]:
    """The first lines as rows; where a quote is never closed in a file no longer than that, each line is one."""
    try:
        rows = list(csv.reader(head, delimiter=delimiter))
    except csv.Error:
        return [[line] for line in head]
    # What an open quote swallowed ends with the last line's end, which a cell that was closed never does.
    is_open = len(head) < LOOKED_AT_ROWS and any(cell.endswith(("\n", "\r")) for row in rows[-1:] for cell in row[-1:])
    return [line.rstrip("\r\n").replace('"', "").split(delimiter) for line in head] if is_open else rows


def _agreement(rows: list[list[str]]) -> tuple[int, int]:
    """How many rows have as many cells as most have, at least two, and how many cells those are."""
    sizes = Counter(len(row) for row in rows if len(row) > 1)
    return max(((count, size) for size, count in sizes.items()), default=(0, 0))


def _rows(header: list[str], lines: Lines, delimiter: str) -> Iterator[Entry]:
    """The rows below the header; a blank line is none."""
    number, width = 0, len(header)
    whole, is_spread = 0, False  # rows that had their cells, and whether one of them was more than a line
    strict, lenient = (csv.reader(lines, delimiter=delimiter, strict=strictly) for strictly in (True, False))
    while True:
        lines.start_row()
        row = _next_row(strict, lenient, lines)
        if row is None:
            return
        if row == []:
            continue
        number += 1
        if isinstance(row, list) and len(row) != width and lines.held > 1 and any('"' in cell for cell in row):
            row = _Unclosed()
        if isinstance(row, csv.Error):
            yield number, Unusable(Reason.INVALID_CSV, f"near line {lines.number}: {row}"), b""
        elif isinstance(row, (TooLong, _Unclosed)):
            plain = whole >= ROWS_BEFORE and not is_spread
            problem, line = _given_up(row, lines, width=width, delimiter=delimiter, is_one_line_a_row=plain)
            yield number, problem, _in_place(header, line, delimiter)
        elif row == header:
            yield number, header_again(), row
        else:
            value = _row(header, row)
            if isinstance(value, dict):
                whole, is_spread = whole + 1, is_spread or lines.held > 1
                yield number, value, value
            else:
                shown = row if len(row) == width else row[:1]
                yield number, value, dict(zip(header, shown, strict=False))


def _in_place(header: Sequence[str], line: str, delimiter: str) -> dict[str, str]:
    """The cells of a broken line that stand under their own names, so that what names a person is known by its name."""
    return dict(zip(header, line.partition('"')[0].split(delimiter)[:-1], strict=False))


class _Unclosed:
    """In place of a row: a quote in it should have been closed before."""


def _next_row(
    strict: Iterator[list[str]], lenient: Iterator[list[str]], lines: Lines
) -> list[str] | TooLong | csv.Error | _Unclosed | None:
    """The next row, or what is in its place; None at the end.

    A quote where none may stand (`5" screen`, `"so" he said`) is let pass in a row of one line. In one of several it is
    the first quote there is behind one that was never closed: `"p,a,b` and `"q","c","d"` below it were one row else.
    """
    try:
        return next(strict, None)
    except TooLong as error:
        return error
    except csv.Error as error:
        if lines.is_open or lines.held > 1:
            return _Unclosed()
        said = error
    lines.give_row_again()
    try:
        row = next(lenient, None)
    except TooLong as error:
        return error
    except csv.Error:
        return said
    return _Unclosed() if lines.is_open or lines.held > 1 else row


def _given_up(
    row: TooLong | _Unclosed, lines: Lines, *, width: int, delimiter: str, is_one_line_a_row: bool
) -> tuple[Unusable, str]:
    """Why a row cannot be read, and its first line; the reading goes on where rows can be told again."""
    if isinstance(row, TooLong) and lines.held < 2:
        return Unusable(Reason.RECORD_TOO_LONG, str(row)), row.beginning
    first, number, more = lines.give_up_first(width=width, delimiter=delimiter, is_one_line_a_row=is_one_line_a_row)
    after = "1 line after it is" if more == 1 else f"{more:,} lines after it are"
    lost = f"; {after} given up with it" if more else ""
    if isinstance(row, TooLong) and more:
        return Unusable(Reason.RECORD_TOO_LONG, f"{row}, from line {number} on{lost}"), first
    return _unclosed(number, lost), first


def _unclosed(number: int, lost: str = "") -> Unusable:
    return Unusable(Reason.INVALID_CSV, f"a quote opened in line {number} is not closed where the row should end{lost}")


def _row(header: Sequence[str], row: Sequence[str]) -> Any:
    if len(row) != len(header):
        return Unusable(Reason.WRONG_CELL_COUNT, f"{len(row)} cells, the header has {len(header)}")
    joined = "".join(row)
    if is_undecodable(joined):
        return not_utf8("a cell", bytes_of(row))
    if "\0" in joined:
        return Unusable(Reason.NUL_CHARACTER, "a cell holds a NUL character")
    return dict(zip(header, row, strict=True))
