"""Verdicts as arrays, named the same way whichever drop, file or side they came from, and which of them count.

Shapes: N judgments, P pairs, A annotators.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from dpo_pipeline.preferences.sketch_tables import Choice

LOW, HIGH = 1, -1
"""Sides of a pair as signs: toward its low response, toward its high response."""


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
    """Judgments, ordered by pair, then judgment id, then drop: the order never depends on files.

    Attributes:
        judgment: Identities, `(N, 2)` uint64.
        pair_count: P, how many pairs were asked for.
        pair: Number of the pair, counted from the first pair asked for, `(N,)` int32.
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
        source: Number in `sources`, `(N,)` int32.
        sft_allowed: `(N,)` bool.
        b_is_low: Whether the judgment's response b is the pair's low one, `(N,)` bool.
        dimension_start: Where its dimensions start among those of all judgments, `(N,)` int64.
        dimension_count: How many it has, `(N,)` int32.
        status: `Status`, `(N,)` int8; `count` sets it.
        annotators: Pseudonyms, sorted.
        sources: Export formats, sorted.
    """

    pair_count: int
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
    dimension_start: np.ndarray
    dimension_count: np.ndarray
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
        """Decide which judgments count: no skips, nothing delivered twice, an annotator's last word on each pair."""
        self.status[(self.choice == Choice.SKIPPED) & self.is_counted] = Status.SKIPPED
        self.status[(self.choice == Choice.NOT_RATEABLE) & self.is_counted] = Status.NOT_RATEABLE
        self._mark_redelivered()
        self._mark_repeats()

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
