"""XLSX sheet by sheet and Parquet row by row, as records.

Every reader yields `(number, value, raw)` like those of `json_records`; number 1 is the first row below the header.
"""

import io
import zipfile
from collections.abc import Iterator, Sequence
from itertools import chain, islice, zip_longest
from typing import Any

from dpo_pipeline.annotations.headers import (
    LOOKED_AT_ROWS,
    above_header,
    header_again,
    header_place,
    header_problem,
    no_header,
    with_groups,
)
from dpo_pipeline.annotations.json_records import Entry
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.streams import STREAM_ERRORS, Bounded

MAX_IN_MEMORY_BYTES = 512_000_000
"""XLSX and Parquet need to be read back and forth; members of archives are held in memory up to this size."""
PARQUET_BATCH_ROWS = 1_000


def sheet_names(stream: Bounded, settings: AnnotationSettings) -> tuple[Any, list[str]]:
    """An open workbook and the names of its sheets.

    Raises:
        Unusable: If it is no workbook, or would unpack to too much.
    """
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    held = in_memory(stream)
    try:
        with zipfile.ZipFile(held) as archive:
            size = sum(member.file_size for member in archive.infolist())
        packed = max(1, held.getbuffer().nbytes)
        if size > settings.max_file_bytes or (size > 16_000_000 and size > packed * settings.max_compression_ratio):
            raise Unusable(Reason.DECOMPRESSION_BOMB, f"{packed} bytes would unpack to {size}")
        book = openpyxl.load_workbook(held, read_only=True, data_only=False, keep_links=False)
    except (*STREAM_ERRORS, InvalidFileException, KeyError, ValueError, TypeError, SyntaxError) as error:
        raise Unusable(Reason.UNREADABLE_FILE, f"not an XLSX workbook: {error}") from error
    return book, [sheet.title for sheet in book.worksheets]


def read_sheet(book: Any, name: str, *, header_row: int | None = None) -> Iterator[Entry]:
    """The rows of one sheet below the one that names the columns; empty rows are no records.

    Args:
        book: An open workbook.
        name: The sheet's.
        header_row: Which row names the columns, from 1; absent: the first that is not empty, but for titles above it.
    """
    number = 0
    try:
        sheet = book[name]
        sheet.reset_dimensions()  # what the file claims of its width need not be so
        rows = sheet.iter_rows()
        head = list(islice(rows, max(LOOKED_AT_ROWS, header_row or 0)))
        values = [_values(cells) for cells in head]
        if not any(map(_holds_something, values)):
            return
        place = header_place(values) if header_row is None else header_row - 1
        above: list[Any] = []
        for row in filter(_holds_something, values[:place]):
            above = row
            yield 0, above_header(row), [str(value) for value in row if value is not None]
        if place >= len(values):
            yield 0, no_header(place + 1), b""
            return
        header = with_groups(["" if value is None else str(value) for value in values[place]], above)
        problem = header_problem(header)
        if problem is not None:
            yield 1, problem, header
            return
        for cells in chain(head[place + 1 :], rows):
            row = _values(cells)
            if _holds_something(row):
                number += 1
                yield number, _sheet_row(header, cells, row), dict(zip(header, row, strict=False))
    except (*STREAM_ERRORS, KeyError, ValueError, TypeError, SyntaxError) as error:
        yield number + 1, Unusable(Reason.UNREADABLE_FILE, f"the sheet breaks off: {error}"), b""


def _values(cells: Sequence[Any]) -> list[Any]:
    return [cell.value for cell in cells]


def _holds_something(values: Sequence[Any]) -> bool:
    return any(value is not None for value in values)


def _sheet_row(header: Sequence[str], cells: Sequence[Any], values: list[Any]) -> Any:
    if values[: len(header)] == header:
        return header_again()
    if any(getattr(cell, "data_type", None) == "f" for cell in cells):
        place = next(place for place, cell in enumerate(cells) if getattr(cell, "data_type", None) == "f")
        named = header[place] if place < len(header) else f"column {place + 1}"
        return Unusable(Reason.FORMULA_CELL, f"{named[:60]!r} holds a formula")
    # Rows are as wide as the sheet: a value under no header is one cell too many.
    if any(value is not None for name, value in zip_longest(header, values) if not name):
        return Unusable(Reason.WRONG_CELL_COUNT, "a cell stands under no header")
    padded = values + [None] * (len(header) - len(values))
    return {name: value for name, value in zip(header, padded, strict=False) if name}


def read_parquet(stream: Bounded, settings: AnnotationSettings) -> Iterator[Entry]:
    """The rows of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        table = pq.ParquetFile(pa.BufferReader(in_memory(stream).getbuffer()))
        claimed = sum(table.metadata.row_group(place).total_byte_size for place in range(table.num_row_groups))
        if claimed > settings.max_file_bytes:
            yield 1, Unusable(Reason.FILE_TOO_LARGE, f"it would unpack to {claimed} bytes"), b""
            return
        for batch in table.iter_batches(batch_size=PARQUET_BATCH_ROWS):
            for place in range(batch.num_rows):
                number += 1
                try:
                    value: Any = batch.slice(place, 1).to_pylist()[0]
                except UnicodeDecodeError:
                    value = Unusable(Reason.INVALID_UTF8, "a text is not UTF-8")
                yield number, value, value
    except Unusable as problem:
        yield number + 1, problem, b""
    except (pa.ArrowException, *STREAM_ERRORS, ValueError, KeyError) as error:
        yield number + 1, Unusable(Reason.UNREADABLE_FILE, f"the Parquet file breaks: {str(error)[:120]}"), b""


def in_memory(stream: Bounded) -> io.BytesIO:
    """A stream's bytes, up to a bound.

    Raises:
        Unusable: If there are more, or the stream is broken.
    """
    held = io.BytesIO()
    while block := stream.read(1 << 20):
        held.write(block)
        if held.tell() > MAX_IN_MEMORY_BYTES:
            raise Unusable(Reason.FILE_TOO_LARGE, f"more than {MAX_IN_MEMORY_BYTES} bytes in a file read as a whole")
    held.seek(0)
    return held
