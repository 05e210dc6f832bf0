"""Prompts the evaluation asks, and prompts so like them that learning them would be learning the answers.

The same sketches and the same similarity as in the preference split: MinHash proposes, true Jaccard decides.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.tables import MESSAGES
from dpo_pipeline.preferences.golden import held_out_rows
from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.kept_out import read_kept_out
from dpo_pipeline.preferences.normalize import prompt_keys
from dpo_pipeline.preferences.personal_data import redact_conversations, redacted_in
from dpo_pipeline.preferences.prompt_index import PromptIndex, sketched
from dpo_pipeline.preferences.shingles import rows_of

PAIRS, SPLITS = "pairs.parquet", "splits.parquet"


class HeldOutPrompts:
    """The evaluation's side of the preference split, a golden set's prompts included.

    Args:
        pairs: The `preference_pairs` artifact folder.
        similarity: Jaccard similarity of word 2-grams from which a prompt counts as a copy of a held-out one.
    """

    def __init__(self, pairs: Path, *, similarity: float) -> None:
        splits = pq.read_table(pairs / SPLITS, columns=["prompt_id", "split"])
        held_out = held_out_rows(pairs, ["pair_id", "prompt_id", "prompt"])
        self._ids = set(splits.filter(pc.field("split") != "train")["prompt_id"].to_pylist())
        self._ids |= set(held_out["prompt_id"].to_pylist())
        self._redacted = redacted_in(pairs / PAIRS)
        self._index = PromptIndex(self.as_compared(held_out["prompt"].combine_chunks()), similarity=similarity)
        self._without_pair = _without_pair(pairs, set(held_out["prompt_id"].to_pylist()), similarity)

    def reasons(self, prompts: list[list[dict[str, str]]]) -> tuple[list[str], list[str | None]]:
        """What each prompt is as it is learned, and why it is kept out of training.

        Returns:
            Ids of the prompts as they are compared, so that those that differ in an address only are one and the same;
            `prompt_held_out`, `prompt_near_held_out` or None.
        """
        delivered = pa.array(prompts, MESSAGES)
        compared = self.as_compared(delivered)
        sets, keys = sketched(compared)
        near = np.logical_or(
            *(index.search(keys, lambda rows: rows_of(sets, rows)) for index in (self._index, self._without_pair))
        ).tolist()
        return to_hex(prompt_keys(compared)).to_pylist(), [
            "prompt_held_out" if name in self._ids else "prompt_near_held_out" if is_near else None
            for name, is_near in zip(to_hex(prompt_keys(delivered)).to_pylist(), near, strict=True)
        ]

    def as_compared(self, prompts: pa.ListArray) -> pa.ListArray:
        """Prompts as they read once the personal data are taken out that the tables' rules take out."""
        return redact_conversations(prompts, rules=self._redacted)


def _without_pair(pairs: Path, known: set[str], similarity: float) -> PromptIndex:
    """The prompts the split keeps out of training of which no held-out pair is left: ties, and what is quarantined."""
    ids, sets = read_kept_out(pairs)
    return PromptIndex(rows_of(sets, np.flatnonzero([name not in known for name in ids])), similarity=similarity)
