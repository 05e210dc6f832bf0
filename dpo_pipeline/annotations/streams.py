"""Files as bounded streams of decompressed bytes: one that gives implausibly much, or breaks off, says so."""

import bz2
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import zstandard

from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable
from dpo_pipeline.annotations.settings import AnnotationSettings

KINDS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xlsx", ".parquet")
COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
READ_BYTES = 1 << 16
RATIO_FREE_BYTES = 16_000_000
"""Below this many bytes no ratio is a bomb: short repetitive files compress well."""
MAX_XZ_MEMORY_BYTES = 256_000_000
MAX_ZSTD_WINDOW_BYTES = 128_000_000

STREAM_ERRORS = (
    EOFError,
    OSError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    zipfile.BadZipFile,
    tarfile.TarError,
    NotImplementedError,
    RuntimeError,
)
"""What the decompressors of the standard library and zstandard raise at broken input."""


class Readable(Protocol):
    """Anything that hands out bytes piece by piece."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


class Bounded(io.RawIOBase):
    """A stream of decompressed bytes that stops where they become too many, too dense or broken.

    Args:
        stream: Gives the decompressed bytes.
        settings: The bounds.
        compressed_bytes: How many bytes they come from, at most; None where they are not compressed.
    """

    def __init__(self, stream: Readable, settings: AnnotationSettings, compressed_bytes: int | None) -> None:
        self._stream = stream
        ratio = settings.max_compression_ratio
        too_large = Unusable(Reason.FILE_TOO_LARGE, f"more than {settings.max_file_bytes} bytes")
        bomb = Unusable(Reason.DECOMPRESSION_BOMB, f"more than {ratio:g} times as many bytes came out as went in")
        bounds = [(settings.max_file_bytes, too_large)]
        if compressed_bytes is not None:
            bounds.append((max(RATIO_FREE_BYTES, int(compressed_bytes * ratio)), bomb))
        self._left, self._problem = min(bounds, key=lambda bound: bound[0])

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer.

        Raises:
            Unusable: If the stream is broken or over a bound.
        """
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; at most a megabyte where no size is given; none at the end.

        Raises:
            Unusable: If the stream is broken or over a bound.
        """
        try:
            block = self._stream.read(size if size >= 0 else 1 << 20)
        except EOFError as error:
            raise Unusable(Reason.TRUNCATED_FILE, f"the compressed stream breaks off: {error}") from error
        except STREAM_ERRORS as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk fails, not the file
            raise Unusable(Reason.UNREADABLE_FILE, f"the bytes cannot be decompressed: {error}") from error
        self._left -= len(block)
        if self._left < 0:
            block = block[: self._left]  # what is within the bound is given, the next reading fails
            self._left = 0
            if not block:
                raise self._problem
        return block


class Peeked(Bounded):
    """A bounded stream whose first bytes were looked at."""

    def __init__(self, stream: Bounded) -> None:
        self._inner, self._head = stream, b""
        self._met: Unusable | None = None

    def head(self, size: int) -> bytes:
        """The first bytes, which will be read again; a break met here is reported once they were."""
        try:
            while len(self._head) < size and (block := self._inner.read(1 << 20)):
                self._head += block
        except Unusable as problem:
            self._met = problem
        return self._head

    def read(self, size: int = -1) -> bytes:
        """The looked-at bytes first, then the rest.

        Raises:
            Unusable: If the stream is broken or over a bound.
        """
        if self._head:
            most = size if size >= 0 else len(self._head)
            piece, self._head = self._head[:most], self._head[most:]
            return piece
        if self._met is not None:
            raise self._met
        return self._inner.read(size)


def kind_of_name(lowered: str) -> tuple[str, str] | None:
    """Kind and compression a file's name tells, or None."""
    for compression in ("", *COMPRESSIONS):
        stem = lowered.removesuffix(compression)
        if not compression or stem != lowered:
            for kind in KINDS:
                if stem.endswith(kind):
                    return kind, compression
    return None


@contextmanager
def open_file(path: Path, compression: str, settings: AnnotationSettings) -> Iterator[Bounded]:
    """A file's decompressed bytes, bounded."""
    size = path.stat().st_size
    with path.open("rb") as raw:
        yield Bounded(decompressed(raw, compression), settings, size if compression else None)


def decompressed(raw: Readable, compression: str) -> Readable:
    """The stream itself, or what it decompresses to; broken streams fail on reading, not here."""
    return _Decoded(raw, _DECODERS[compression]) if compression else raw


class _ZstdDecoder:
    """A zstd decoder shaped like those of zlib; fed little by little, since it cannot bound what it gives at once."""

    # Four bytes may stand for a block of 128 KiB, so this many may become 32 MiB.
    _FED_BYTES = 1_024

    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES).decompressobj()
        self._left = b""
        self.unconsumed_tail = b""

    @property
    def eof(self) -> bool:
        """Whether the frame has ended and all of it was given."""
        return self._inner.eof and not self._left

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing left to give without more input."""
        return not self._left

    @property
    def unused_data(self) -> bytes:
        """What follows the frame."""
        return self._inner.unused_data + self.unconsumed_tail

    def decompress(self, data: bytes, size: int) -> bytes:
        """At most `size` bytes of what the next pieces of input give."""
        if not self._left:
            fed, given, total = 0, [], 0
            while fed < len(data) and total < READ_BYTES and not self._inner.eof:
                given.append(self._inner.decompress(data[fed : fed + self._FED_BYTES]))
                fed, total = fed + self._FED_BYTES, total + len(given[-1])
            self._left, self.unconsumed_tail = b"".join(given), data[fed:]
        block, self._left = self._left[:size], self._left[size:]
        return block


_DECODERS: Mapping[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),
    ".bz2": bz2.BZ2Decompressor,
    ".zst": _ZstdDecoder,
    ".xz": lambda: lzma.LZMADecompressor(memlimit=MAX_XZ_MEMORY_BYTES),
}


class _Decoded:
    """A stream of one or more compressed streams in a row.

    Unlike the standard library's file objects it gives everything that came out before a break, bounds the memory of
    an .xz decoder, and needs no seeking.

    Args:
        raw: The compressed bytes.
        fresh: Makes a decoder for one of the streams.
    """

    def __init__(self, raw: Readable, fresh: Callable[[], Any]) -> None:
        self._raw, self._fresh = raw, fresh
        self._decoder = fresh()
        self._waiting = b""

    def read(self, size: int = -1) -> bytes:
        """At least one byte, at most `size`; none at the end.

        Raises:
            EOFError: If the compressed bytes end before their stream does.
        """
        while True:
            if self._decoder.eof:
                self._waiting = self._decoder.unused_data or self._raw.read(READ_BYTES)
                if not self._waiting.strip(b"\0"):  # archivers pad with zeros
                    return b""
                self._decoder = self._fresh()
            is_over = False
            if not self._waiting and getattr(self._decoder, "needs_input", True):
                self._waiting = self._raw.read(READ_BYTES)
                is_over = not self._waiting
            block = self._decoder.decompress(self._waiting, size)
            self._waiting = getattr(self._decoder, "unconsumed_tail", b"")
            if block:
                return block
            if is_over and not self._decoder.eof:
                raise EOFError("the end-of-stream marker is missing")
