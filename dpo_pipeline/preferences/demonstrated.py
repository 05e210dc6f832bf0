"""Demonstrations in the ledger of splits: what an earlier drop may have taught a model is held out no more.

Whatever a drop brings as a demonstration may be learned from the next training on, unless the split keeps it out. So a
prompt that a later drop brings for the first time, and that is one of those or like one, is no question any more to a
model that may have been told the answer (`docs/decisions/0010`).

Shapes: M prompts of pairs, T prompts of demonstrations, R of both together that share a key.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.tables import ROW_GROUP_ROWS, RowGroups, column, table_schema
from dpo_pipeline.preferences.catalogue import Catalogue, SketchedPrompts
from dpo_pipeline.preferences.identifiers import from_hex, places, to_hex
from dpo_pipeline.preferences.likeness import found_among
from dpo_pipeline.preferences.near_duplicates import are_among, under
from dpo_pipeline.preferences.shingles import NO_KEY, Shingles
from dpo_pipeline.preferences.sketch_tables import TAUGHT_FILE, TAUGHT_SHINGLES_FILE
from dpo_pipeline.preferences.spill import slices
from dpo_pipeline.preferences.split import HELD_OUT, QUARANTINED
from dpo_pipeline.preferences.under_keys import UnderKeys

DEMONSTRATED_FILE = "demonstrated_prompts.parquet"
DEMONSTRATED = table_schema(
    "demonstrated_prompts",
    1,
    [
        column("prompt_id", pa.string(), "Identity of a demonstration's prompt; the table is sorted by it."),
        column("first_drop", pa.string(), "The drop in which it first appeared as a demonstration."),
        column(
            "is_kept_out",
            pa.bool_(),
            "Whether it was, when it came, one that the split keeps out of training or like one: no model learns it.",
        ),
    ],
)


class Known(NamedTuple):
    """What an earlier build found in so many of the first drops: prompts like demonstrations, and those kept out."""

    drops: int
    like: np.ndarray
    kept_out: np.ndarray


class Demonstrations:
    """The demonstrations of all drops, asked in the order of the drops as the split is replayed.

    Laws: a prompt is like a demonstration if they are one and the same, or share the key of any band and are alike
    enough; what an earlier build found saves the search and changes nothing.

    Args:
        catalogue: The prompts of the pairs.
        similarity: Jaccard similarity of word 2-grams from which a prompt is a near copy.
        reporter: Told now and then how far a search is.

    Attributes:
        prompts: Those of the demonstrations.
        first_drop: The drop each first came with, `(T,)`.
        is_kept_out: Whether no model learns it, `(T,)` bool; known of a drop once it was told to `learn`.
        is_like: Prompts of pairs that are like one that may have been learned before they came, `(M,)` bool.
    """

    def __init__(self, catalogue: Catalogue, *, similarity: float, reporter: Reporter | None = None) -> None:
        self._catalogue, scratch = catalogue, catalogue.scratch
        which = [at for at, drop in enumerate(catalogue.drops) if has_demonstrations(drop.sketches)]
        drops = [catalogue.drops[at] for at in which]
        self.prompts = SketchedPrompts(drops, TAUGHT_FILE, TAUGHT_SHINGLES_FILE, scratch)
        self.first_drop = np.array(which, np.int16)[self.prompts.place.drop]
        self.is_kept_out = scratch.empty(len(self.first_drop), bool)
        self.is_like = scratch.empty(len(catalogue.prompts.ids), bool)
        self._is_golden = np.zeros(len(self.first_drop), bool)
        self._same = places(catalogue.prompts.ids, self.prompts.ids)
        self._known = Known(0, *np.zeros((2, 0), np.int64))
        self._digests = dict(zip(which, self.prompts.digests, strict=True))
        # Rows are the prompts of pairs, then those of demonstrations.
        self._noted = UnderKeys(
            len(catalogue.prompts.ids) + len(self.first_drop),
            self._shingles_of,
            similarity=similarity,
            scratch=scratch,
            reporter=reporter,
        )

    @property
    def drops(self) -> int:
        """How many drops there are."""
        return len(self._catalogue.drops)

    def among(self, drop: int) -> str:
        """What the demonstrations of a drop are: the same for the same prompts, empty where there is none."""
        return self._digests.get(drop, "")

    def begin(self, known: Known | None, is_golden: np.ndarray | None) -> None:
        """Find which prompts may be alike at all; before anything is asked.

        Args:
            known: What an earlier build found.
            is_golden: Which of the demonstrations' prompts are like the golden set's, `(T,)` bool.
        """
        self._known = known or self._known
        self._is_golden = self._is_golden if is_golden is None else is_golden
        self._note()
        count, rows = len(self._catalogue.prompts.ids), self._noted.rows
        self._asked, self._taught = np.split(rows, [np.searchsorted(rows, count)])
        self._taught = self._taught - count

    def like(self, drop: int) -> np.ndarray:
        """The prompts that first came with a drop and are like what earlier drops may have taught, ascending."""
        first_drop = self._catalogue.prompts.place.drop
        if drop < self._known.drops:
            found = self._known.like[first_drop[self._known.like] == drop]
        else:
            is_learned = (self.first_drop < drop) & ~self.is_kept_out
            asked = np.flatnonzero(first_drop[self._asked] == drop)
            others = len(self._asked) + np.flatnonzero(is_learned[self._taught])
            same = self._same[is_learned & (self._same >= 0)]
            found = np.union1d(self._asked[asked[self._noted.near(asked, others)]], same[first_drop[same] == drop])
        self.is_like[found] = True
        return found

    def learn(self, drop: int, side: np.ndarray) -> None:
        """Take the demonstrations of a drop in: which of them may be learned, now that its prompts have their sides.

        Args:
            drop: The drop.
            side: The side of every prompt so far, `(M,)`; that of later ones is none of the three.
        """
        mine = np.flatnonzero(self.first_drop == drop)
        if drop < self._known.drops:
            self.is_kept_out[mine] = np.isin(mine, self._known.kept_out)
            return
        is_out = np.isin(side, (HELD_OUT, QUARANTINED))
        asked = np.flatnonzero(self.first_drop[self._taught] == drop)
        near = self._taught[asked[self._noted.near(len(self._asked) + asked, np.flatnonzero(is_out[self._asked]))]]
        same = mine[self._same[mine] >= 0]
        for some in (near, same[is_out[self._same[same]]], mine[self._is_golden[mine]]):
            self.is_kept_out[some] = True

    def _note(self) -> None:
        """Note, band by band, who shares a key with one of the other kind, one of the two not searched before."""
        is_new = self._catalogue.prompts.place.drop >= self._known.drops, self.first_drop >= self._known.drops
        if not any(some.any() for some in is_new):
            return
        for keys in zip(self._catalogue.prompt_bands(), self.prompts.bands(), strict=True):
            self._catalogue.scratch.let_go()
            asked, taught = (_meeting(keys[one], is_new[one], keys[1 - one], is_new[1 - one]) for one in (0, 1))
            rows = np.concatenate([asked, len(keys[0]) + taught])
            self._noted.note(rows, np.concatenate([keys[0][asked], keys[1][taught]]))

    def _shingles_of(self, rows: np.ndarray) -> Shingles:
        count = len(self._catalogue.prompts.ids)
        asked, taught = np.split(rows, [np.searchsorted(rows, count)])
        one, other = self._catalogue.prompts.shingles_of(asked), self.prompts.shingles_of(taught - count)
        bounds = np.concatenate([one.bounds, one.bounds[-1] + other.bounds[1:]])
        return Shingles(np.concatenate([one.values, other.values]), bounds)


def has_demonstrations(sketches: Path) -> bool:
    """Whether a drop's sketch holds prompts of demonstrations."""
    return (sketches / TAUGHT_FILE).is_file()


