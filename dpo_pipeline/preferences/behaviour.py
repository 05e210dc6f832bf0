"""How each annotator works: agreement with the others, position and length bias, speed, repeats, justifications.

Shapes: N judgments, A annotators. Judgments without a known annotator count for agreement, never for a person.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from dpo_pipeline.preferences.agreement import leave_one_out, wilson_interval
from dpo_pipeline.preferences.manners import Manners, ValuesByAnnotator
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.spill import Scratch
from dpo_pipeline.preferences.verdicts import Status, Verdicts

CHARACTERS_PER_WORD = 6.0
SHORT_WORDS = 3
"""A justification of fewer words says that one is better, not why."""
POSITION_Z = 4.0
"""Standard errors from one half at which position bias is called so: found 25 of 25 planted, none of 475 honest."""
SURE = 0.8
"""Probability from which the consensus is taken for the truth where departures from it are counted."""
CARELESS_Z = 2.576
"""99 % confidence: with hundreds of annotators 95 % would accuse honest ones by the dozen."""

Counts = dict[str, np.ndarray]
"""How many judgments of each annotator are so, by what they are, `(A,)` int64 each."""


class Judged(NamedTuple):
    """The judgments on a range of P pairs, and what is known of them.

    Attributes:
        verdicts: The judgments.
        manners: What they say beside the verdict.
        p_low: The probability that a pair's low response is better by the model of the annotators, `(P,)`.
        low_characters: Length of the low response, `(P,)` int64.
        high_characters: Length of the high response, `(P,)` int64.
        prompt_characters: Length of the prompt, `(P,)` int64.
    """

    verdicts: Verdicts
    manners: Manners
    p_low: np.ndarray
    low_characters: np.ndarray
    high_characters: np.ndarray
    prompt_characters: np.ndarray


class Behaviour:
    """What annotators did, added up a range of pairs at a time.

    Args:
        annotator_count: A.
        settings: `few_judgments`, `careless_agreement`, `reading_words_per_minute`.
        scratch: Where what is needed of every single judgment lies.
    """

    def __init__(self, annotator_count: int, settings: PreferenceSettings, scratch: Scratch) -> None:
        self._count, self._settings = annotator_count, settings
        self._totals: Counts = {}
        self._seconds = ValuesByAnnotator(scratch, np.float32)
        self._words = ValuesByAnnotator(scratch, np.int32)
        self._reasons = ValuesByAnnotator(scratch, np.uint64)

    def add(self, judged: Judged) -> None:
        """Add the judgments on some pairs; all those on a pair come in one call."""
        verdicts, manners = judged.verdicts, judged.manners
        counted = (verdicts.annotator >= 0) & verdicts.is_counted
        timed, given = counted & np.isfinite(manners.seconds), counted & (manners.reason != 0)
        masks = _work(verdicts) | _agreement(verdicts, counted) | _position(verdicts, manners, counted)
        masks |= _length(judged, counted) | _repeats(verdicts)
        masks |= {"timed": timed, "too_fast": timed & (manners.seconds < self._reading_time(judged))}
        masks |= {"justifications": given, "short": given & (manners.words < SHORT_WORDS)}
        for name, mask in masks.items():
            hits = np.bincount(verdicts.annotator[mask], minlength=self._count)
            self._totals[name] = hits + self._totals.get(name, 0)
        self._seconds.add(verdicts.annotator[timed], manners.seconds[timed])
        self._words.add(verdicts.annotator[given], manners.words[given])
        self._reasons.add(verdicts.annotator[given], manners.reason[given])

    def _reading_time(self, judged: Judged) -> np.ndarray:
        """Seconds below which nobody has read the texts, `(N,)`."""
        characters = judged.prompt_characters + judged.low_characters + judged.high_characters
        words = characters[judged.verdicts.pair] / CHARACTERS_PER_WORD
        return words / self._settings.reading_words_per_minute * 60

    def columns(self, reliability: np.ndarray) -> dict[str, np.ndarray]:
        """One value per annotator and column of schema `annotators`, `(A,)` each; NaN where nothing is known."""
        total = defaultdict(lambda: np.zeros(self._count, np.int64), self._totals)
        few = total["comparable"] < self._settings.few_judgments
        return {
            **{name: total[name] for name in ("judgments", "counted", "repeated", "skipped")},
            "tie_share": _share(total["ties"], total["counted"]),
            **_agreement_columns(total),
            "reliability": np.where(total["comparable"] > 0, reliability, np.nan),
            **_position_columns(total),
            **_length_columns(total),
            "timed": total["timed"],
            "seconds_median": self._seconds.medians(self._count),
            "too_fast_share": _share(total["too_fast"], total["timed"]),
            "justifications": total["justifications"],
            "justification_words_median": self._words.medians(self._count),
            "justification_short_share": _share(total["short"], total["justifications"]),
            "justification_top_share": _share(self._reasons.most_frequent(self._count), total["justifications"]),
            "repeated_same_share": _share(total["repeated_same"], total["repeated"]),
            "few_judgments": few,
        }


def _share(hits: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Hits per trial, NaN where there was no trial."""
    return np.where(trials > 0, hits / np.maximum(trials, 1), np.nan)


