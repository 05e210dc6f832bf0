"""The preference pairs as other people's tools take them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset


def as_trl(pairs: Path, *, split: str = "train") -> "Dataset":
    """The pairs of one split in TRL's conversational preference format, memory-mapped by `datasets`.

    In `pairs.parquet` the prompt is a list of messages and each response a text; TRL wants all three to be lists of
    messages. An explicit prompt leaves it nothing to guess.

    Args:
        pairs: A preference_pairs artifact folder.
        split: `train` or `held_out`.

    Returns:
        Rows of `prompt`, `chosen` and `rejected`, in the order of the table.
    """
    import datasets

    table = datasets.Dataset.from_parquet(
        str(pairs / "pairs.parquet"), columns=["split", "prompt", "chosen", "rejected"]
    )
    assert isinstance(table, datasets.Dataset)
    own = table.filter(lambda side: side == split, input_columns="split").remove_columns("split")
    return own.map(_with_messages, desc="to TRL's format")


def _with_messages(row: Mapping[str, Any]) -> dict[str, Any]:
    return {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
