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

Entry = tuple[int, Any, Any]
BLOCK_BYTES = 1 << 20
EXCERPT_BYTES = 1_000
_STRUCTURE = re.compile(rb'["{}\[\]]')


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
            if type(line) is _Lost:
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


def read_json_values(stream: Bounded, *, max_record_bytes: int) -> Iterator[Entry]:
    """The elements of one JSON array, or the objects of a file that holds one after the other.

    An element that is broken costs itself: a line's end inside a text, which JSON forbids, is where it is given up.
    """
    scanner = _ElementScanner(max_record_bytes)
    number = 0
    try:
        while block := stream.read(BLOCK_BYTES):
            for value, raw in scanner.feed(block):
                number += 1
                yield number, value, raw
        for value, raw in scanner.finish():
            number += 1
            yield number, value, raw
    except Unusable as problem:
        yield number + 1, problem, bytes(scanner.buffer[:EXCERPT_BYTES])


_CLOSES = {ord("}"): ord("{"), ord("]"): ord("[")}


class _ElementScanner:
    """Cuts a stream of JSON into elements without decoding it.

    Args:
        max_record_bytes: Longest element that is kept; of a longer one only the beginning is.
    """

    def __init__(self, max_record_bytes: int) -> None:
        self.buffer = bytearray()
        self._limit = max_record_bytes
        self._at = 0  # where scanning goes on
        self._in_string = False
        self._open: list[int] = []  # brackets around the scanner inside the element
        self._array: bool | None = None  # whether one array holds everything; None until the first bracket
        self._closed = False
        self._start = 0  # where the element, or the gap before it, starts
        self._too_long = b""  # the beginning of an element that became too long

    def feed(self, block: bytes) -> Iterator[tuple[Any, bytes]]:
        """The elements that are complete after this block."""
        self.buffer += block
        while self._in_string or (match := _STRUCTURE.search(self.buffer, self._at)) is not None:
            if self._in_string:
                if not self._leave_string():
                    break
                if self._in_string:  # a line ended inside the text: the element is given up
                    self._in_string, end = False, self._at
                    yield self._cut(end, Unusable(Reason.INVALID_JSON, "a line ends inside a text"))
                    self._open.clear()
                continue
            yield from self._step(match.start())
        else:
            self._at = len(self.buffer)
        self._forget()

    def finish(self) -> Iterator[tuple[Any, bytes]]:
        """What is left at the end: nothing, or one broken element."""
        rest = bytes(self.buffer[self._start :])
        if self._too_long:
            yield _too_long(self._limit), self._too_long
        elif self._open or self._in_string:
            yield Unusable(Reason.TRUNCATED_FILE, "the file ends inside a record"), rest[:EXCERPT_BYTES]
        elif _is_garbage(rest):
            yield Unusable(Reason.INVALID_JSON, "text outside of any record"), rest[:EXCERPT_BYTES]
        elif self._array and not self._closed:
            yield Unusable(Reason.TRUNCATED_FILE, "the array is never closed"), rest[:EXCERPT_BYTES]

    def _step(self, at: int) -> Iterator[tuple[Any, bytes]]:
        """Go past the bracket or quote at a place."""
        byte = self.buffer[at]
        self._at = at + 1
        if byte == ord('"'):
            self._in_string = True
        elif byte in _CLOSES:
            yield from self._close(byte)
        elif self._array is None and byte == ord("["):
            self._array = True
            self._start = self._at
        else:
            self._array = self._array or False
            if not self._open:
                yield from self._gap(at)
                self._start = at
            self._open.append(byte)

    def _close(self, byte: int) -> Iterator[tuple[Any, bytes]]:
        if not self._open:
            if byte == ord("]") and self._array and not self._closed:
                yield from self._gap(self._at - 1)
                self._closed, self._start = True, self._at
            return  # a stray bracket stays in the gap and is reported with it
        # A bracket closes the nearest of its kind, so that one forgotten bracket does not swallow the elements after.
        if _CLOSES[byte] in self._open:
            while self._open.pop() != _CLOSES[byte]:
                pass
        if not self._open:
            yield self._cut(self._at, None)

    def _gap(self, end: int) -> Iterator[tuple[Any, bytes]]:
        """What stands before an element, if it is anything but commas and white space."""
        if self._too_long:
            yield _too_long(self._limit), self._too_long
            self._too_long = b""
        elif _is_garbage(gap := bytes(self.buffer[self._start : end])):
            yield Unusable(Reason.INVALID_JSON, "text between two records"), gap[:EXCERPT_BYTES]

    def _cut(self, end: int, problem: Unusable | None) -> tuple[Any, bytes]:
        raw = bytes(self.buffer[self._start : end])
        self._start = end
        if self._too_long:
            raw, self._too_long = self._too_long, b""
            return _too_long(self._limit), raw
        if len(raw) > self._limit:
            return _too_long(self._limit), raw[:EXCERPT_BYTES]
        if problem is not None:
            return problem, raw[:EXCERPT_BYTES]
        return decode(raw), raw

    def _leave_string(self) -> bool:
        """Go to the end of the text; False where it is not in the buffer. At a line's end the text stays open."""
        at = self._at
        while (quote := self.buffer.find(b'"', at)) >= 0:
            backslashes = quote - 1
            while backslashes >= self._at and self.buffer[backslashes] == ord("\\"):
                backslashes -= 1
            if (quote - backslashes) % 2:
                break
            at = quote + 1
        end = quote if quote >= 0 else len(self.buffer)
        line_end = self.buffer.find(b"\n", self._at, end)
        if line_end >= 0:
            self._at = line_end
            return True
        if quote < 0:
            return False
        self._at, self._in_string = quote + 1, False
        return True

    def _forget(self) -> None:
        """Drop what has been cut, and what has become too long."""
        del self.buffer[: self._start]
        self._at -= self._start
        self._start = 0
        if len(self.buffer) > self._limit:
            self._too_long = self._too_long or bytes(self.buffer[:EXCERPT_BYTES])
            # Keep the few bytes a backslash before the next quote could stand in.
            kept = max(0, self._at if not self._in_string else len(self.buffer) - 64)
            del self.buffer[:kept]
            self._at = max(0, self._at - kept)


def _is_garbage(gap: bytes) -> bool:
    """Whether anything but white space, commas and a byte order mark stands between two elements."""
    return bool(gap.replace(BOM, b"").translate(None, b" \t\r\n,"))
