"""Which pair overlaps with which item of which benchmark: kept by every sketch, joined and counted by the build."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.tables import column, table_schema, write_table
from dpo_pipeline.preferences import identifiers
from dpo_pipeline.preferences.benchmarks import item_counts, overlaps
from dpo_pipeline.preferences.schemas import BENCHMARK_OVERLAPS
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.texts import DropTables

OVERLAPS_FILE = "benchmark_overlaps.parquet"
SKETCH_OVERLAPS = table_schema(
    "sketch_benchmark_overlaps",
    1,
    [
        column("pair_id", pa.binary(16), "Identity of the pair."),
        column("benchmark", pa.int32(), "Place of the file in the settings' benchmarks."),
        column("item", pa.int64(), "Number of the item in the file, from 1."),
    ],
)


class OverlapsOfDrop:
    """Gathers a drop's overlaps; the pairs come in the order of their identities."""

    def __init__(self, settings: PreferenceSettings) -> None:
        self._files = settings.benchmarks
        self._found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def put(self, pair_ids: np.ndarray, user_turns: pa.StringArray, hits: np.ndarray) -> None:
        """Take some pairs, `(N, 2)`, of which the rule found those that are `hits`, `(N,)`."""
        if hits.any():
            text, file, item = overlaps(user_turns.filter(pa.array(hits)), self._files)
            order = np.lexsort((item, file, text))
            self._found.append((pair_ids[hits][text[order]], file[order], item[order]))

    def write(self, out: Path) -> None:
        """Write them, sorted; a drop without any has an empty table."""
        none = (np.zeros((0, 2), np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))
        pair_ids, file, item = (np.concatenate(some) for some in zip(none, *self._found, strict=True))
        arrays = [identifiers.to_binary(pair_ids), pa.array(file, pa.int32()), pa.array(item, pa.int64())]
        write_table(out / OVERLAPS_FILE, pa.Table.from_arrays(arrays, schema=SKETCH_OVERLAPS))


def write_contamination(out: Path, drops: Sequence[DropTables], settings: PreferenceSettings) -> dict[str, Any]:
    """Write `benchmark_overlaps.parquet`, and count per benchmark; nothing where the settings name none.

    Returns:
        `benchmark_overlaps`: by the benchmark's name its `items`, `items_met` (in any prompt) and `pairs_found`.
    """
    if not settings.benchmarks:
        return {}
    found = pa.concat_tables([pq.read_table(drop.sketches / OVERLAPS_FILE) for drop in drops]).combine_chunks()
    found = (
        found.group_by(found.column_names).aggregate([]).sort_by([(name, "ascending") for name in found.column_names])
    )
    names = [file.label for file in settings.benchmarks]
    place = found.column("benchmark").combine_chunks()
    columns = [
        identifiers.to_hex(identifiers.from_binary(found.column("pair_id").combine_chunks())),
        pa.array(names, pa.string()).take(place),
        pa.array([file.sha256 for file in settings.benchmarks], pa.string()).take(place),
        found.column("item").combine_chunks(),
    ]
    write_table(out / OVERLAPS_FILE, pa.Table.from_arrays(columns, schema=BENCHMARK_OVERLAPS))
    counts = {}
    for number, (name, items) in enumerate(zip(names, item_counts(settings.benchmarks), strict=True)):
        mine = found.filter(pc.equal(found.column("benchmark"), number))
        met, pairs = (pc.count_distinct(mine.column(which)).as_py() for which in ("item", "pair_id"))
        counts[name] = {"items": items, "items_met": met, "pairs_found": pairs}
    return {"benchmark_overlaps": counts}
