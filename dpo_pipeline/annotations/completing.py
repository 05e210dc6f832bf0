"""Cells that a sheet does not repeat: of merged cells only the first holds the value; a sheet's name may be one."""

from collections.abc import Iterator, Sequence

from dpo_pipeline.annotations.headers import is_blank
from dpo_pipeline.annotations.json_records import Entry


def filled_down(entries: Iterator[Entry], columns: Sequence[str]) -> Iterator[Entry]:
    """The rows, an empty cell of these columns holding what stands above it.

    Below a row that cannot be read nothing is filled until a row has the value itself: what stood in the broken row is
    not known, and the value above it belongs to another record.

    >>> rows = [{"q": "Hi", "a": "x"}, {"q": None, "a": "y"}]
    >>> [row for _, row, _ in filled_down(((1, row, row) for row in rows), ["q"])]
    [{'q': 'Hi', 'a': 'x'}, {'q': 'Hi', 'a': 'y'}]
    """
    last: dict[str, object] = {}
    for number, value, raw in entries:
        if not isinstance(value, dict):
            if number:  # what stands above the header is no row
                last = {}
            yield number, value, raw
            continue
        empty = [name for name in columns if is_blank(value.get(name))]
        last |= {name: value[name] for name in columns if name not in empty}
        found = {name: last[name] for name in empty if name in last}
        yield number, {**value, **found} if found else value, raw


def with_sheet_name(entries: Iterator[Entry], column: str, name: str) -> Iterator[Entry]:
    """The rows, each with its sheet's name in one more column; a column of that name that is there already stays."""
    for number, value, raw in entries:
        yield number, {column: name, **value} if isinstance(value, dict) else value, raw
