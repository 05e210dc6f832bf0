"""Preference pairs in the formats of other trainers and hosted services, one JSON object a line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dpo_pipeline.release.settings import PairFormat

COLUMNS = ["split", "prompt", "chosen", "rejected"]


def write_pair_files(pairs: Path, out: Path, *, pair_format: PairFormat) -> None:
    """Write `<split>.jsonl` for both splits in one format.

    Hosted services refuse any extra field, so nothing but the pair stands in a line; its provenance stays in the
    preference_pairs artifact, in the same order.

    Args:
        pairs: The preference_pairs artifact folder.
        out: Folder to write into; made if missing.
        pair_format: Which format.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (
        pq.ParquetFile(pairs / "pairs.parquet") as table,
        (out / "train.jsonl").open("w", encoding="utf-8") as train,
        (out / "held_out.jsonl").open("w", encoding="utf-8") as held_out,
    ):
        streams = {"train": train, "held_out": held_out}
        for batch in table.iter_batches(columns=COLUMNS):
            for row in batch.to_pylist():
                streams[row["split"]].write(json.dumps(_RECORDS[pair_format](row), ensure_ascii=False) + "\n")


def _trl(row: Mapping[str, Any]) -> dict[str, Any]:
    """TRL's conversational preference format with an explicit prompt, which TRL never has to guess."""
    return {"prompt": row["prompt"], "chosen": [_said(row["chosen"])], "rejected": [_said(row["rejected"])]}


def _openai(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "input": {"messages": row["prompt"]},
        "preferred_output": [_said(row["chosen"])],
        "non_preferred_output": [_said(row["rejected"])],
    }


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


_RECORDS = {PairFormat.TRL: _trl, PairFormat.OPENAI: _openai}