def write_demonstrated(out: Path, catalogue: Catalogue, demonstrations: Demonstrations, among: Sequence[str]) -> None:
    """Write `demonstrated_prompts.parquet`, which says what it rests on as `splits.parquet` does."""
    names = pa.array([drop.name for drop in catalogue.drops], pa.string())
    schema = DEMONSTRATED.with_metadata({**DEMONSTRATED.metadata, **found_among(among)})
    with RowGroups(out / DEMONSTRATED_FILE, schema, unique=("prompt_id",)) as writer:
        for some in slices(len(demonstrations.first_drop), ROW_GROUP_ROWS):
            writer.write(
                {
                    "prompt_id": to_hex(demonstrations.prompts.ids[some]),
                    "first_drop": names.take(pa.array(demonstrations.first_drop[some])),
                    "is_kept_out": pa.array(demonstrations.is_kept_out[some]),
                }
            )


def known_of(splits: Path, drops: int, catalogue: Catalogue, demonstrations: Demonstrations) -> Known:
    """What an earlier build found in the first drops.

    Args:
        splits: Its table of splits, which covers them.
        drops: How many they are.
        catalogue: The prompts of the pairs.
        demonstrations: Those of the demonstrations.
    """
    path = splits.with_name(DEMONSTRATED_FILE)
    like = _ids(splits, "is_like_demonstration")
    kept_out = _ids(path, "is_kept_out") if path.is_file() else np.zeros((0, 2), np.uint64)
    ids = catalogue.prompts.ids, demonstrations.prompts.ids
    return Known(drops, places(ids[0], like), places(ids[1], kept_out))


def _ids(path: Path, column_name: str) -> np.ndarray:
    """The prompts of which a table says so, `(N, 2)`."""
    table = pq.read_table(path, columns=["prompt_id"], filters=[(column_name, "=", True)])
    return from_hex(table.column("prompt_id").combine_chunks())


def _meeting(keys: np.ndarray, is_new: np.ndarray, others: np.ndarray, is_new_other: np.ndarray) -> np.ndarray:
    """The rows that share a key with one of the others, one of the two new; ascending."""
    rows = under(keys, others)
    rows = rows[keys[rows] != NO_KEY]
    return rows[is_new[rows] | are_among(keys[rows], others[is_new_other])]
