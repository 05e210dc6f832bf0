"""JSON lines and JSON arrays as records, one at a time, whatever else the file holds.

Every reader here yields `(number, value, raw)`: the record's 1-based position, the decoded object or the `Unusable`
that says why there is none, and the bytes it came from (cut short where they were too many).
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from dpo_pipeline.annotations.decoding import BOM, decode
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable
from dpo_pipeline.annotations.streams import Bounded
from dpo_pipeline.annotations.wrapped import UNREAD_BEHIND, UNREAD_BESIDE, names_records

Entry = tuple[int, Any, Any]
BLOCK_BYTES = 1 << 20
EXCERPT_BYTES = 1_000
# What stands before the next bracket: anything but brackets and quotes, and whole texts. Possessive: never tried twice.
_PLAIN = re.compile(rb'(?:[^"{}\[\]]++|"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+")*+')


class _Lost(NamedTuple):
    """A line that cannot be had whole: why, and its beginning."""

    problem: Unusable
    beginning: bytes


def read_json_lines(stream: Bounded, *, max_record_bytes: int) -> Iterator[Entry]:
    """The records of a file of one JSON object per line; blank lines are no records but count as lines."""
    number = 0
    for lines in _blocks_of_lines(stream, max_record_bytes):
        for line in lines:
            number += 1
            if isinstance(line, _Lost):
                yield number, line.problem, line.beginning
                continue
            raw = line.removeprefix(BOM) if number == 1 else line
            if raw and not raw.isspace():
                yield number, decode(raw), raw


def _blocks_of_lines(stream: Bounded, limit: int) -> Iterator[list[bytes | _Lost]]:
    """The lines of a stream, a block's worth at a time; of a line over the limit only the beginning is held."""
    tail, beginning = b"", None
    too_long = _too_long(limit)
    try:
        while block := stream.read(BLOCK_BYTES):
            pieces = (tail + block).split(b"\n")
            tail = pieces.pop()
            lines: list[bytes | _Lost] = [
                piece if len(piece) <= limit else _Lost(too_long, piece[:EXCERPT_BYTES]) for piece in pieces
            ]
            if beginning is not None:  # inside a line that was too long already
                if not lines:
                    tail = b""
                    continue
                lines[0], beginning = _Lost(too_long, beginning), None
            if len(tail) > limit:
                tail, beginning = b"", tail[:EXCERPT_BYTES]
            yield lines
    except Unusable as problem:
        yield [_Lost(problem, (tail if beginning is None else beginning)[:EXCERPT_BYTES])]
        return
    yield [tail] if beginning is None else [_Lost(too_long, beginning)]


def _too_long(limit: int) -> Unusable:
    return Unusable(Reason.RECORD_TOO_LONG, f"longer than {limit} bytes")


def read_json_values(stream: Bounded, *, max_record_bytes: int, skip: int = 0) -> Iterator[Entry]:
    """The elements of one JSON array, or the objects of a file that holds one after the other.

    An element that is broken costs itself: a line's end inside a text, which JSON forbids, is where it is given up.

    Args:
        stream: The file.
        max_record_bytes: Longest element.
        skip: Bytes before an array that an object is wrapped around; what else is in the object is passed over then,
            unless it is another list that bears a name of records: that, and whatever follows, is said not to be read.
    """
    scanner = _ElementScanner(max_record_bytes, is_wrapped=skip > 0)
    number = 0
    try:
        while block := stream.read(BLOCK_BYTES):
            block, skip = block[skip:], max(0, skip - len(block))
            for value, raw in scanner.feed(block):
                number += 1
                yield number, value, raw
        for value, raw in scanner.finish():
            number += 1
            yield number, value, raw
    except Unusable as problem:
        yield number + 1, problem, bytes(scanner.buffer[:EXCERPT_BYTES])


_QUOTE, _BACKSLASH, _OPENS_ARRAY, _CLOSES_ARRAY = b'"\\[]'
_CLOSES = {ord("}"): ord("{"), _CLOSES_ARRAY: _OPENS_ARRAY}
_KEPT_BYTES = 1_024


