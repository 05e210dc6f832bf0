"""The lines of a CSV file, given again where a quote that is never closed has made one row of many."""

import csv
import io
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

READ_AGAIN = 8
"""How many times its own length a file may be gone through once more for quotes that are never closed."""
READ_AGAIN_FREE = 16_000_000
ROWS_THAT_TELL = 3
"""Rows one after the other, each with the cells it should have, by which rows are told again."""
LINES_THAT_TELL = 5


class TooLong(Exception):  # noqa: N818 (control flow inside the reading of CSV)
    """A row is longer than rows may be."""

    def __init__(self, limit: int, beginning: str) -> None:
        super().__init__(f"longer than {limit} characters")
        self.beginning = beginning


class GivenUp(NamedTuple):
    """The first line of a row that does not end where it should, its number, and how many more are given up with it."""

    first: str
    number: int
    more: int


class Lines(Iterator[str]):
    """The lines of a file; one that is too long by itself is skipped to its end without being held.

    Those of the row that is being read are held, no more of them than a row may be long.

    Attributes:
        number: The line given last.
        is_open: Whether the file ended inside a row.
    """

    def __init__(self, text: io.TextIOWrapper, limit: int) -> None:
        self._text, self._limit = text, limit
        self._again: deque[str] = deque()
        self._row: list[str] = []
        self._taken = self._given_again = self._read = 0
        self.number, self.is_open = 0, False

    def look(self, count: int) -> list[str]:
        """The first lines, which will be given again; a byte order mark is left out."""
        head: list[str] = []
        while len(head) < count and self._read < self._limit and (line := self._text.readline(self._limit)):
            self._read += len(line)
            head.append(line if head else line.removeprefix("\ufeff"))
        self._again.extend(head)
        return head

    def start_row(self) -> None:
        """The next line is the first of a row."""
        self._row, self._taken = [], 0

    def __next__(self) -> str:
        if self._again:
            line = self._again.popleft()
        else:
            line = self._text.readline(self._limit)
            self._read += len(line)
        if not line:
            self.is_open = bool(self._row)
            raise StopIteration
        self.number += 1
        if len(line) == self._limit and not line.endswith(("\n", "\r")):
            self._skip_line()
            line += "\n"
        self._row.append(line)
        self._taken += len(line)
        if self._taken > self._limit:
            raise TooLong(self._limit, self._row[0][:1_000])
        return line

    @property
    def held(self) -> int:
        """Lines of the row that is being read."""
        return len(self._row)

    def give_row_again(self) -> None:
        """Start the row once more."""
        self._give_back(0)
        self.start_row()

    def give_up_first(self, *, width: int, delimiter: str, is_one_line_a_row: bool) -> GivenUp:
        """Give up the first line of a row that does not end where it should, and go on where rows can be told again.

        Where rows are known to be lines, that is the next line. Where cells have lines of their own, the rest of the
        broken row may look like a row: then it is below the first of three rows in a row that are whole.

        Args:
            width: Cells of a row.
            delimiter: What stands between them.
            is_one_line_a_row: Whether every row so far was one line, of enough rows to tell.
        """
        first, *others = self._row
        number = self.number - len(others)
        is_plain = is_one_line_a_row or (
            len(others) >= LINES_THAT_TELL and all(self._is_row(line, width, delimiter) for line in others)
        )
        self._give_back(1)
        more = 0 if is_plain and self._may_read_again() else self._give_up_to_rows(width, delimiter)
        self.start_row()
        self.is_open = False
        return GivenUp(first, number, more)

    def _give_up_to_rows(self, width: int, delimiter: str) -> int:
        """Give up lines to below the first of several whole rows in a row; how many."""
        given_up = 0
        while self._may_read_again():
            lines_of_rows = self._rows_from_here(width, delimiter)
            if lines_of_rows:
                self._give_back(lines_of_rows[0])
                return given_up + lines_of_rows[0]
            if not self._row:
                return given_up
            self._give_back(1)
            given_up += 1
        while self._is_more():
            given_up += 1
        return given_up

    def _rows_from_here(self, width: int, delimiter: str) -> list[int]:
        """How many lines the next rows have, if each has its cells; empty where not. What was read is held."""
        self.start_row()
        rows, sizes = csv.reader(self, delimiter=delimiter, strict=True), list[int]()
        try:
            while len(sizes) < ROWS_THAT_TELL and (row := next(rows, None)) is not None:
                if len(row) != width:
                    return []
                sizes.append(len(self._row) - sum(sizes))
        except (csv.Error, TooLong):
            return []
        return sizes

    @staticmethod
    def _is_row(line: str, width: int, delimiter: str) -> bool:
        try:
            return [len(row) for row in csv.reader([line], delimiter=delimiter, strict=True)] == [width]
        except csv.Error:
            return False

    def _give_back(self, kept: int) -> None:
        """Give again all the lines held but the first of them."""
        others = self._row[kept:]
        self._again.extendleft(reversed(others))
        self.number -= len(others)
        self._given_again += sum(map(len, others))

    def _may_read_again(self) -> bool:
        """Whether not too much was gone through twice already: files may be made for it."""
        return self._given_again <= READ_AGAIN * self._read + READ_AGAIN_FREE

    def _is_more(self) -> bool:
        self.start_row()
        try:
            return next(self, None) is not None
        except TooLong:
            return True

    def _skip_line(self) -> None:
        piece = " "
        while piece and not piece.endswith(("\n", "\r")):
            piece = self._text.readline(self._limit)
