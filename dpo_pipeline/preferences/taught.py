"""The prompts of a drop's demonstrations, named as those of pairs are, for its sketch."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_pipeline.preferences import identifiers
from dpo_pipeline.preferences.naming import ASKED
from dpo_pipeline.preferences.normalize import map_contents, normalise_once_each, once_each, render
from dpo_pipeline.preferences.spill import Spill, range_count

DEMONSTRATIONS_FILE = "demonstrations.parquet"
ROWS_AT_ONCE = 4_096


class Asked(NamedTuple):
    """How many demonstrations there are, and their prompts: rows of `ASKED`, each at least once."""

    rows: int
    prompts: Spill


@contextmanager
def asked_in_demonstrations(demonstrations: Path, folder: Path) -> Iterator[Asked | None]:
    """The prompts of a drop's demonstrations, put aside by identity; None where the drop has none.

    Args:
        demonstrations: Folder of the demonstrations artifact.
        folder: Where the spill goes; it is gone when the block ends.
    """
    with pq.ParquetFile(demonstrations / DEMONSTRATIONS_FILE) as file:
        about = file.metadata
        if not about.num_rows:
            yield None
            return
        size = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
        with closing(Spill(folder, ASKED, range_count(about.num_rows, size))) as spill:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=["messages"]):
                prompts = map_contents(without_last_turns(batch.column("messages")), normalise_once_each)
                ids = once_each(render(prompts), identifiers.blake2b_128)
                first = identifiers.first_of_each(ids[:, 0], ids[:, 1])
                columns = [identifiers.to_binary(ids[first]), prompts.take(pa.array(first))]
                spill.put(ids[first], pa.RecordBatch.from_arrays(columns, schema=ASKED))
            yield Asked(about.num_rows, spill)


def without_last_turns(conversations: pa.ListArray) -> pa.ListArray:
    """Each conversation but its last turn, which is the reply that is learned.

    >>> says = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}]
    >>> [len(turns) for turns in without_last_turns(pa.array([says, says[:1]])).to_pylist()]
    [1, 0]
    """
    sizes = conversations.value_lengths().to_numpy()
    ends = np.cumsum(sizes)
    is_kept = np.ones(int(sizes.sum()), bool)
    is_kept[ends[sizes > 0] - 1] = False
    offsets = np.concatenate([[0], np.cumsum(np.maximum(sizes - 1, 0))])
    turns = conversations.flatten().filter(pa.array(is_kept))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), turns, type=conversations.type)