class _ElementScanner:
    """Cuts a stream of JSON into elements without decoding it, and decodes each when it is whole.

    Args:
        max_record_bytes: Longest element that is kept; of a longer one only the beginning is.
    """

    def __init__(self, max_record_bytes: int, *, is_wrapped: bool = False) -> None:
        self._is_wrapped = is_wrapped
        self.buffer = bytearray()
        self._limit = max_record_bytes
        self._found: list[tuple[Any, bytes]] = []
        self._at = 0  # where scanning goes on
        self._in_string = False
        self._open: list[int] = []  # brackets around the scanner inside the element
        self._array: bool | None = None  # whether one array holds everything; None until the first bracket
        self._closed = False
        self._start = 0  # where the element, or the gap before it, starts
        self._around = 1  # brackets still open around a wrapped array once it is closed
        self._unread: Unusable | None = None  # what stands behind it and should not
        self._too_long = b""  # the beginning of an element that became too long

    def feed(self, block: bytes) -> list[tuple[Any, bytes]]:
        """The elements that are complete after this block: the object, or why there is none, and its bytes."""
        self.buffer += block
        self._found = []
        while True:
            if self._in_string:
                if not self._leave_string():
                    break
                continue
            plain = _PLAIN.match(self.buffer, self._at)
            assert plain is not None  # it matches nothing at all, if need be
            if plain.end() == len(self.buffer):
                self._at = plain.end()
                break
            self._step(plain.end())
        self._forget()
        return self._found

    def finish(self) -> list[tuple[Any, bytes]]:
        """What is left at the end: nothing, or one broken element."""
        rest = bytes(self.buffer[self._start :])
        if self._is_wrapped and self._closed:
            return self._left_behind(rest)
        if self._too_long:
            return [(_too_long(self._limit), self._too_long)]
        if self._open or self._in_string:
            problem = Unusable(Reason.TRUNCATED_FILE, "the file ends inside a record")
        elif _is_garbage(rest):
            problem = Unusable(Reason.INVALID_JSON, "text outside of any record")
        elif self._array and not self._closed:
            problem = Unusable(Reason.TRUNCATED_FILE, "the array is never closed")
        else:
            return []
        return [(problem, rest[:EXCERPT_BYTES])]

    def _left_behind(self, rest: bytes) -> list[tuple[Any, bytes]]:
        """What is wrong with what followed a wrapped array: nothing, or one thing that was not read."""
        if self._unread is None and self._around:
            self._unread = Unusable(Reason.TRUNCATED_FILE, "the object around the records is never closed")
        elif self._unread is None and _is_garbage(rest):
            self._unread = Unusable(Reason.INVALID_JSON, UNREAD_BEHIND)
        return [] if self._unread is None else [(self._unread, rest[:EXCERPT_BYTES])]

    def _pass_by(self, at: int) -> None:
        """Go past the bracket or quote at a place behind a wrapped array, looking out for records that are not read."""
        byte, before = self.buffer[at], self.buffer[self._start : at]
        if self._unread is not None or not self._around:
            self._unread = self._unread or Unusable(Reason.INVALID_JSON, UNREAD_BEHIND)
            self._at = len(self.buffer)
        elif byte == _QUOTE:
            self._at, self._in_string = at + 1, True
        elif self._around == 1 and byte == _OPENS_ARRAY and names_records(before):
            self._unread = Unusable(Reason.INVALID_JSON, UNREAD_BESIDE)
            self._at = len(self.buffer)
        else:
            self._around += -1 if byte in _CLOSES else 1
            self._at = self._start = at + 1

    def _step(self, at: int) -> None:
        """Go past the bracket or quote at a place."""
        if self._is_wrapped and self._closed:
            self._pass_by(at)
            return
        byte = self.buffer[at]
        self._at = at + 1
        if byte == _QUOTE:
            self._in_string = True
        elif byte in _CLOSES:
            self._close(byte)
        elif self._array is None and byte == _OPENS_ARRAY:
            self._array = True
            self._start = self._at
        else:
            self._array = self._array or False
            if not self._open:
                self._end_gap(at)
                self._start = at
            self._open.append(byte)

    def _close(self, byte: int) -> None:
        if not self._open:
            if byte == _CLOSES_ARRAY and self._array and not self._closed:
                self._end_gap(self._at - 1)
                self._closed, self._start = True, self._at
            return  # a stray bracket stays in the gap and is reported with it
        # A bracket closes the nearest of its kind, so that one forgotten bracket does not swallow the elements after.
        if _CLOSES[byte] in self._open:
            while self._open.pop() != _CLOSES[byte]:
                pass
        if not self._open:
            self._cut(self._at, None)

    def _end_gap(self, end: int) -> None:
        """Report what stands before an element, if it is anything but commas and white space."""
        if self._too_long:
            self._found.append((_too_long(self._limit), self._too_long))
            self._too_long = b""
        elif _is_garbage(gap := bytes(self.buffer[self._start : end])):
            self._found.append((Unusable(Reason.INVALID_JSON, "text between two records"), gap[:EXCERPT_BYTES]))

    def _cut(self, end: int, problem: Unusable | None) -> None:
        """Take what stands before `end` as an element, broken where there is a problem."""
        raw = bytes(self.buffer[self._start : end])
        self._start = end
        if self._too_long:
            raw, problem, self._too_long = self._too_long, _too_long(self._limit), b""
        elif len(raw) > self._limit:
            problem = _too_long(self._limit)
        self._found.append((decode(raw), raw) if problem is None else (problem, raw[:EXCERPT_BYTES]))

    def _leave_string(self) -> bool:
        """Go past the end of the text; False where that is not in the buffer. A line's end gives the element up."""
        quote = self._closing_quote()
        line_end = self.buffer.find(b"\n", self._at, quote if quote >= 0 else len(self.buffer))
        if line_end >= 0:
            self._at, self._in_string = line_end, False
            self._open.clear()
            self._cut(line_end, Unusable(Reason.INVALID_JSON, "a line ends inside a text"))
        elif quote >= 0:
            self._at, self._in_string = quote + 1, False
        return not self._in_string

    def _closing_quote(self) -> int:
        """Where the text ends: the first quote with an even number of backslashes before it; -1 where there is none."""
        at = self._at
        while (quote := self.buffer.find(b'"', at)) >= 0:
            before = quote
            while before > self._at and self.buffer[before - 1] == _BACKSLASH:
                before -= 1
            if (quote - before) % 2 == 0:
                break
            at = quote + 1
        return quote

    def _forget(self) -> None:
        """Drop what has been cut, and what has become too long."""
        del self.buffer[: self._start]
        self._at -= self._start
        self._start = 0
        if len(self.buffer) > self._limit:
            self._too_long = self._too_long or bytes(self.buffer[:EXCERPT_BYTES])
            # In a text, keep the backslashes that may stand before the quote to come.
            kept = self._at if not self._in_string else max(self._at, len(self.buffer) - _KEPT_BYTES)
            del self.buffer[:kept]
            self._at -= kept


def _is_garbage(gap: bytes) -> bool:
    """Whether anything but white space, commas and a byte order mark stands between two elements."""
    return bool(gap.replace(BOM, b"").translate(None, b" \t\r\n,"))
