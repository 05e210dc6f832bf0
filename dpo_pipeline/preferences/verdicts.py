"""All verdicts of all drops as arrays, named the same way whichever drop, file or side they came from.

Shapes: N judgments, P distinct pairs, A annotators. Text stays on disk; a judgment costs about 60 bytes here.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.errors import InputError
from dpo_pipeline.preferences import identifiers
from dpo_pipeline.preferences.sketch import ROWS_FILE
from dpo_pipeline.preferences.texts import JUDGMENTS_FILE, DropTables

NO_TIME = np.iinfo(np.int64).min
LOW, HIGH = 1, -1
"""Sides of a pair as signs: toward its low response, toward its high response."""


class Choice(IntEnum):
    """The verdicts of schema `judgments`, as small numbers."""

    A = 0
    B = 1
    TIE = 2
    BOTH_BAD = 3
    NOT_RATEABLE = 4
    SKIPPED = 5


class Status(IntEnum):
    """What became of a judgment."""

    COUNTED = 0
    REPEAT = 1
    """The annotator gave a later verdict on the same pair."""
    REDELIVERED = 2
    """The same record of the same file came with an earlier drop."""
    SKIPPED = 3
    NOT_RATEABLE = 4


@dataclass(slots=True)
class Verdicts:
    """The judgments of all drops, ordered by pair, then judgment id, then drop: the order never depends on files.

    Attributes:
        judgment: Identities, `(N, 2)` uint64.
        pair: Number of the pair, `(N,)` int32.
        drop: Number of the drop in order of arrival, `(N,)` int16.
        row: Row in the drop's table, `(N,)` int64.
        choice: `Choice`, `(N,)` int8.
        side: `LOW`, `HIGH` or 0 for no preference, `(N,)` int8.
        strength: 1..3 where there is a side, else 0, `(N,)` int8.
        votes: People behind the row, `(N,)` int32.
        annotator: Number of the annotator in `annotators`, -1 where unknown, `(N,)` int32.
        time: Microseconds since 1970, `NO_TIME` where unknown, `(N,)` int64.
        record: Number of the record in its file, after the file's place among all file names, `(N,)` int64 each.
        file: See `record`.
        source: Number in `sources`, `(N,)` int16.
        sft_allowed: `(N,)` bool.
        b_is_low: Whether the judgment's response b is the pair's low one, `(N,)` bool.
        status: `Status`, `(N,)` int8; `count` sets it.
        annotators: Pseudonyms, sorted.
        sources: Export formats, sorted.
    """

    judgment: np.ndarray
    pair: np.ndarray
    drop: np.ndarray
    row: np.ndarray
    choice: np.ndarray
    side: np.ndarray
    strength: np.ndarray
    votes: np.ndarray
    annotator: np.ndarray
    time: np.ndarray
    file: np.ndarray
    record: np.ndarray
    source: np.ndarray
    sft_allowed: np.ndarray
    b_is_low: np.ndarray
    status: np.ndarray
    annotators: list[str]
    sources: list[str]

    def __len__(self) -> int:
        return len(self.pair)

    @property
    def is_counted(self) -> np.ndarray:
        """Whether the judgment counts as a verdict on its pair, `(N,)` bool."""
        return self.status == Status.COUNTED

    def count(self) -> None:
        """Decide which judgments count: no skips, nothing delivered twice, an annotator's last word on each pair.

        Only judgments that counted so far are looked at, so it may be called again after pairs were merged.
        """
        self.status[(self.choice == Choice.SKIPPED) & self.is_counted] = Status.SKIPPED
        self.status[(self.choice == Choice.NOT_RATEABLE) & self.is_counted] = Status.NOT_RATEABLE
        self._mark_redelivered()
        self._mark_repeats()

    def move(self, target: np.ndarray) -> None:
        """Let the judgments of pair p count for pair `target[p]`, `(P,)`; sides keep their names."""
        self.pair = target[self.pair].astype(np.int32)
        order = np.lexsort((self.drop, self.judgment[:, 1], self.judgment[:, 0], self.pair))
        for name in PER_JUDGMENT:
            setattr(self, name, getattr(self, name)[order])
        self.count()

    def _mark_redelivered(self) -> None:
        # The same id means the same pair, so copies stand next to each other; the earliest drop stands first.
        if len(self):
            is_copy = (self.judgment[1:] == self.judgment[:-1]).all(axis=1) & (self.pair[1:] == self.pair[:-1])
            self.status[1:][is_copy] = Status.REDELIVERED

    def _mark_repeats(self) -> None:
        known = np.flatnonzero(self.is_counted & (self.annotator >= 0))
        key = (self.pair[known].astype(np.int64) << 32) | self.annotator[known]
        order = np.argsort(key, kind="stable")
        same = key[order][1:] == key[order][:-1]
        is_several = np.zeros(len(order), bool)
        is_several[1:] |= same
        is_several[:-1] |= same
        several = known[order[is_several]]
        if len(several) == 0:
            return
        by_time = np.lexsort(
            (
                self.judgment[several, 1],
                self.judgment[several, 0],
                self.record[several],
                self.file[several],
                self.drop[several],
                self.time[several],
                self.annotator[several],
                self.pair[several],
            )
        )
        several = several[by_time]
        is_last = np.ones(len(several), bool)
        is_last[:-1] = (self.pair[several][1:] != self.pair[several][:-1]) | (
            self.annotator[several][1:] != self.annotator[several][:-1]
        )
        self.status[several[~is_last]] = Status.REPEAT


PER_JUDGMENT = tuple(name for name in Verdicts.__slots__ if name not in {"annotators", "sources"})
CODED = ("choice", "annotator", "source", "file")
COLUMNS = (*CODED, "judgment_id", "strength", "votes", "judged_at", "record_number", "sft_allowed")


def load_verdicts(drops: Sequence[DropTables], pair_numbers: Sequence[np.ndarray]) -> Verdicts:
    """The judgments of all drops, counted.

    Args:
        drops: In order of arrival.
        pair_numbers: Per drop the number of each of its sketch's pairs among all pairs.

    Raises:
        InputError: If a drop's sketch and judgments do not belong together, or a choice is not known.
    """
    tables, parts = [], []
    for place, (drop, numbers) in enumerate(zip(drops, pair_numbers, strict=True)):
        table = pq.read_table(drop.judgments / JUDGMENTS_FILE, columns=list(COLUMNS), read_dictionary=list(CODED))
        rows = pq.read_table(drop.sketches / ROWS_FILE)
        if len(rows) != len(table):
            raise InputError(
                f"the sketch of drop {drop.name} has {len(rows)} rows, its judgments {len(table)}",
                expected="a sketch made from these judgments",
                do="Materialize the sketches of the drop again",
            )
        parts.append(
            {
                "judgment": _identities(table.column("judgment_id")),
                "pair": numbers[rows.column("pair").to_numpy()].astype(np.int32),
                "drop": np.full(len(table), place, np.int16),
                "row": np.arange(len(table)),
                "b_is_low": rows.column("b_is_low").to_numpy(),
            }
        )
        tables.append(table.drop_columns(["judgment_id"]))
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    verdicts = _assemble(arrays, pa.concat_tables(tables).unify_dictionaries().combine_chunks())
    verdicts.count()
    return verdicts


def _assemble(arrays: dict[str, np.ndarray], table: pa.Table) -> Verdicts:
    """Verdicts in canonical order from what the sketches and the judgments tables say."""
    names: dict[str, list[str]] = {}
    for name in CODED:
        names[name], arrays[name] = _codes(table.column(name))
    choice = _known_choices(names.pop("choice"))[arrays["choice"]]
    toward_b = np.select([choice == Choice.A, choice == Choice.B], [-1, 1], 0)
    arrays["choice"] = choice
    arrays["side"] = (toward_b * np.where(arrays["b_is_low"], LOW, HIGH)).astype(np.int8)
    # The choice says which side; the strength only how much, and at least 1 where a side was chosen.
    strength = np.clip(np.abs(table.column("strength").to_numpy()), 1, 3)
    arrays["strength"] = np.where(arrays["side"] == 0, 0, strength).astype(np.int8)
    arrays["votes"] = np.maximum(table.column("votes").to_numpy(), 1).astype(np.int32)
    arrays["time"] = pc.fill_null(table.column("judged_at").cast(pa.int64()), NO_TIME).to_numpy()
    arrays["record"] = table.column("record_number").to_numpy()
    arrays["sft_allowed"] = table.column("sft_allowed").to_numpy()
    arrays["source"], arrays["file"] = arrays["source"].astype(np.int16), arrays["file"].astype(np.int32)
    order = np.lexsort((arrays["drop"], arrays["judgment"][:, 1], arrays["judgment"][:, 0], arrays["pair"]))
    arrays = {name: values[order] for name, values in arrays.items()}
    status = np.full(len(order), Status.COUNTED, np.int8)
    return Verdicts(**arrays, status=status, annotators=names["annotator"], sources=names["source"])


def _codes(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The distinct values sorted, and each row's place among them, -1 for null."""
    chunks = column.chunks or [pa.array([], pa.dictionary(pa.int32(), pa.string()))]
    values = chunks[0].dictionary.to_pylist()
    names = sorted(set(values))
    places = {name: place for place, name in enumerate(names)}
    table = np.array([*(places[value] for value in values), -1], np.int32)
    codes = np.concatenate([pc.fill_null(chunk.indices, len(values)).to_numpy() for chunk in chunks])
    return names, table[codes]


def _known_choices(names: Sequence[str]) -> np.ndarray:
    unknown = [name for name in names if name.upper() not in Choice.__members__]
    if unknown:
        raise InputError(
            f"the judgments hold the choice {unknown[0]!r}",
            expected=f"one of {', '.join(choice.name.lower() for choice in Choice)}",
            do="Materialize the judgments of the drop again",
        )
    return np.array([*(Choice[name.upper()] for name in names), 0], np.int8)


def _identities(column: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate([np.empty((0, 2), np.uint64), *(identifiers.from_hex(chunk) for chunk in column.chunks)])
