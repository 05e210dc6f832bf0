"""How each annotator works: agreement with the others, position and length bias, speed, repeats, justifications.

Shapes: N judgments, A annotators. Judgments without a known annotator count for agreement, never for a person.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.preferences.agreement import leave_one_out, wilson_interval
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.consensus import Consensus
from dpo_pipeline.preferences.identifiers import blake2b_128
from dpo_pipeline.preferences.normalize import normalise_once_each
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.sketch_tables import Choice
from dpo_pipeline.preferences.texts import JUDGMENTS_FILE, DropTables
from dpo_pipeline.preferences.verdicts import Status, Verdicts

BATCH_ROWS = 65_536
CHARACTERS_PER_WORD = 6.0
SHORT_WORDS = 3
"""A justification of fewer words says that one is better, not why."""
POSITION_Z = 4.0
"""Standard errors from one half at which position bias is called so: found 25 of 25 planted, none of 475 honest."""
SURE = 0.8
"""Probability from which the consensus is taken for the truth where departures from it are counted."""
CARELESS_Z = 2.576
"""99 % confidence: with hundreds of annotators 95 % would accuse honest ones by the dozen."""


class Manners(NamedTuple):
    """What a judgment says beside its verdict, in the order of the verdicts, `(N,)` each.

    `first_is_low` is 1 where the low response stood first on screen, 0 where it did not, -1 where unknown; `reason`
    is a hash of the justification, 0 where there is none; `words` its length.
    """

    first_is_low: np.ndarray
    seconds: np.ndarray
    reason: np.ndarray
    words: np.ndarray


def read_manners(drops: Sequence[DropTables], verdicts: Verdicts) -> Manners:
    """Shown order, seconds and justifications of all judgments."""
    count = len(verdicts)
    manners = Manners(
        np.full(count, -1, np.int8),
        np.full(count, np.nan, np.float32),
        np.zeros(count, np.uint64),
        np.zeros(count, np.int32),
    )
    columns = ["shown_first", "seconds", "justification"]
    for number, drop in enumerate(drops):
        mine = np.flatnonzero(verdicts.drop == number)
        place = np.empty(len(mine), np.int64)
        place[verdicts.row[mine]] = mine
        start = 0
        with pq.ParquetFile(drop.judgments / JUDGMENTS_FILE) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                at = place[start : start + batch.num_rows]
                _take(manners, verdicts, at, batch)
                start += batch.num_rows
    return manners


def _take(manners: Manners, verdicts: Verdicts, at: np.ndarray, batch: pa.RecordBatch) -> None:
    shown, seconds, reason = (batch.column(name) for name in ("shown_first", "seconds", "justification"))
    known = pc.is_in(shown, pa.array(["a", "b"])).to_numpy(zero_copy_only=False)
    b_first = pc.fill_null(pc.equal(shown, "b"), fill_value=False).to_numpy(zero_copy_only=False)
    manners.first_is_low[at] = np.where(known, b_first == verdicts.b_is_low[at], -1)
    manners.seconds[at] = pc.fill_null(seconds, np.nan).to_numpy(zero_copy_only=False)
    text = normalise_once_each(pc.fill_null(reason, ""))
    is_given = pc.not_equal(text, "").to_numpy(zero_copy_only=False)
    manners.reason[at] = np.where(is_given, np.maximum(blake2b_128(text)[:, 0], np.uint64(1)), np.uint64(0))
    manners.words[at] = np.where(is_given, pc.add(pc.count_substring(text, " "), 1).to_numpy(), 0)


def describe_annotators(
    catalogue: Catalogue,
    verdicts: Verdicts,
    manners: Manners,
    agreed: Consensus,
    settings: PreferenceSettings,
) -> dict[str, np.ndarray]:
    """One value per annotator and column of schema `annotators`, `(A,)` each; NaN where nothing is known.

    Args:
        catalogue: For the lengths of responses.
        verdicts: All judgments.
        manners: What they say beside the verdict.
        agreed: The Dawid-Skene consensus.
        settings: `few_judgments`, `careless_agreement`, `reading_words_per_minute`.
    """
    known = verdicts.annotator >= 0
    counted = known & verdicts.is_counted
    total = _Totals(verdicts.annotator, len(verdicts.annotators))
    columns: dict[str, np.ndarray] = {
        "judgments": total(known),
        "counted": total(counted),
        "repeated": total(known & (verdicts.status == Status.REPEAT)),
        "skipped": total(known & np.isin(verdicts.status, (Status.SKIPPED, Status.NOT_RATEABLE))),
        "tie_share": total.share(counted & (verdicts.side == 0), counted),
    }
    columns |= _agreement(verdicts, counted, total)
    columns["reliability"] = np.where(columns["comparable"] > 0, agreed.reliability, np.nan)
    columns |= _position(verdicts, manners, counted, total)
    columns |= _length(catalogue, verdicts, agreed.p_low, counted, total)
    columns |= _speed(catalogue, verdicts, manners, counted, total, settings)
    columns |= _justifications(verdicts, manners, counted, total)
    columns |= _consistency(verdicts, total)
    columns["few_judgments"] = columns["comparable"] < settings.few_judgments
    return columns


class _Totals:
    """Sums of masks per annotator."""

    def __init__(self, annotator: np.ndarray, count: int) -> None:
        self.annotator, self.count = annotator, count

    def __call__(self, mask: np.ndarray) -> np.ndarray:
        return np.bincount(self.annotator[mask], minlength=self.count)

    def share(self, hits: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Hits per trial and annotator, NaN where there was no trial."""
        trials = self(of)
        return np.where(trials > 0, self(hits & of) / np.maximum(trials, 1), np.nan)

    def median(self, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The median per annotator, NaN where there is no value."""
        who, values = self.annotator[mask], values[mask].astype(float)
        order = np.lexsort((values, who))
        values, sizes = values[order], np.bincount(who, minlength=self.count)
        start = np.cumsum(sizes) - sizes
        padded = np.append(values, np.nan)
        low, high = start + np.maximum(sizes - 1, 0) // 2, start + sizes // 2
        return np.where(
            sizes > 0, (padded[np.minimum(low, len(values))] + padded[np.minimum(high, len(values))]) / 2, np.nan
        )


def _others(verdicts: Verdicts, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave-one-out comparison over the counted judgments, spread to all, `(N,)` bool each."""
    every = verdicts.is_counted
    comparable, agrees = np.zeros(len(verdicts), bool), np.zeros(len(verdicts), bool)
    comparable[every], agrees[every] = leave_one_out(verdicts.pair[every], verdicts.side[every], verdicts.votes[every])
    return comparable & counted, agrees & counted


def _agreement(verdicts: Verdicts, counted: np.ndarray, total: _Totals) -> dict[str, np.ndarray]:
    comparable, agrees = _others(verdicts, counted)
    low, high = wilson_interval(total(agrees), total(comparable))
    return {
        "comparable": total(comparable),
        "agreement": total.share(agrees, comparable),
        "agreement_low": low,
        "agreement_high": high,
        "careless_bound": wilson_interval(total(agrees), total(comparable), z=CARELESS_Z)[1],
    }


def _position(verdicts: Verdicts, manners: Manners, counted: np.ndarray, total: _Totals) -> dict[str, np.ndarray]:
    known = counted & (verdicts.side != 0) & (manners.first_is_low >= 0)
    first = known & ((verdicts.side > 0) == (manners.first_is_low == 1))
    trials = total(known)
    score = (total(first) - trials / 2) / np.sqrt(np.maximum(trials, 1) / 4)
    low, high = wilson_interval(total(first), trials)
    return {
        "first_low": low,
        "first_high": high,
        "position_known": trials,
        "first_share": total.share(first, known),
        "position_z": np.where(trials > 0, score, np.nan),
    }


def _length(
    catalogue: Catalogue, verdicts: Verdicts, p_low: np.ndarray, counted: np.ndarray, total: _Totals
) -> dict[str, np.ndarray]:
    """Share of longer responses preferred, and whether an annotator departs from the consensus toward length.

    Whoever errs departs mostly toward whichever response is the worse one, so departures are compared as shares: of the
    pairs whose shorter response the consensus surely prefers, and of those whose longer one (z of two proportions).
    """
    longer = np.sign(
        catalogue.pairs.column("low_characters").astype(np.int64) - catalogue.pairs.column("high_characters")
    )[verdicts.pair]
    known = counted & (verdicts.side != 0) & (longer != 0)
    picks = known & (verdicts.side == longer)
    sure = np.where(np.abs(p_low - 0.5) >= SURE - 0.5, np.sign(p_low - 0.5), 0)[verdicts.pair]
    is_shorter, is_longer = known & (sure == -longer), known & (sure == longer)
    one, other = total(is_shorter), total(is_longer)
    toward, against = total(is_shorter & picks), total(is_longer & ~picks)
    share = (toward + against) / np.maximum(one + other, 1)
    spread = np.sqrt(share * (1 - share) * (1 / np.maximum(one, 1) + 1 / np.maximum(other, 1)))
    is_told = (one > 0) & (other > 0) & (spread > 0)
    difference = toward / np.maximum(one, 1) - against / np.maximum(other, 1)
    low, high = wilson_interval(total(picks), total(known))
    return {
        "length_compared": 2 * np.minimum(one, other),
        "longer_low": low,
        "longer_high": high,
        "longer_share": total.share(picks, known),
        "length_z": np.where(is_told, difference / np.where(is_told, spread, 1.0), np.nan),
    }


def _speed(
    catalogue: Catalogue,
    verdicts: Verdicts,
    manners: Manners,
    counted: np.ndarray,
    total: _Totals,
    settings: PreferenceSettings,
) -> dict[str, np.ndarray]:
    names = ("prompt_characters", "low_characters", "high_characters")
    characters = np.sum([catalogue.pairs.column(name).astype(np.int64) for name in names], axis=0)
    floor = characters[verdicts.pair] / CHARACTERS_PER_WORD / settings.reading_words_per_minute * 60
    timed = counted & np.isfinite(manners.seconds)
    return {
        "timed": total(timed),
        "seconds_median": total.median(manners.seconds, timed),
        "too_fast_share": total.share(timed & (manners.seconds < floor), timed),
    }


def _justifications(verdicts: Verdicts, manners: Manners, counted: np.ndarray, total: _Totals) -> dict[str, np.ndarray]:
    given = counted & (manners.reason != 0)
    where = np.flatnonzero(given)
    order = where[np.lexsort((manners.reason[where], verdicts.annotator[where]))]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (verdicts.annotator[order[1:]] != verdicts.annotator[order[:-1]]) | (
        manners.reason[order[1:]] != manners.reason[order[:-1]]
    )
    starts = np.flatnonzero(is_new)
    most = np.zeros(total.count, np.int64)
    np.maximum.at(most, verdicts.annotator[order[starts]], np.diff(np.append(starts, len(order))))
    trials = total(given)
    return {
        "justifications": trials,
        "justification_words_median": total.median(manners.words, given),
        "justification_short_share": total.share(given & (manners.words < SHORT_WORDS), given),
        "justification_top_share": np.where(trials > 0, most / np.maximum(trials, 1), np.nan),
    }


def _consistency(verdicts: Verdicts, total: _Totals) -> dict[str, np.ndarray]:
    """Share of an annotator's earlier verdicts on a pair that say the same as the last one."""
    repeats = np.flatnonzero((verdicts.status == Status.REPEAT) & (verdicts.annotator >= 0))
    key = (verdicts.pair.astype(np.int64) << 32) | np.maximum(verdicts.annotator, 0)
    last = np.flatnonzero(verdicts.is_counted & (verdicts.annotator >= 0))
    last = last[np.argsort(key[last], kind="stable")]
    same = np.zeros(len(verdicts), bool)
    if len(repeats):
        final = last[np.minimum(np.searchsorted(key[last], key[repeats]), len(last) - 1)]
        same[repeats] = verdicts.side[repeats] == verdicts.side[final]
    mask = np.zeros(len(verdicts), bool)
    mask[repeats] = True
    return {"repeated_same_share": total.share(same, mask)}


def suspicions(columns: dict[str, np.ndarray], settings: PreferenceSettings) -> list[list[str]]:
    """Per annotator why they may be careless; empty where nothing is, or too little is known to say so."""
    enough = {
        name: columns[name] >= settings.few_judgments
        for name in ("comparable", "position_known", "length_compared", "timed", "justifications")
    }
    signs = {
        "disagrees": enough["comparable"] & (columns["careless_bound"] < settings.careless_agreement),
        "picks_by_position": enough["position_known"] & (np.abs(columns["position_z"]) > POSITION_Z),
        "picks_by_length": enough["length_compared"] & (np.abs(columns["length_z"]) > POSITION_Z),
        "too_fast": enough["timed"] & (columns["too_fast_share"] > 0.5),
        "one_justification": enough["justifications"] & (columns["justification_top_share"] > 0.5),
        "short_justifications": enough["justifications"] & (columns["justification_short_share"] > 0.5),
    }
    return [[name for name, hits in signs.items() if hits[place]] for place in range(len(columns["comparable"]))]


def verdict_values(verdicts: Verdicts) -> tuple[np.ndarray, np.ndarray]:
    """Counted verdicts as nominal values (low, high, tie, both bad) and as ordinal ones (-3..3)."""
    counted = verdicts.is_counted
    nominal = np.where(verdicts.choice == Choice.BOTH_BAD, 2, verdicts.side)
    return nominal[counted], (verdicts.side * verdicts.strength)[counted]
