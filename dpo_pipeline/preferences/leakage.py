"""Whether the split holds: recomputed from the published table, not from the code that made it."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq


def prompts_on_both_sides(pairs: Path) -> list[str]:
    """The prompt ids and cluster ids that stand both in train and in held-out; empty when the split is clean.

    Args:
        pairs: The preference_pairs artifact folder.
    """
    table = pq.read_table(pairs / "pairs.parquet", columns=["prompt_id", "cluster_id", "split"])
    shared: set[str] = set()
    for name in ("prompt_id", "cluster_id"):
        sides = [
            set(table.filter(pc.equal(table["split"], split))[name].to_pylist()) for split in ("train", "held_out")
        ]
        shared |= sides[0] & sides[1]
    return sorted(shared)
