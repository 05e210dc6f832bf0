"""The first half of a sketch: every judgment of a drop is named by what it is about, and put aside under that name.

One reading of the drop. What it gives is three spills: the judgments by pair, the texts of pairs in each spelling they
were exported in, and the normalised prompts; `sketch` makes the tables of them, one range of names at a time.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import threading
import zlib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.tables import MESSAGES
from dpo_pipeline.preferences import identifiers
from dpo_pipeline.preferences.identifiers import utf8_bytes
from dpo_pipeline.preferences.normalize import (
    map_contents,
    normalise_once_each,
    once_each,
    pair_keys,
    render,
    response_order,
    text_keys,
)
from dpo_pipeline.preferences.parallel import in_order
from dpo_pipeline.preferences.progress import Progress
from dpo_pipeline.preferences.sketch_tables import NO_TIME, VERDICT_COLUMNS, VERDICTS, Choice
from dpo_pipeline.preferences.spill import Spill, range_count
from dpo_pipeline.preferences.texts import JUDGMENTS_FILE, TEXT_COLUMNS, batches

IDENTITY = pa.binary(16)
NAMED = pa.schema(
    [
        ("pair_id", IDENTITY),
        ("prompt_id", IDENTITY),
        ("low_id", IDENTITY),
        ("high_id", IDENTITY),
        ("spelling", pa.uint64()),
        *((name, kind) for name, kind in VERDICT_COLUMNS.items()),
    ]
)
SPELLED = pa.schema(
    [
        ("pair_id", IDENTITY),
        ("spelling", pa.uint64()),
        ("prompt", MESSAGES),
        ("low", pa.string()),
        ("high", pa.string()),
    ]
)
ASKED = pa.schema([("prompt_id", IDENTITY), ("prompt", MESSAGES)])
IDS = ("pair_id", "prompt_id", "low_id", "high_id")
CODED = ("annotator", "source", "file")
COPIED = ("strength", "votes", "judged_at", "record_number", "sft_allowed", "choice", "dimensions", "judgment_id")
MIX = np.uint64(0x9E3779B97F4A7C15)


class Names:
    """Numbers for the names of annotators, sources, files and dimensions, given as they turn up."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, int]] = {kind: {} for kind in (*CODED, "dimension")}
        self._lock = threading.Lock()

    def codes(self, kind: str, texts: pa.StringArray) -> np.ndarray:
        """The number of each name, -1 for null, `(N,)` int32."""
        encoded = texts.dictionary_encode()
        known = self.of[kind]
        with self._lock:
            places = [known.setdefault(name, len(known)) for name in encoded.dictionary.to_pylist()]
        return np.array([*places, -1], np.int32)[pc.fill_null(encoded.indices, len(places)).to_numpy()]

    def sorted(self) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
        """Per kind the names sorted, and for each number given the place of its name among them, then -1."""
        names = {kind: sorted(known) for kind, known in self.of.items()}
        places = {}
        for kind, known in self.of.items():
            places[kind] = np.full(len(known) + 1, -1, np.int32)
            places[kind][[known[name] for name in names[kind]]] = np.arange(len(known))
        return names, places


class NamedRange(NamedTuple):
    """One range of pairs, named: P pairs in the order of their identities, N judgments in that of the pairs.

    Attributes:
        ids: Columns of identities, `(P, 2)` each.
        numbers: What the judgments that stand for the pairs say, `(P,)` each.
        pair: The pair of each judgment, `(N,)` ascending.
        verdicts: The judgments.
        texts: The texts of the pairs as most of their judgments show them.
    """

    ids: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]
    pair: np.ndarray
    verdicts: pa.Table
    texts: pa.Table


