"""What judgments say beside their verdicts: the order on screen, the seconds, the justification; kept in scratch.

Shapes: N judgments, A annotators.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.preferences.identifiers import blake2b_128
from dpo_pipeline.preferences.normalize import normalise_once_each
from dpo_pipeline.preferences.spill import Scratch, slices
from dpo_pipeline.preferences.texts import JUDGMENTS_FILE, DropTables
from dpo_pipeline.preferences.verdicts import Verdicts

BATCH_ROWS = 65_536
_RECORD = ("file_sha256", "record_number", "annotator")
SHOWN_A, SHOWN_B = 1, 2
"""Which response stood first on screen; 0 where it is not known."""
MANNER = np.dtype([("shown", "i1"), ("seconds", "<f4"), ("reason", "<u8"), ("words", "<i4")])


class Manners(NamedTuple):
    """What a judgment says beside its verdict, in the order of the verdicts, `(N,)` each.

    `first_is_low` is 1 where the low response stood first on screen, 0 where it did not, -1 where unknown; `reason`
    is a hash of the justification, 0 where there is none, or where the record's pair before has it: who ranks four
    responses gives one reason for six pairs. `words` is its length, with each pair that has it.
    """

    first_is_low: np.ndarray
    seconds: np.ndarray
    reason: np.ndarray
    words: np.ndarray


class MannerFile:
    """The manners of all judgments, in scratch in the order of the judgments tables.

    Args:
        drops: In order of arrival.
        scratch: Where they lie.
    """

    def __init__(self, drops: Sequence[DropTables], scratch: Scratch) -> None:
        self._starts = [0]
        for drop in drops:
            self._starts.append(self._starts[-1] + pq.read_metadata(drop.judgments / JUDGMENTS_FILE).num_rows)
        self._rows = scratch.empty(self._starts[-1], MANNER)
        columns = [*_RECORD, "shown_first", "seconds", "justification"]
        for start, drop in zip(self._starts, drops, strict=False):
            with pq.ParquetFile(drop.judgments / JUDGMENTS_FILE, pre_buffer=False) as file:
                at, before = start, None
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                    self._rows[at : at + batch.num_rows] = _manners(batch, before)
                    at, before = at + batch.num_rows, batch.slice(batch.num_rows - 1)
            scratch.let_go()

    def of(self, verdicts: Verdicts) -> Manners:
        """Those of some verdicts."""
        rows = self._rows[np.array(self._starts)[verdicts.drop] + verdicts.row]
        first_is_low = np.where(rows["shown"] > 0, (rows["shown"] == SHOWN_B) == verdicts.b_is_low, -1)
        return Manners(first_is_low, rows["seconds"], rows["reason"], rows["words"])


def _manners(batch: pa.RecordBatch, before: pa.RecordBatch | None) -> np.ndarray:
    """The manners of some judgments; `before` is the one before them, None where they are the first."""
    shown, seconds, reason = (batch.column(name) for name in ("shown_first", "seconds", "justification"))
    rows = np.zeros(batch.num_rows, MANNER)
    for side, number in (("a", SHOWN_A), ("b", SHOWN_B)):
        is_first = pc.fill_null(pc.equal(shown, side), fill_value=False)
        rows["shown"][is_first.to_numpy(zero_copy_only=False)] = number
    rows["seconds"] = pc.fill_null(seconds, np.nan).to_numpy(zero_copy_only=False)
    text = normalise_once_each(pc.fill_null(reason, ""))
    is_given = pc.not_equal(text, "").to_numpy(zero_copy_only=False)
    is_own = is_given & ~_as_before(batch, before)
    rows["reason"] = np.where(is_own, np.maximum(blake2b_128(text)[:, 0], np.uint64(1)), np.uint64(0))
    rows["words"] = np.where(is_given, pc.add(pc.count_substring(text, " "), 1).to_numpy(), 0)
    return rows


def _as_before(batch: pa.RecordBatch, before: pa.RecordBatch | None) -> np.ndarray:
    """Whether the judgment before is of the same record and annotator and gives the same justification, `(N,)`."""
    same, count = np.ones(batch.num_rows, bool), batch.num_rows
    for name in (*_RECORD, "justification"):
        values = pa.concat_arrays([(before or batch.slice(0, 1)).column(name), batch.column(name)])
        equal = pc.equal(values.slice(1), values.slice(0, count))
        both_unknown = pc.and_(values.slice(1).is_null(), values.slice(0, count).is_null())
        same &= pc.fill_null(pc.or_kleene(equal, both_unknown), fill_value=False).to_numpy(zero_copy_only=False)
    same[:1] &= before is not None
    return same


class ValuesByAnnotator:
    """Values of one type, put aside with whose they are: a median wants all of a person's at once.

    They lie in scratch, and are sorted there.

    Args:
        scratch: Where they lie.
        dtype: Of the values.
    """

    def __init__(self, scratch: Scratch, dtype: np.typing.DTypeLike) -> None:
        self._scratch, self._dtype = scratch, np.dtype(dtype)
        self._rows = scratch.rows(np.dtype([("annotator", "<i4"), ("value", self._dtype)]))

    def add(self, annotator: np.ndarray, value: np.ndarray) -> None:
        """Put values of known annotators aside, `(N,)` each."""
        rows = np.empty(len(annotator), self._rows.dtype)
        rows["annotator"], rows["value"] = annotator, value
        self._rows.append(rows)

    def sorted_by_annotator(self, count: int) -> Iterator[np.ndarray]:
        """The values of each of A annotators in turn, ascending."""
        sizes = np.zeros(count, np.int64)
        for some in slices(len(self._rows)):
            sizes += np.bincount(self._rows.read(some.start, some.stop)["annotator"], minlength=count)
        ends = np.cumsum(sizes)
        free, values = ends - sizes, self._scratch.empty(len(self._rows), self._dtype)
        for some in slices(len(self._rows)):
            rows = self._rows.read(some.start, some.stop)
            rows = rows[np.argsort(rows["annotator"], kind="stable")]
            own = np.bincount(rows["annotator"], minlength=count)
            values[np.repeat(free - (np.cumsum(own) - own), own) + np.arange(len(rows))] = rows["value"]
            free += own
        self._scratch.let_go()
        for start, end in zip((ends - sizes).tolist(), ends.tolist(), strict=True):
            values[start:end].sort()
            yield values[start:end]

    def medians(self, count: int) -> np.ndarray:
        """The median of each of A annotators, NaN where there is no value, `(A,)` float64."""
        return np.array([_median(values) for values in self.sorted_by_annotator(count)], float)

    def most_frequent(self, count: int) -> np.ndarray:
        """How often the most frequent value of each of A annotators occurs, `(A,)` int64."""
        return np.array([_longest_run(values) for values in self.sorted_by_annotator(count)], np.int64)


def _median(values: np.ndarray) -> float:
    size = len(values)
    return (float(values[(size - 1) // 2]) + float(values[size // 2])) / 2 if size else np.nan


def _longest_run(values: np.ndarray) -> int:
    """How many equal ones stand together at most."""
    longest, run, last = 0, 0, None
    for some in slices(len(values)):
        part = values[some]
        starts = np.concatenate([[0], np.flatnonzero(part[1:] != part[:-1]) + 1])
        runs = np.diff(np.append(starts, len(part)))
        runs[0] += run if last is not None and part[0] == last else 0
        longest, run, last = max(longest, int(runs.max())), int(runs[-1]), part[-1]
    return longest