def _work(verdicts: Verdicts) -> Counts:
    known = verdicts.annotator >= 0
    counted = known & verdicts.is_counted
    return {
        "judgments": known,
        "counted": counted,
        "skipped": known & np.isin(verdicts.status, (Status.SKIPPED, Status.NOT_RATEABLE)),
        "ties": counted & (verdicts.side == 0),
    }


def _agreement(verdicts: Verdicts, counted: np.ndarray) -> Counts:
    """Leave-one-out comparison over all judgments that count, told of the known annotators."""
    every = verdicts.is_counted
    comparable, agrees = np.zeros(len(verdicts), bool), np.zeros(len(verdicts), bool)
    comparable[every], agrees[every] = leave_one_out(verdicts.pair[every], verdicts.side[every], verdicts.votes[every])
    return {"comparable": comparable & counted, "agrees": agrees & counted}


def _agreement_columns(total: Counts) -> dict[str, np.ndarray]:
    low, high = wilson_interval(total["agrees"], total["comparable"])
    return {
        "comparable": total["comparable"],
        "agreement": _share(total["agrees"], total["comparable"]),
        "agreement_low": low,
        "agreement_high": high,
        "careless_bound": wilson_interval(total["agrees"], total["comparable"], z=CARELESS_Z)[1],
    }


def _position(verdicts: Verdicts, manners: Manners, counted: np.ndarray) -> Counts:
    known = counted & (verdicts.side != 0) & (manners.first_is_low >= 0)
    return {"position_known": known, "first": known & ((verdicts.side > 0) == (manners.first_is_low == 1))}


def _position_columns(total: Counts) -> dict[str, np.ndarray]:
    first, trials = total["first"], total["position_known"]
    low, high = wilson_interval(first, trials)
    score = (first - trials / 2) / np.sqrt(np.maximum(trials, 1) / 4)
    return {
        "first_low": low,
        "first_high": high,
        "position_known": trials,
        "first_share": _share(first, trials),
        "position_z": np.where(trials > 0, score, np.nan),
    }


def _length(judged: Judged, counted: np.ndarray) -> Counts:
    """Which verdicts prefer the longer response, and which depart from a sure consensus toward or against length."""
    verdicts, p_low = judged.verdicts, judged.p_low
    longer = np.sign(judged.low_characters - judged.high_characters)[verdicts.pair]
    known = counted & (verdicts.side != 0) & (longer != 0)
    picks = known & (verdicts.side == longer)
    sure = np.where(np.abs(p_low - 0.5) >= SURE - 0.5, np.sign(p_low - 0.5), 0)[verdicts.pair]
    is_shorter, is_longer = known & (sure == -longer), known & (sure == longer)
    return {
        "sided": known,
        "picks_longer": picks,
        "shorter_is_right": is_shorter,
        "longer_is_right": is_longer,
        "toward_length": is_shorter & picks,
        "against_length": is_longer & ~picks,
    }


def _length_columns(total: Counts) -> dict[str, np.ndarray]:
    """Share of longer responses preferred, and whether an annotator departs from the consensus toward length.

    Whoever errs departs mostly toward whichever response is the worse one, so departures are compared as shares: of the
    pairs whose shorter response the consensus surely prefers, and of those whose longer one (z of two proportions).
    """
    one, other = total["shorter_is_right"], total["longer_is_right"]
    toward, against = total["toward_length"], total["against_length"]
    share = (toward + against) / np.maximum(one + other, 1)
    spread = np.sqrt(share * (1 - share) * (1 / np.maximum(one, 1) + 1 / np.maximum(other, 1)))
    is_told = (one > 0) & (other > 0) & (spread > 0)
    difference = toward / np.maximum(one, 1) - against / np.maximum(other, 1)
    low, high = wilson_interval(total["picks_longer"], total["sided"])
    return {
        "length_compared": 2 * np.minimum(one, other),
        "longer_low": low,
        "longer_high": high,
        "longer_share": _share(total["picks_longer"], total["sided"]),
        "length_z": np.where(is_told, difference / np.where(is_told, spread, 1.0), np.nan),
    }


def _repeats(verdicts: Verdicts) -> Counts:
    """An annotator's earlier verdicts on a pair, and which of them say the same as the last one."""
    is_repeat = (verdicts.status == Status.REPEAT) & (verdicts.annotator >= 0)
    repeats = np.flatnonzero(is_repeat)
    key = (verdicts.pair.astype(np.int64) << 32) | np.maximum(verdicts.annotator, 0)
    last = np.flatnonzero(verdicts.is_counted & (verdicts.annotator >= 0))
    last = last[np.argsort(key[last], kind="stable")]
    same = np.zeros(len(verdicts), bool)
    if len(repeats):
        final = last[np.minimum(np.searchsorted(key[last], key[repeats]), len(last) - 1)]
        same[repeats] = verdicts.side[repeats] == verdicts.side[final]
    return {"repeated": is_repeat, "repeated_same": same}


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
