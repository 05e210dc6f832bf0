"""Files as bounded streams of decompressed bytes: one that gives implausibly much, or breaks off, says so."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import zstandard

from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable
from dpo_pipeline.annotations.settings import AnnotationSettings

KINDS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xlsx", ".parquet")
COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
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


class Bounded(io.RawIOBase):
    """A stream of decompressed bytes that stops where they become too many, too dense or broken.

    Args:
        stream: Gives the decompressed bytes.
        settings: The bounds.
        compressed_bytes: How many bytes they come from, at most; None where they are not compressed.
    """

    def __init__(self, stream: IO[bytes], settings: AnnotationSettings, compressed_bytes: int | None) -> None:
        self._stream, self._settings = stream, settings
        self._most_by_ratio = (
            None
            if compressed_bytes is None
            else max(RATIO_FREE_BYTES, int(compressed_bytes * settings.max_compression_ratio))
        )
        self._given = 0

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
            raise Unusable(Reason.UNREADABLE_FILE, f"the bytes cannot be decompressed: {error}") from error
        self._given += len(block)
        if self._most_by_ratio is not None and self._given > self._most_by_ratio:
            ratio = self._settings.max_compression_ratio
            detail = f"{self._given} bytes came out, more than {ratio:g} times what went in"
            raise Unusable(Reason.DECOMPRESSION_BOMB, detail)
        if self._given > self._settings.max_file_bytes:
            raise Unusable(Reason.FILE_TOO_LARGE, f"more than {self._settings.max_file_bytes} bytes")
        return block


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


def decompressed(raw: IO[bytes], compression: str) -> IO[bytes]:
    """The stream itself, or what it decompresses to; broken streams fail on reading, not here."""
    if compression == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if compression == ".bz2":
        return bz2.BZ2File(raw)
    if compression == ".xz":
        return _XzStream(raw)
    if compression == ".zst":
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
        return decompressor.stream_reader(raw, read_across_frames=True)
    return raw


class _XzStream(io.RawIOBase):
    """An .xz stream with a bound on the decoder's memory, which the standard library's file object lacks."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._decoder = self._fresh()

    def read(self, size: int = -1) -> bytes:
        while True:
            if self._decoder.eof:
                following = self._decoder.unused_data or self._raw.read(1 << 16)
                if not following.strip(b"\0"):
                    return b""
                self._decoder = self._fresh()
                block = self._decoder.decompress(following, size)
            else:
                fresh = self._raw.read(1 << 16) if self._decoder.needs_input else b""
                if self._decoder.needs_input and not fresh:
                    raise EOFError("the end-of-stream marker is missing")
                block = self._decoder.decompress(fresh, size)
            if block:
                return block

    @staticmethod
    def _fresh() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=MAX_XZ_MEMORY_BYTES)
