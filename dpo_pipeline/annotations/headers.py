"""Which row of a sheet names its columns, where titles stand above it, and why a row of names may not do."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from dpo_pipeline.annotations.encodings import guess_encoding, not_utf8
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable

MAX_COLUMNS = 2_000
LOOKED_AT_ROWS = 20
"""Rows looked at to find the one that names the columns."""
LEAST_ROWS = 3
"""Of fewer rows nobody can say how many cells they usually fill."""
LONGEST_NAME = 100


def header_place(rows: Sequence[Sequence[Any]]) -> int:
    """Which of the first rows of a sheet names its columns: the first, unless titles stand above it.

    A title fills less than half as many cells as rows usually do here; a row of groups stands above names that repeat
    under each group. The row below them must be made of names: short texts, none of them a number.

    >>> header_place([["Batch 12", None, None], ["prompt", "a", "b"], ["Hi", "x", "y"], ["Ho", "x", "y"]])
    1
    """
    filled = [sum(not is_blank(cell) for cell in row) for row in rows]
    counts = [count for count in filled if count]
    usual = median(counts) if len(counts) >= LEAST_ROWS else 0
    place = next((at for at, count in enumerate(filled) if count and 2 * count >= usual), 0)
    if place + 1 < len(rows) and _are_groups(rows[place], rows[place + 1]):
        place += 1
    return place if all(_is_name(cell) for cell in rows[place]) else 0


def with_groups(header: Sequence[str], above: Sequence[Any]) -> list[str]:
    """The names, those that stand there twice told apart by the cells above them, which span what follows.

    >>> with_groups(["id", "Text", "Score", "Text", "Score"], ["", "Response 1", "", "Response 2", ""])
    ['id', 'Response 1 Text', 'Response 1 Score', 'Response 2 Text', 'Response 2 Score']
    """
    names, group = list(header), ""
    for at, name in enumerate(header):
        over = above[at] if at < len(above) else None
        group = group if is_blank(over) else str(over).strip()
        if group and name and header.count(name) > 1:
            names[at] = f"{group} {name}"
    return names


def header_problem(header: Sequence[str]) -> Unusable | None:
    """Why rows cannot be told apart by this header, or None."""
    if len(header) > MAX_COLUMNS:
        return Unusable(Reason.WRONG_CELL_COUNT, f"{len(header)} columns; at most {MAX_COLUMNS} are read")
    joined = "".join(header)
    if is_undecodable(joined):
        return not_utf8("the header", bytes_of(header))
    if "\0" in joined:
        wide = (guess_encoding(bytes_of(header)) or "").startswith("utf-16")
        return (
            not_utf8("the header", bytes_of(header))
            if wide
            else Unusable(Reason.NUL_CHARACTER, "the header holds a NUL character")
        )
    repeated = {name for name in header if name and header.count(name) > 1}
    if repeated:
        return Unusable(Reason.DUPLICATE_KEY, f"the header names {min(repeated)[:60]!r} twice")
    return None


def above_header(cells: Sequence[Any]) -> Unusable:
    """A row that stands above the names of the columns."""
    said = " ".join(str(cell).strip() for cell in cells if not is_blank(cell))
    return Unusable(Reason.ABOVE_HEADER, f"it says {said[:100]!r}")


def header_again() -> Unusable:
    """A row that is the header once more."""
    return Unusable(Reason.REPEATED_HEADER, "the names of the columns once more")


def no_header(stated: int) -> Unusable:
    """A sheet that ends above the row that `drop.yaml` calls the header."""
    return Unusable(Reason.EMPTY_FILE, f"drop.yaml says that row {stated} names the columns; there is no such row")


def bytes_of(cells: Sequence[str]) -> bytes:
    """The bytes of a row as they came, as far as is needed to guess their encoding."""
    return " ".join(cells)[:10_000].encode("utf-8", "surrogateescape")


def is_undecodable(text: str) -> bool:
    """Whether bytes that are no UTF-8 were carried along as surrogates."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def is_blank(cell: Any) -> bool:
    """Whether nothing can be seen in a cell."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _are_groups(row: Sequence[Any], below: Sequence[Any]) -> bool:
    """Whether a row names groups of the columns that the row below names: `Response A | | Response B | `."""
    names = [str(cell).strip() for cell in below if not is_blank(cell)]
    unnamed = sum(is_blank(cell) and not is_blank(name) for cell, name in zip(row, below, strict=False))
    return unnamed > 1 and len(set(names)) < len(names) and all(_is_name(cell) for cell in below)


def _is_name(cell: Any) -> bool:
    if is_blank(cell):
        return True
    return isinstance(cell, str) and len(cell) <= LONGEST_NAME and not cell.strip().lstrip("-").isdecimal()
