"""Decontamination: prompts that overlap with the items of benchmark files, by shared runs of eight words.

The rule of Tulu 3 (arXiv 2411.15124, section 3.2): a word of an item is matched if it lies in an 8-gram that the prompt
has as well; the prompt's user turns, one after the other, are a hit if more than half of some item's words are matched.
Items shorter than eight words must be a user turn's whole text.

Shapes: N texts, W words of all texts end to end, G distinct 8-grams of all items.
"""

import csv
import functools
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_pipeline.core.errors import InputError
from dpo_pipeline.preferences.normalize import TURN_SEPARATOR, normalise
from dpo_pipeline.preferences.pinned import BenchmarkFile
from dpo_pipeline.preferences.shingles import word_hashes

WORDS = 8
MATCHED_SHARE = 0.5
ROLL = np.uint64(0x9E3779B97F4A7C15)


class Overlaps(NamedTuple):
    """K overlaps of a text with an item: which text, which file, which of its items (from 1), `(K,)` each."""

    text: np.ndarray
    file: np.ndarray
    item: np.ndarray


class _Items(NamedTuple):
    """Sorted 8-grams of all items, `(G,)`; the items that have each, and where; and the short items by their texts.

    `lengths` are the items' words; `sizes` how many items each file has.
    """

    grams: np.ndarray
    item: np.ndarray
    place: np.ndarray
    lengths: np.ndarray
    short: dict[str, list[int]]
    sizes: np.ndarray


def overlapping(user_turns: pa.StringArray, files: tuple[BenchmarkFile, ...]) -> np.ndarray:
    """Which texts overlap with an item of the files, `(N,)` bool; arguments as of `overlaps`."""
    found = np.zeros(len(user_turns), bool)
    found[overlaps(user_turns, files).text] = True
    return found


def overlaps(user_turns: pa.StringArray, files: tuple[BenchmarkFile, ...]) -> Overlaps:
    """Every text with every item it overlaps with, sorted.

    Args:
        user_turns: The normalised user turns of each prompt, joined by `TURN_SEPARATOR`.
        files: The benchmarks.
    """
    items = _read(files)
    hashes, counts = word_hashes(user_turns)
    grams, owner = _grams(hashes, counts)
    at = np.searchsorted(items.grams, grams)
    is_known = np.zeros(len(grams), bool)
    inside = at < len(items.grams)
    is_known[inside] = items.grams[at[inside]] == grams[inside]
    hits, known = owner[is_known], grams[is_known]  # owners ascend: each text's grams lie together
    texts, starts = np.unique(hits, return_index=True)
    found = []
    for text, some in zip(texts, np.split(known, starts[1:]), strict=False):
        found += [(int(text), int(item)) for item in _hit_items(np.unique(some), items)]
    if items.short:
        for text, turns in enumerate(user_turns.to_pylist()):
            found += [(text, item) for turn in set(turns.split(TURN_SEPARATOR)) for item in items.short.get(turn, ())]
    text, item = np.array(sorted(set(found)), np.int64).reshape(-1, 2).T
    starts = np.cumsum(items.sizes) - items.sizes
    file = np.searchsorted(starts, item, "right") - 1
    return Overlaps(text, file, item - starts[file] + 1)


def item_counts(files: tuple[BenchmarkFile, ...]) -> list[int]:
    """How many items each file holds."""
    return [int(size) for size in _read(files).sizes] if files else []


def _hit_items(grams: np.ndarray, items: _Items) -> np.ndarray:
    """The items of which the 8-grams cover more than half of the words."""
    low, high = np.searchsorted(items.grams, grams), np.searchsorted(items.grams, grams, "right")
    which = np.concatenate([np.arange(start, stop) for start, stop in zip(low, high, strict=True)])
    words = (items.item[which, None].astype(np.int64) << 32) + items.place[which, None] + np.arange(WORDS)
    touched, covered = np.unique(np.unique(words) >> 32, return_counts=True)
    return touched[covered > MATCHED_SHARE * items.lengths[touched]]


def _grams(hashes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hashed 8-grams of words end to end, and the text each belongs to; none crosses into the next text."""
    owner = np.repeat(np.arange(len(counts)), counts)
    if len(hashes) < WORDS:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    size = len(hashes) - WORDS + 1
    total = np.zeros(size, np.uint64)
    for step in range(WORDS):
        total = (total ^ hashes[step : step + size]) * ROLL
        total ^= total >> np.uint64(32)
    whole = owner[:size] == owner[WORDS - 1 :]
    return total[whole], owner[:size][whole]


@functools.lru_cache(maxsize=4)
def _read(files: tuple[BenchmarkFile, ...]) -> _Items:
    per_file = [list(_texts(file)) for file in files]
    texts = normalise(pa.array([text for some in per_file for text in some], pa.string()))
    hashes, counts = word_hashes(texts)
    grams, item = _grams(hashes, counts)
    per_item = np.maximum(counts - WORDS + 1, 0)
    place = np.arange(len(grams)) - np.repeat(np.cumsum(per_item) - per_item, per_item)
    order = np.argsort(grams, kind="stable")
    short: dict[str, list[int]] = {}
    for number in np.flatnonzero((counts > 0) & (counts < WORDS)):
        short.setdefault(texts[int(number)].as_py(), []).append(int(number))
    sizes = np.array([len(some) for some in per_file], np.int64)
    return _Items(grams[order], item[order], place[order], np.maximum(counts, 1), short, sizes)


def _texts(file: BenchmarkFile) -> Iterator[str]:
    path = file.checked_path()
    for number, row in enumerate(rows_of(path), start=1):
        text = row.get(file.field) if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise InputError(
                f"item {number} of {path} has no text in the field {file.field!r}",
                expected="a text in every item",
                do="Name the field that holds it: preferences.benchmarks[].field",
            )
        yield text


def rows_of(path: Path) -> Iterable[object]:
    """The items of a file: JSON lines, a JSON list, CSV or Parquet, plain or `.gz`.

    Raises:
        InputError: If it cannot be read.
    """
    name = path.name.removesuffix(".gz")
    content = path.read_bytes()
    try:
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
        if name.endswith(".parquet"):
            return pq.read_table(pa.BufferReader(content)).to_pylist()
        if name.endswith(".csv"):
            return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
        if name.endswith(".json"):
            return json.loads(content.decode("utf-8-sig"))
        # Bytes are split, not text: a JSON string may hold U+2028, at which `str.splitlines` would cut it.
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        return [json.loads(line) for line in lines if line.strip()]
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read: {error}", expected="JSON lines, a JSON list, CSV or Parquet", do="Convert it"
        ) from error