class Named:
    """The judgments of a drop, named; what lies in the spills is gone when the block ends.

    Args:
        judgments: Folder of the drop's judgments.
        folder: Where the spills go.

    Attributes:
        count: How many judgments there are.
        judgments: Rows of `NAMED`, by pair.
        spelled: Rows of `SPELLED`, by pair: in each spelling at least once.
        asked: Rows of `ASKED`, by prompt: each at least once.
        names: What the numbers in `judgments` mean.
    """

    def __init__(self, judgments: Path, folder: Path) -> None:
        with pq.ParquetFile(judgments / JUDGMENTS_FILE) as file:
            about = file.metadata
        self.count, self._path = about.num_rows, judgments
        size = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
        ranges = range_count(self.count, size)
        self.judgments, self.spelled = Spill(folder, NAMED, ranges), Spill(folder, SPELLED, ranges)
        self.asked, self.names = Spill(folder, ASKED, ranges), Names()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for spill in (self.judgments, self.spelled, self.asked):
            spill.close()

    def read(self, reporter: Reporter) -> None:
        """Name every judgment."""
        reporter.say(f"naming {self.count:,} judgments")
        progress = Progress(reporter, "judgments named", self.count)
        columns = (*TEXT_COLUMNS, *CODED, *COPIED)
        for count in in_order(batches(self._path, columns), lambda item: self._take(*item)):
            progress.add(count)

    def ranges(self, places: Mapping[str, np.ndarray]) -> Iterator[NamedRange]:
        """What was named, one range of pairs after another; can be gone through once.

        Args:
            places: Per kind of name, what to write in place of each number in `names`.
        """
        for judged, spelled in zip(self.judgments.ranges(), self.spelled.ranges(), strict=True):
            keys = {name: identifiers.from_binary(whole(judged, name)) for name in IDS}
            spelling = whole(judged, "spelling").to_numpy()
            judgment = identifiers.from_binary(whole(judged, "judgment_id"))
            stands, pair = _representatives(keys["pair_id"], spelling, judgment)
            ids = {name: values[stands] for name, values in keys.items()}
            order = np.lexsort((judgment[:, 1], judgment[:, 0], pair))
            verdicts = judged.select(VERDICTS.names[1:]).combine_chunks().take(pa.array(order))
            for kind, code in places.items():
                if kind in verdicts.schema.names:
                    at = verdicts.schema.get_field_index(kind)
                    verdicts = verdicts.set_column(at, kind, pa.array(code[verdicts.column(kind).to_numpy()]))
            numbers = {name: whole(judged, name).to_numpy(zero_copy_only=False)[stands] for name in ("row", "b_is_low")}
            yield NamedRange(ids, numbers, pair[order], verdicts, _spelled(spelled, ids["pair_id"], spelling[stands]))

    def _take(self, start: int, batch: pa.RecordBatch) -> int:
        given = {name: batch.column(name) for name in batch.schema.names}
        a, b = given["response_a"], given["response_b"]
        key_a, key_b = text_keys(a), text_keys(b)
        b_is_low = response_order(key_a, key_b)
        low_id, high_id = (np.where(b_is_low[:, None], *keys) for keys in ((key_b, key_a), (key_a, key_b)))
        asked = map_contents(given["prompt"], normalise_once_each)
        prompt_id = once_each(render(asked), identifiers.blake2b_128)
        pair_id = pair_keys(prompt_id, low_id, high_id)

        swap = pa.array(b_is_low)
        low, high = pc.if_else(swap, b, a), pc.if_else(swap, a, b)
        spelling = ((_checksums(render(given["prompt"])) * MIX) ^ _checksums(low)) * MIX ^ _checksums(high)
        ids = {"pair_id": pair_id, "prompt_id": prompt_id, "low_id": low_id, "high_id": high_id}
        columns = {name: identifiers.to_binary(values) for name, values in ids.items()}
        columns |= {"spelling": pa.array(spelling), "b_is_low": swap}
        columns |= {"row": pa.array(np.arange(start, start + len(batch)))} | self._verdicts(given)
        self.judgments.put(pair_id, _batch(columns, NAMED))

        first = identifiers.first_of_each(pair_id[:, 0], pair_id[:, 1], spelling)
        columns |= {"prompt": given["prompt"], "low": low, "high": high}
        self.spelled.put(pair_id[first], _batch(columns, SPELLED).take(pa.array(first)))
        first = identifiers.first_of_each(prompt_id[:, 0], prompt_id[:, 1])
        columns["prompt"] = asked
        self.asked.put(prompt_id[first], _batch(columns, ASKED).take(pa.array(first)))
        return len(batch)

    def _verdicts(self, given: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """What the judgments say, in the types of `VERDICT_COLUMNS`."""
        columns: dict[str, pa.Array] = {name: pa.array(self.names.codes(name, given[name])) for name in CODED}
        columns |= {name: given[name] for name in ("strength", "votes", "record_number", "sft_allowed")}
        columns["judgment_id"] = identifiers.to_binary(identifiers.from_hex(given["judgment_id"]))
        columns["judged_at"] = pc.fill_null(given["judged_at"].cast(pa.int64()), NO_TIME)
        columns["choice"] = pa.array(once_each(given["choice"], _choices))
        entries = given["dimensions"].flatten()
        codes = pa.array(self.names.codes("dimension", entries.field("name")))
        kind = VERDICT_COLUMNS["dimensions"]
        coded = pa.StructArray.from_arrays([codes, entries.field("strength")], fields=list(kind.value_type))
        offsets = pc.subtract(given["dimensions"].offsets, given["dimensions"].offsets[0])
        columns["dimensions"] = pa.ListArray.from_arrays(offsets, coded, type=kind)
        return columns


def _representatives(keys: np.ndarray, spelling: np.ndarray, judgment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The judgment that stands for each distinct key, sorted by key, and the place of every judgment's key.

    It shows the spelling most judgments show; among equals the choice depends on contents only, never on order.
    """
    _, _, place = identifiers.unique(keys)
    order = np.lexsort((judgment[:, 1], judgment[:, 0], spelling, place))
    is_new = np.ones(len(order), bool)
    is_new[1:] = (place[order][1:] != place[order][:-1]) | (spelling[order][1:] != spelling[order][:-1])
    starts = np.flatnonzero(is_new)
    sizes = np.diff(np.append(starts, len(order)))
    first = order[starts]
    best = np.lexsort((spelling[first], -sizes, place[first]))
    is_best = np.ones(len(best), bool)
    is_best[1:] = place[first[best]][1:] != place[first[best]][:-1]
    return first[best[is_best]], place


def _spelled(spelled: pa.Table, pair_ids: np.ndarray, spelling: np.ndarray) -> pa.Table:
    """The texts of the pairs, sorted and distinct, each in the given spelling."""
    pair = identifiers.places(pair_ids, identifiers.from_binary(whole(spelled, "pair_id")))
    rows = np.flatnonzero(whole(spelled, "spelling").to_numpy() == spelling[pair])
    first = rows[np.unique(pair[rows], return_index=True)[1]]
    return spelled.select(["prompt", "low", "high"]).combine_chunks().take(pa.array(first))


def _batch(columns: Mapping[str, pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([columns[field.name] for field in schema], schema=schema)


def _checksums(texts: pa.StringArray) -> np.ndarray:
    """A checksum of each raw text, `(N,)` uint64: tells the spellings of one text apart, nothing more."""
    data, offsets = utf8_bytes(texts)
    blob, bounds, crc = data.data, offsets.tolist(), zlib.crc32
    return np.array([crc(blob[start:end]) for start, end in pairwise(bounds)], np.uint64)


def _choices(names: pa.StringArray) -> np.ndarray:
    for name in names.to_pylist():
        if name.upper() not in Choice.__members__:
            raise InputError(
                f"the judgments hold the choice {name!r}",
                expected=f"one of {', '.join(choice.name.lower() for choice in Choice)}",
                do="Materialize the judgments of the drop again",
            )
    return np.array([Choice[name.upper()] for name in names.to_pylist()], np.int8)


def whole(table: pa.Table, name: str) -> pa.Array:
    """A column in one piece."""
    return table.column(name).combine_chunks()
