"""What no demonstration may be like: every prompt of the split that is not trained on, also where it has no pair left.

A held-out prompt whose pairs are all ties today may have a decided one tomorrow, and a quarantined one never stands in
the table of pairs. Both are written as the hashed word pairs they are compared by, without a word of their texts.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_pipeline.core.tables import RowGroups, column, table_schema
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.shingles import SHINGLE_VERSION, Shingles
from dpo_pipeline.preferences.spill import slices
from dpo_pipeline.preferences.split import SPLIT_NAMES, TRAIN, Splits

KEPT_OUT_FILE = "kept_out_prompts.parquet"
PROMPTS_AT_ONCE = 20_000
"""Prompts whose word pairs are in memory together."""

KEPT_OUT = table_schema(
    "kept_out_prompts",
    1,
    [
        column("prompt_id", pa.string(), "As in preference_pairs; the table is sorted by it."),
        column("split", pa.string(), "held_out or quarantined."),
        column("shingles", pa.list_(pa.uint32()), "The hashed word pairs of its user and assistant turns, normalised."),
    ],
).with_metadata({"table": "kept_out_prompts", "version": "1", "shingle_version": SHINGLE_VERSION})


class KeptOut(NamedTuple):
    """Ids of prompts in hex, and their shingles in the same order."""

    ids: list[str]
    sets: Shingles


def write_kept_out(out: Path, catalogue: Catalogue, splits: Splits) -> None:
    """Write `kept_out_prompts.parquet`."""
    with RowGroups(out / KEPT_OUT_FILE, KEPT_OUT, unique=("prompt_id", "shingles")) as writer:
        for some in slices(len(splits.side), PROMPTS_AT_ONCE):
            prompts = some.start + np.flatnonzero(splits.side[some] != TRAIN)
            sets = catalogue.shingles_of_prompts(prompts)
            offsets, values = pa.array(sets.bounds, pa.int32()), pa.array(sets.values)
            writer.write(
                {
                    "prompt_id": to_hex(catalogue.prompts.ids[prompts]),
                    "split": pa.array(SPLIT_NAMES).take(pa.array(splits.side[prompts])),
                    "shingles": pa.ListArray.from_arrays(offsets, values, type=KEPT_OUT.field("shingles").type),
                }
            )


def read_kept_out(pairs: Path) -> KeptOut:
    """The prompts a preference_pairs artifact folder keeps out of training; none where it was made by earlier code."""
    path = pairs / KEPT_OUT_FILE
    if not path.is_file():
        return KeptOut([], Shingles(np.zeros(0, np.uint32), np.zeros(1, np.int64)))
    table = pq.read_table(path, columns=["prompt_id", "shingles"])
    lists = table.column("shingles").combine_chunks()
    bounds = np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy(), dtype=np.int64)])
    return KeptOut(table.column("prompt_id").to_pylist(), Shingles(lists.flatten().to_numpy(), bounds))
