"""The verdicts of all drops in one file, sorted by pair: merged once by a build, then read a range of pairs at a time.

A sketch holds those of its drop sorted by pair, so merging them is reading them side by side.

Shapes: N judgments, P distinct pairs.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.preferences import identifiers
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.progress import Progress
from dpo_pipeline.preferences.sketch_tables import NAMES_FILE, VERDICTS, VERDICTS_FILE
from dpo_pipeline.preferences.sorted_rows import SortedRows
from dpo_pipeline.preferences.spill import slices
from dpo_pipeline.preferences.texts import JUDGMENTS_FILE, DropTables
from dpo_pipeline.preferences.verdicts import HIGH, LOW, Status, Verdicts

PAIRS_AT_ONCE = 50_000
"""Pairs whose verdicts a build holds at a time; changes no byte of the tables."""
RECORD = np.dtype(
    [
        ("judgment", "<u8", 2),
        ("pair", "<i4"),
        ("drop", "<i2"),
        ("row", "<i8"),
        ("choice", "i1"),
        ("side", "i1"),
        ("strength", "i1"),
        ("votes", "<i4"),
        ("annotator", "<i4"),
        ("time", "<i8"),
        ("file", "<i4"),
        ("record", "<i8"),
        ("source", "<i4"),
        ("sft_allowed", "?"),
        ("b_is_low", "?"),
        ("dimension_start", "<i8"),
        ("dimension_count", "<i4"),
    ]
)
"""A verdict in the merged file; fields as in `Verdicts`, the pair counted from the first of all."""
DIMENSION = np.dtype([("name", "<i4"), ("strength", "<f4")])


class VerdictFile:
    """The verdicts of all drops in one file, sorted by pair; `take` reads those on a range of pairs.

    Attributes:
        annotators: Pseudonyms, sorted.
        sources: Export formats, sorted.
        dimensions: Rubric dimensions, sorted.
        drops: Names of the drops.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._scratch = scratch = catalogue.scratch
        self.drops = [drop.name for drop in catalogue.drops]
        self._pair_count = len(catalogue.pairs.ids)
        self._rows, self._dimensions = scratch.rows(RECORD), scratch.rows(DIMENSION)
        self._starts = scratch.empty(self._pair_count + 1, np.int64)
        names, self._places = _all_names(catalogue.drops)
        self.annotators, self.sources = names["annotator"], names["source"]
        self.dimensions = names["dimension"]

    def __len__(self) -> int:
        return len(self._rows)

    @classmethod
    def merge(cls, catalogue: Catalogue, reporter: Reporter) -> "VerdictFile":
        """The verdicts of all drops of a catalogue, in its scratch.

        Raises:
            InputError: If a drop's sketch and judgments do not belong together.
        """
        merged, drops, numbers = cls(catalogue), catalogue.drops, catalogue.pairs.numbers
        progress = Progress(reporter, "judgments merged", sum(map(_checked_count, drops)))
        readers = [SortedRows(drop.sketches / VERDICTS_FILE, VERDICTS.names, _pair) for drop in drops]
        for start, end in merged._ranges():
            before = len(merged)
            tables = [
                reader.until(int(np.searchsorted(own, end))) for reader, own in zip(readers, numbers, strict=True)
            ]
            parts = [merged._records(drop, *some) for drop, some in enumerate(zip(tables, numbers, strict=True))]
            merged._append(parts, start, end)
            progress.add(len(merged) - before)
        return merged

    def take(self, start: int, end: int) -> Verdicts:
        """The verdicts on the pairs from `start` to before `end`, counted; pairs are numbered from 0 at `start`."""
        records = self._read(start, end)
        arrays = {name: np.ascontiguousarray(records[name]) for name in RECORD.names or ()}
        arrays["pair"] -= start
        status = np.full(len(records), Status.COUNTED, np.int8)
        verdicts = Verdicts(end - start, **arrays, status=status, annotators=self.annotators, sources=self.sources)
        verdicts.count()
        return verdicts

    def slices(self) -> Iterator[tuple[int, int, Verdicts]]:
        """All pairs in ranges, with the verdicts on each: the first, the one after the last, the verdicts."""
        for start, end in self._ranges():
            yield start, end, self.take(start, end)
            self._scratch.let_go()

    def move(self, losers: np.ndarray, winners: np.ndarray) -> None:
        """Let the judgments of some pairs, ascending, count for others; sides keep their names.

        The file is written once more, so that no later reading has to put them into their places.
        """
        sizes, at = self._starts[losers + 1] - self._starts[losers], 0
        moved = self._scratch.empty(int(sizes.sum()), RECORD)
        for start, end in self._ranges():
            records, own = self._read(start, end), slice(*np.searchsorted(losers, (start, end)))
            some = records[np.isin(records["pair"], losers[own])]
            some["pair"] = np.repeat(winners[own], sizes[own])
            moved[at : at + len(some)] = some
            at += len(some)
        moved[:] = _sorted(moved)
        rows, starts = self._scratch.rows(RECORD), self._scratch.empty(len(self._starts), np.int64)
        for start, end in self._ranges():
            records, gone = self._read(start, end), losers[slice(*np.searchsorted(losers, (start, end)))]
            new = moved[slice(*np.searchsorted(moved["pair"], (start, end)))]
            records = _joined(records[~np.isin(records["pair"], gone)], new)
            starts[start : end + 1] = len(rows) + np.searchsorted(records["pair"], np.arange(start, end + 1))
            rows.append(records)
            self._scratch.let_go()
        self._rows, self._starts = rows, starts

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """All pairs, `PAIRS_AT_ONCE` at a time: the first, and the one after the last."""
        return ((some.start, some.stop) for some in slices(self._pair_count, PAIRS_AT_ONCE))

    def _read(self, start: int, end: int) -> np.ndarray:
        """The records on the pairs from `start` to before `end`."""
        return self._rows.read(int(self._starts[start]), int(self._starts[end]))

    def dimensions_of(self, verdicts: Verdicts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The dimensions of some verdicts: of which verdict, number of the name, strength toward b, `(S,)` each."""
        some = np.flatnonzero(verdicts.dimension_count)
        some = some[np.argsort(verdicts.dimension_start[some], kind="stable")]
        start, count = verdicts.dimension_start[some], verdicts.dimension_count[some]
        breaks = np.flatnonzero(np.append(True, start[1:] != (start + count)[:-1])) if len(some) else some
        ends = np.append(breaks[1:], len(some)) - 1 if len(some) else some
        runs = [
            self._dimensions.read(int(start[one]), int(start[last] + count[last]))
            for one, last in zip(breaks, ends, strict=True)
        ]
        entries = np.concatenate([np.zeros(0, DIMENSION), *runs])
        return np.repeat(some, count), entries["name"], entries["strength"]

    def _records(self, drop: int, table: pa.Table, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some verdicts of a drop as records, whose dimensions start at 0, and those dimensions."""
        given = {name: table.column(name).combine_chunks() for name in table.schema.names}
        records = np.zeros(len(table), RECORD)
        records["judgment"] = identifiers.from_binary(given["judgment_id"])
        records["pair"], records["drop"] = numbers[given["pair"].to_numpy()], drop
        for name, column_name in (("time", "judged_at"), ("record", "record_number")):
            records[name] = given[column_name].to_numpy()
        for name in ("row", "b_is_low", "choice", "sft_allowed"):
            records[name] = given[name].to_numpy(zero_copy_only=False)
        for name in ("annotator", "source", "file"):
            records[name] = self._places[drop][name][given[name].to_numpy()]
        # The choice says which side; the strength only how much, and at least 1 where a side was chosen.
        toward_b = np.array([-1, 1, 0, 0, 0, 0], np.int8)[records["choice"]]
        records["side"] = toward_b * np.where(records["b_is_low"], LOW, HIGH)
        strength = np.clip(np.abs(given["strength"].to_numpy()), 1, 3)
        records["strength"] = np.where(records["side"] == 0, 0, strength)
        records["votes"] = np.maximum(given["votes"].to_numpy(), 1)
        sizes, entries = pc.list_value_length(given["dimensions"]).to_numpy(), given["dimensions"].flatten()
        records["dimension_count"], records["dimension_start"] = sizes, np.cumsum(sizes) - sizes
        dimensions = np.zeros(len(entries), DIMENSION)
        dimensions["name"] = self._places[drop]["dimension"][entries.field("name").to_numpy()]
        dimensions["strength"] = entries.field("strength").to_numpy()
        return records, dimensions

    def _append(self, parts: list[tuple[np.ndarray, np.ndarray]], start: int, end: int) -> None:
        base = len(self._dimensions)
        for records, dimensions in parts:
            records["dimension_start"] += base
            base += len(dimensions)
            self._dimensions.append(dimensions)
        filled = [records for records, _ in parts if len(records)]
        records = np.concatenate(filled) if filled else np.zeros(0, RECORD)
        if len(filled) > 1:
            records = _sorted(records)
        self._starts[start : end + 1] = len(self._rows) + np.searchsorted(records["pair"], np.arange(start, end + 1))
        self._rows.append(records)


def _pair(rows: pa.Table) -> np.ndarray:
    return rows.column("pair").to_numpy()


def _sorted(records: np.ndarray) -> np.ndarray:
    """The records by pair, then judgment id, then drop; little work where they are sorted runs."""
    return _sorted_within(records[np.argsort(records["pair"], kind="stable")])


def _joined(records: np.ndarray, few: np.ndarray) -> np.ndarray:
    """Sorted records and a few more of them, sorted as well, in one order."""
    return _sorted_within(np.insert(records, np.searchsorted(records["pair"], few["pair"], "right"), few))


def _sorted_within(records: np.ndarray) -> np.ndarray:
    """The records, which stand by pair already, with those on each pair by judgment id, then drop."""
    pair, drop, judgment = records["pair"], records["drop"], records["judgment"]
    is_same = pair[1:] == pair[:-1]
    is_less = identifiers.is_less(judgment[1:], judgment[:-1])
    is_less |= (judgment[1:] == judgment[:-1]).all(axis=1) & (drop[1:] < drop[:-1])
    mixed = np.flatnonzero(np.isin(pair, pair[1:][is_same & is_less]))
    some = records[mixed]
    judgment = some["judgment"]
    records[mixed] = some[np.lexsort((some["drop"], judgment[:, 1], judgment[:, 0], some["pair"]))]
    return records


def _checked_count(drop: DropTables) -> int:
    """How many judgments the drop has, by its judgments and by its sketch."""
    rows, judged = (
        pq.read_metadata(path).num_rows for path in (drop.sketches / VERDICTS_FILE, drop.judgments / JUDGMENTS_FILE)
    )
    if rows != judged:
        raise InputError(
            f"the sketch of drop {drop.name} has {rows} rows, its judgments {judged}",
            expected="a sketch made from these judgments",
            do="Materialize the sketches of the drop again",
        )
    return rows


def _all_names(drops: Sequence[DropTables]) -> tuple[dict[str, list[str]], list[dict[str, np.ndarray]]]:
    """Per kind the names of all drops, sorted, and per drop the place of each of its names among them, then -1."""
    tables = [pq.read_table(drop.sketches / NAMES_FILE).to_pylist() for drop in drops]
    kinds = ("annotator", "dimension", "file", "source")
    own = [{kind: [row["name"] for row in table if row["kind"] == kind] for kind in kinds} for table in tables]
    names = {kind: sorted(set().union(*(some[kind] for some in own))) for kind in kinds}
    place = {kind: {name: number for number, name in enumerate(names[kind])} for kind in kinds}
    return names, [
        {kind: np.array([*(place[kind][name] for name in some[kind]), -1], np.int32) for kind in kinds} for some in own
    ]
