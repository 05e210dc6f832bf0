"""Small judgments tables, written as the annotations room writes them."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa

from dpo_pipeline.annotations.schemas import DEMONSTRATIONS, JUDGMENTS
from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.preferences import (
    all_pairs,
    catalogue,
    likeness,
    manners,
    near_duplicates,
    prompt_index,
    sketch,
    spill,
    texts,
    under_keys,
    verdict_file,
    write,
)
from dpo_pipeline.preferences.build import DropTables, build_pairs
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.sketch import sketch_drop

STRENGTHS = {"a": -2, "b": 2}


def judgment(prompt, a, b, choice="a", annotator="ann-1", **given):
    """One row of the judgments table; a prompt given as text is a single user turn."""
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    row = {
        "source": "test",
        "file": "export.jsonl",
        "file_sha256": "0" * 64,
        "record_number": 1,
        "prompt": turns,
        "response_a": a,
        "response_b": b,
        "choice": choice,
        "strength": STRENGTHS.get(choice, 0),
        "annotator": annotator,
        "votes": 1,
        "dimensions": [],
        "justification": None,
        "shown_first": None,
        "seconds": None,
        "judged_at": None,
        "guideline_version": None,
        "group_id": None,
        "sft_allowed": True,
        **given,
    }
    if "judgment_id" not in row:
        text = repr(sorted((name, value) for name, value in row.items()))
        row["judgment_id"] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return row


def write_demonstrations(folder, drop, prompts):
    """A demonstrations artifact's folder; every prompt is answered alike."""
    rows = [
        {
            "demonstration_id": f"{drop}-{number}",
            "drop": drop,
            "source": "test",
            "file": "d.jsonl",
            "file_sha256": "1" * 64,
            "record_number": number,
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "So it is."}],
        }
        for number, text in enumerate(prompts)
    ]
    write_table(folder / "demonstrations.parquet", pa.Table.from_pylist(rows, schema=DEMONSTRATIONS))
    return folder


class HiddenLikeness:
    """A crowd whose near copies are given as pairs of prompts, `(E, 2)`; no edge need lead between them."""

    def __init__(self, count, edges):
        self.prompts, self.edges = np.arange(count), edges

    def near(self, asked, others):
        linked = np.concatenate([self.edges, self.edges[:, ::-1]])
        return np.isin(asked, linked[np.isin(linked[:, 1], others), 0])


def tiny(patch):
    """Nothing but a few rows is ever in memory."""
    for module, name, value in (
        (texts, "BATCH_ROWS", 5),
        (spill, "PENDING_BYTES", 300),
        (spill, "RANGE_ROWS", 4),
        (spill, "MOST_MAPPED", 0),
        (sketch, "ROWS_AT_ONCE", 3),
        (catalogue, "IDS_AT_ONCE", 4),
        (verdict_file, "PAIRS_AT_ONCE", 2),
        (near_duplicates, "MOST_PENDING", 3),
        (near_duplicates, "ROWS_AT_ONCE", 4),
        (near_duplicates, "ROWS_PER_PIECE", 2),
        (likeness, "EDGES_PER_READING", 2),
        (write, "TEXTS_AT_ONCE", 2),
        (under_keys, "ROWS_AT_ONCE", 2),
        (prompt_index, "CANDIDATES_AT_ONCE", 3),
        (prompt_index, "PAIRS_OF_A_CROWD", 2),
        (prompt_index, "ASKED_AT_ONCE", 3),
        (all_pairs, "OTHERS_AT_ONCE", 2),
        (all_pairs, "PAIRS_AT_ONCE", 3),
        (manners, "BATCH_ROWS", 3),
    ):
        patch.setattr(module, name, value)


class World:
    """Drops written and built below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers = folder, itertools.count()

    def new_folder(self, name: str) -> Path:
        folder = self.folder / f"{next(self.numbers):03}-{name}"
        folder.mkdir(parents=True)
        return folder

    def drop(self, name, rows, *, taught=(), settings=None):
        """A drop of judgments, and of demonstrations that answer some prompts."""
        judgments, sketches = self.new_folder("judgments"), self.new_folder("sketches")
        table = pa.Table.from_pylist([{**row, "drop": name} for row in rows], schema=JUDGMENTS)
        write_table(judgments / "judgments.parquet", table)
        demonstrations = write_demonstrations(self.new_folder("demonstrations"), name, taught) if taught else None
        sketch_drop(
            judgments,
            sketches,
            demonstrations=demonstrations,
            settings=settings or PreferenceSettings(),
            reporter=Quiet(),
        )
        return DropTables(name, judgments, sketches)

    def build(self, *drops, settings=None, known=()):
        out = self.new_folder("pairs")
        outcome = build_pairs(drops, out, settings=settings or PreferenceSettings(), reporter=Quiet(), known=known)
        return out, outcome
