"""Writing the preference tables: sorted by pair, in bounded memory, the same bytes for the same contents.

Every sketch holds its drop's texts cleaned and sorted; they are read side by side, a row group at a time.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dpo_pipeline.core.tables import ROW_GROUP_ROWS, RowGroups
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.cleaning import RULES
from dpo_pipeline.preferences.dimensions import DimensionVerdicts
from dpo_pipeline.preferences.fates import Fates
from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.likeness import found_among
from dpo_pipeline.preferences.lists import annotator_lists, judgment_lists, name_lists
from dpo_pipeline.preferences.personal_data import redacted_by, says_redacted
from dpo_pipeline.preferences.schemas import EXCLUDED_PAIRS, PAIRS, SPLITS
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.split import SPLIT_NAMES, Splits
from dpo_pipeline.preferences.training_texts import TextReader
from dpo_pipeline.preferences.verdict_file import VerdictFile
from dpo_pipeline.preferences.verdicts import Status, Verdicts

PAIRS_FILE, EXCLUDED_FILE, SPLITS_FILE = "pairs.parquet", "excluded_pairs.parquet", "splits.parquet"
UNIQUE = {"pair_id", "prompt_id", "cluster_id", "group_id", "winner_pair_id", "judgment_ids"} | {
    "prompt",
    "chosen",
    "rejected",
}
"""Columns whose values hardly ever repeat."""
TEXTS_AT_ONCE = 10_000
"""Kept pairs whose texts are in memory while they are put together."""


class TableWriter:
    """Writes `pairs.parquet` and `excluded_pairs.parquet`, a range of pairs after another, ascending.

    Args:
        out: Folder.
        catalogue: The pairs.
        verdicts: For the names in them, and for their dimensions.
        splits: The sides of the prompts.
        settings: Which rules flag; what is redacted.
    """

    def __init__(
        self, out: Path, catalogue: Catalogue, verdicts: VerdictFile, splits: Splits, settings: PreferenceSettings
    ) -> None:
        self._catalogue, self._verdicts, self._splits = catalogue, verdicts, splits
        self._flags = _Flags(catalogue, settings)
        schema = PAIRS.with_metadata({**(PAIRS.metadata or {}), **says_redacted(redacted_by(settings))})
        with ExitStack() as stack:
            self._texts = TextReader(catalogue.drops, settings, stack)
            self._pairs = stack.enter_context(RowGroups(out / PAIRS_FILE, schema, unique=UNIQUE))
            self._excluded = stack.enter_context(RowGroups(out / EXCLUDED_FILE, EXCLUDED_PAIRS, unique=UNIQUE))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.__exit__(*failure)  # type: ignore[arg-type]

    def write(self, start: int, verdicts: Verdicts, fates: Fates, p_low: np.ndarray) -> None:
        """Write the kept pairs of a range with their texts, and the others with their reasons."""
        self._write_excluded(start, verdicts, fates)
        describe = _Description(self._catalogue, start, self._verdicts, verdicts, p_low, self._splits)
        kept, place = np.flatnonzero(fates.is_alive), self._catalogue.pairs.place
        for first in range(0, len(kept), TEXTS_AT_ONCE):
            some = kept[first : first + TEXTS_AT_ONCE]
            columns = describe(some)
            columns["flags"] = self._flags.of(start + some)
            texts = self._texts.take(place.drop[start + some], place.row[start + some])
            is_low = pa.array(p_low[some] >= 0.5)
            low, high = texts.column("low").chunk(0), texts.column("high").chunk(0)
            columns["prompt"] = texts.column("prompt").chunk(0)
            columns["chosen"], columns["rejected"] = pc.if_else(is_low, low, high), pc.if_else(is_low, high, low)
            self._pairs.write(columns)

    def _write_excluded(self, start: int, verdicts: Verdicts, fates: Fates) -> None:
        gone, ids = np.flatnonzero(~fates.is_alive), self._catalogue.pairs.ids
        listed = ~np.isin(verdicts.status, (Status.REPEAT, Status.REDELIVERED))
        judgments, annotators = judgment_lists(verdicts, listed), annotator_lists(verdicts, listed)
        has_winner = fates.winner[gone] >= 0
        self._excluded.write(
            {
                "pair_id": to_hex(ids[start + gone]),
                "prompt_id": to_hex(self._catalogue.prompts.ids[self._catalogue.prompt[start + gone]]),
                "reason": fates.name_of(gone),
                "detail": fates.details(gone, judgments.sizes(gone)),
                "winner_pair_id": pc.if_else(
                    pa.array(has_winner), to_hex(ids[fates.winner[gone]]), pa.scalar(None, pa.string())
                ),
                "judgment_ids": judgments.take(gone),
                "annotators": annotators.take(gone),
            }
        )


def write_splits(
    out: Path, catalogue: Catalogue, splits: Splits, among: Sequence[str], is_like: np.ndarray | None = None
) -> None:
    """Write `splits.parquet`: the side of every prompt ever delivered, also of those whose pairs are left out.

    Args:
        out: Folder.
        catalogue: The prompts.
        splits: Their sides.
        among: What these rest on, drop by drop, for builds that take over what was found.
        is_like: Which are like a demonstration of an earlier drop that may have been learned, `(M,)` bool.
    """
    drop_names = pa.array([drop.name for drop in catalogue.drops], pa.string())
    prompts = catalogue.prompts
    schema = SPLITS.with_metadata({**SPLITS.metadata, **found_among(among)})
    with RowGroups(out / SPLITS_FILE, schema, unique=UNIQUE) as writer:
        for start in range(0, len(prompts.ids), ROW_GROUP_ROWS):
            some = slice(start, start + ROW_GROUP_ROWS)
            writer.write(
                {
                    "prompt_id": to_hex(prompts.ids[some]),
                    "cluster_id": to_hex(prompts.ids[splits.cluster[some]]),
                    "split": pa.array(SPLIT_NAMES).take(pa.array(splits.side[some])),
                    "is_apart": pa.array(splits.is_apart[some]),
                    "is_like_demonstration": pa.array(
                        np.zeros(len(splits.side[some]), bool) if is_like is None else is_like[some]
                    ),
                    "first_drop": drop_names.take(pa.array(prompts.place.drop[some])),
                }
            )


class _Description:
    """Everything about the kept pairs of a range but their texts and flags."""

    def __init__(
        self,
        catalogue: Catalogue,
        start: int,
        file: VerdictFile,
        verdicts: Verdicts,
        p_low: np.ndarray,
        splits: Splits,
    ) -> None:
        counted = verdicts.is_counted
        pair, votes = verdicts.pair[counted], verdicts.votes[counted].astype(float)
        side = verdicts.side[counted]

        def total(weights: np.ndarray) -> np.ndarray:
            return np.bincount(pair, weights=weights, minlength=verdicts.pair_count)

        self.catalogue, self.start, self.splits, self.p_low = catalogue, start, splits, p_low
        self.toward_low = total(side * verdicts.strength[counted] * votes) / np.maximum(total(votes), 1)
        self.strength = total(verdicts.strength[counted] * votes) / np.maximum(total(votes), 1)
        self.low_votes, self.high_votes = total(votes * (side > 0)), total(votes * (side < 0))
        self.sft_allowed = total(~verdicts.sft_allowed[counted]) == 0
        self.judgments = judgment_lists(verdicts, counted)
        self.annotators = annotator_lists(verdicts, counted)
        self.sources = name_lists(verdicts, counted, verdicts.source, verdicts.sources)
        self.drops = name_lists(verdicts, counted, verdicts.drop, file.drops)
        self.dimensions = DimensionVerdicts.read(file, verdicts).means(verdicts)

    def __call__(self, pairs: np.ndarray) -> dict[str, pa.Array]:
        """The columns of some pairs by name."""
        is_low = self.p_low[pairs] >= 0.5
        sign = np.where(is_low, 1.0, -1.0)
        prompts = self.catalogue.prompt[self.start + pairs]
        chosen = np.where(is_low, self.low_votes[pairs], self.high_votes[pairs])
        sided = np.maximum(self.low_votes[pairs] + self.high_votes[pairs], 1)
        prompt_ids = to_hex(self.catalogue.prompts.ids[prompts])
        return {
            "pair_id": to_hex(self.catalogue.pairs.ids[self.start + pairs]),
            "prompt_id": prompt_ids,
            "cluster_id": to_hex(self.catalogue.prompts.ids[self.splits.cluster[prompts]]),
            "split": pa.array(SPLIT_NAMES).take(pa.array(self.splits.side[prompts])),
            "p_chosen": _float(np.where(is_low, self.p_low[pairs], 1 - self.p_low[pairs])),
            # A reliable minority can outweigh the count of strengths; a margin below zero would contradict `chosen`.
            "margin": _float(np.maximum(self.toward_low[pairs] * sign, 0.0)),
            "strength": _float(self.strength[pairs]),
            "agreement": _float(chosen / sided),
            "judgment_count": pa.array(self.judgments.sizes(pairs)),
            "annotator_count": pa.array(self.annotators.sizes(pairs)),
            "judgment_ids": self.judgments.take(pairs),
            "annotators": self.annotators.take(pairs),
            "dimensions": self.dimensions.take(pairs, chosen_is_low=is_low),
            "sources": self.sources.take(pairs),
            "drops": self.drops.take(pairs),
            "group_id": prompt_ids,
            "sft_allowed": pa.array(self.sft_allowed[pairs]),
        }


class _Flags:
    """The rules that found each pair without removing it; two bytes a pair, in scratch."""

    def __init__(self, catalogue: Catalogue, settings: PreferenceSettings) -> None:
        self.names = sorted(rule.name for rule in RULES if getattr(settings.rules, rule.name) in {"flag", "redact"})
        self._bits = catalogue.scratch.empty(len(catalogue.pairs.ids), np.uint32)
        for name, hits in catalogue.found():
            if name in self.names:
                self._bits |= hits.astype(np.uint32) << np.uint32(self.names.index(name))

    def of(self, pairs: np.ndarray) -> pa.ListArray:
        """The names of the rules, sorted, for each of some pairs."""
        bits = self._bits[pairs]
        pair, rule = np.nonzero((bits[:, None] >> np.arange(len(self.names), dtype=np.uint32)) & np.uint32(1))
        offsets = np.searchsorted(pair, np.arange(len(pairs) + 1))
        names = pa.array(self.names, pa.string()).take(pa.array(rule))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names)


def _float(values: np.ndarray) -> pa.Array:
    return pa.array(values.astype(np.float32))
