"""Writing the preference tables: sorted by pair, in bounded memory, the same bytes for the same contents.

Every sketch holds its drop's texts cleaned and sorted; they are read side by side, a row group at a time.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.tables import ROW_GROUP_ROWS, open_writer
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.consensus import Consensus
from dpo_pipeline.preferences.dimensions import DimensionVerdicts
from dpo_pipeline.preferences.fates import Fates
from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.lists import PairLists, annotator_lists, judgment_lists, name_lists
from dpo_pipeline.preferences.schemas import EXCLUDED_PAIRS, PAIRS, SPLITS
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.split import SPLIT_NAMES, Splits
from dpo_pipeline.preferences.training_texts import TextReader
from dpo_pipeline.preferences.verdicts import Status, Verdicts

PAIRS_FILE, EXCLUDED_FILE, SPLITS_FILE = "pairs.parquet", "excluded_pairs.parquet", "splits.parquet"


def write_pairs(
    out: Path,
    catalogue: Catalogue,
    verdicts: Verdicts,
    fates: Fates,
    agreed: Consensus,
    splits: Splits,
    *,
    settings: PreferenceSettings,
    reporter: Reporter,
) -> None:
    """Write `pairs.parquet`: the kept pairs with their texts."""
    kept = np.flatnonzero(fates.is_alive)
    describe = _Description(catalogue, verdicts, agreed, splits)
    flags = _flag_lists(catalogue.found(), settings)
    place = catalogue.pair_place
    reporter.say(f"writing the texts of {len(kept):,} pairs")
    with ExitStack() as stack:
        reader = TextReader(catalogue.drops, settings, stack)
        writer = stack.enter_context(open_writer(out / PAIRS_FILE, PAIRS))
        for start in range(0, len(kept), ROW_GROUP_ROWS):
            some = kept[start : start + ROW_GROUP_ROWS]
            texts, columns = reader.take(place.drop[some], place.row[some]), describe(some, flags)
            is_low = pa.array(agreed.p_low[some] >= 0.5)
            low, high = texts.column("low").chunk(0), texts.column("high").chunk(0)
            columns["prompt"] = texts.column("prompt").chunk(0)
            columns["chosen"], columns["rejected"] = pc.if_else(is_low, low, high), pc.if_else(is_low, high, low)
            writer.write_table(pa.Table.from_arrays([columns[field.name] for field in PAIRS], schema=PAIRS))


def write_excluded(out: Path, catalogue: Catalogue, verdicts: Verdicts, fates: Fates) -> None:
    """Write `excluded_pairs.parquet`: the pairs left out, why, and what was kept in their stead."""
    gone, count = np.flatnonzero(~fates.is_alive), len(catalogue.pair_ids)
    listed = ~np.isin(verdicts.status, (Status.REPEAT, Status.REDELIVERED))
    judgments, annotators = judgment_lists(verdicts, listed, count), annotator_lists(verdicts, listed, count)
    with open_writer(out / EXCLUDED_FILE, EXCLUDED_PAIRS) as writer:
        for start in range(0, len(gone), ROW_GROUP_ROWS):
            some = gone[start : start + ROW_GROUP_ROWS]
            winner = pc.if_else(
                pa.array(fates.winner[some] < 0),
                pa.scalar(None, pa.string()),
                to_hex(catalogue.pair_ids[fates.winner[some]]),
            )
            columns = {
                "pair_id": to_hex(catalogue.pair_ids[some]),
                "prompt_id": to_hex(catalogue.prompt_ids[catalogue.prompt[some]]),
                "reason": fates.name_of(some),
                "detail": fates.details(some, judgments.sizes(some)),
                "winner_pair_id": winner,
                "judgment_ids": judgments.take(some),
                "annotators": annotators.take(some),
            }
            table = pa.Table.from_arrays([columns[field.name] for field in EXCLUDED_PAIRS], schema=EXCLUDED_PAIRS)
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)


def write_splits(out: Path, catalogue: Catalogue, splits: Splits) -> None:
    """Write `splits.parquet`: the side of every prompt ever delivered, also of those whose pairs are left out."""
    drop_names = pa.array([drop.name for drop in catalogue.drops], pa.string())
    with open_writer(out / SPLITS_FILE, SPLITS) as writer:
        for start in range(0, len(catalogue.prompt_ids), ROW_GROUP_ROWS):
            some = slice(start, start + ROW_GROUP_ROWS)
            columns = {
                "prompt_id": to_hex(catalogue.prompt_ids[some]),
                "cluster_id": to_hex(catalogue.prompt_ids[splits.cluster[some]]),
                "split": pa.array(SPLIT_NAMES).take(pa.array(splits.side[some])),
                "first_drop": drop_names.take(pa.array(catalogue.prompt_place.drop[some])),
            }
            table = pa.Table.from_arrays([columns[field.name] for field in SPLITS], schema=SPLITS)
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)


class _Description:
    """Everything about a kept pair but its texts."""

    def __init__(self, catalogue: Catalogue, verdicts: Verdicts, agreed: Consensus, splits: Splits) -> None:
        count = len(catalogue.pair_ids)
        counted = verdicts.is_counted
        pair, votes = verdicts.pair[counted], verdicts.votes[counted].astype(float)
        side = verdicts.side[counted]

        def total(weights: np.ndarray) -> np.ndarray:
            return np.bincount(pair, weights=weights, minlength=count)

        self.catalogue, self.splits = catalogue, splits
        self.p_low = agreed.p_low
        self.toward_low = total(side * verdicts.strength[counted] * votes) / np.maximum(total(votes), 1)
        self.low_votes, self.high_votes = total(votes * (side > 0)), total(votes * (side < 0))
        self.sft_allowed = total(~verdicts.sft_allowed[counted]) == 0
        self.judgments = judgment_lists(verdicts, counted, count)
        self.annotators = annotator_lists(verdicts, counted, count)
        self.sources = name_lists(verdicts, counted, verdicts.source, verdicts.sources, count)
        self.drops = name_lists(verdicts, counted, verdicts.drop, [drop.name for drop in catalogue.drops], count)
        self.dimensions = DimensionVerdicts.read(catalogue.drops, verdicts).means(verdicts, count)

    def __call__(self, pairs: np.ndarray, flags: PairLists) -> dict[str, pa.Array]:
        """The columns of some pairs by name."""
        is_low = self.p_low[pairs] >= 0.5
        sign = np.where(is_low, 1.0, -1.0)
        prompts = self.catalogue.prompt[pairs]
        chosen = np.where(is_low, self.low_votes[pairs], self.high_votes[pairs])
        sided = np.maximum(self.low_votes[pairs] + self.high_votes[pairs], 1)
        prompt_ids = to_hex(self.catalogue.prompt_ids[prompts])
        return {
            "pair_id": to_hex(self.catalogue.pair_ids[pairs]),
            "prompt_id": prompt_ids,
            "cluster_id": to_hex(self.catalogue.prompt_ids[self.splits.cluster[prompts]]),
            "split": pa.array(SPLIT_NAMES).take(pa.array(self.splits.side[prompts])),
            "p_chosen": _float(np.where(is_low, self.p_low[pairs], 1 - self.p_low[pairs])),
            # A reliable minority can outweigh the count of strengths; a margin below zero would contradict `chosen`.
            "margin": _float(np.maximum(self.toward_low[pairs] * sign, 0.0)),
            "agreement": _float(chosen / sided),
            "judgment_count": pa.array(self.judgments.sizes(pairs)),
            "annotator_count": pa.array(self.annotators.sizes(pairs)),
            "judgment_ids": self.judgments.take(pairs),
            "annotators": self.annotators.take(pairs),
            "dimensions": self.dimensions.take(pairs, chosen_is_low=is_low),
            "sources": self.sources.take(pairs),
            "drops": self.drops.take(pairs),
            "group_id": prompt_ids,
            "flags": flags.take(pairs),
            "sft_allowed": pa.array(self.sft_allowed[pairs]),
        }


def _flag_lists(found: Mapping[str, np.ndarray], settings: PreferenceSettings) -> PairLists:
    """The rules that found each pair without removing it."""
    names = sorted(name for name in found if getattr(settings.rules, name) in {"flag", "redact"})
    matrix = (
        np.stack([found[name] for name in names], axis=1) if names else np.zeros((len(next(iter(found.values()))), 0))
    )
    pair, rule = np.nonzero(matrix)
    text = pa.array(names, pa.string())
    return PairLists(pair, rule, len(matrix), lambda some: text.take(pa.array(some)))


def _float(values: np.ndarray) -> pa.Array:
    return pa.array(values.astype(np.float32))
