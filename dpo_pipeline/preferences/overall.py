"""What the annotator report says of all judgments together, and of those of a drop, a week, a rubric dimension.

Everything is added up a range of pairs at a time: what stays in memory does not grow with the judgments.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpo_pipeline.preferences.agreement import (
    VerdictCounter,
    added_up,
    alpha_interval,
    krippendorff_alpha,
    raw_agreement,
)
from dpo_pipeline.preferences.behaviour import Judged
from dpo_pipeline.preferences.dimensions import DimensionVerdicts
from dpo_pipeline.preferences.sketch_tables import NO_TIME, Choice
from dpo_pipeline.preferences.texts import DropTables
from dpo_pipeline.preferences.verdict_file import VerdictFile
from dpo_pipeline.preferences.verdicts import Verdicts

SIDES, SIDES_AND_BAD, STRENGTHS = range(-1, 2), range(-1, 3), range(-3, 4)
"""What verdicts can say: for high, no preference or for low; with both bad apart; how strongly toward low."""
BOTH_BAD = 2
WEEK = 7 * 86_400 * 1_000_000
MONDAY = 3 * 86_400 * 1_000_000
"""In microseconds; 1970 began on a Thursday, three days after a Monday."""


class Overall:
    """Agreement, and what the verdicts prefer, over all judgments."""

    def __init__(self) -> None:
        self._nominal, self._ordinal = VerdictCounter(SIDES_AND_BAD), VerdictCounter(STRENGTHS)
        self._counts: Counter[str] = Counter()
        self._judgments_of_pairs: Counter[int] = Counter()
        self._lengths, self._occur = np.zeros((0, 2), np.int64), np.zeros(0, np.int64)

    def add(self, judged: Judged) -> None:
        """Add the judgments on some pairs; all those on a pair come in one call."""
        verdicts, counted = judged.verdicts, judged.verdicts.is_counted
        pair, side = verdicts.pair[counted], verdicts.side[counted]
        strength = (verdicts.side * verdicts.strength)[counted]
        self._nominal.add(pair, np.where(verdicts.choice[counted] == Choice.BOTH_BAD, BOTH_BAD, side))
        self._ordinal.add(pair, strength)
        sizes, pairs = np.unique(np.bincount(pair), return_counts=True)
        self._judgments_of_pairs.update(dict(zip(sizes.tolist(), pairs.tolist(), strict=True)))

        longer_by = (judged.low_characters - judged.high_characters)[pair]
        sided, known = (side != 0) & (longer_by != 0), (side != 0) & (judged.manners.first_is_low[counted] >= 0)
        first = (side > 0) == (judged.manners.first_is_low[counted] == 1)
        rows = np.stack([longer_by[sided], strength[sided]], axis=1)
        occur = np.concatenate([self._occur, np.ones(len(rows), np.int64)])
        self._lengths, self._occur = added_up(np.concatenate([self._lengths, rows]), occur)
        hits = {
            "judgments": len(verdicts),
            "counted": len(pair),
            "without_annotator": (verdicts.annotator < 0).sum(),
            "pairs": verdicts.pair_count,
            "tied": (side == 0).sum(),
            "sided": sided.sum(),
            "longer": (sided & (np.sign(longer_by) == side)).sum(),
            "known": known.sum(),
            "first": (known & first).sum(),
            "justified": (judged.manners.words[counted] > 0).sum(),
        }
        self._counts.update({name: int(count) for name, count in hits.items()})

    def figures(self) -> dict[str, Any]:
        """The figures of the report."""
        counts, sizes = self._counts, self._judgments_of_pairs
        nominal, ordinal = self._nominal.of(), self._ordinal.of()
        return {
            **{name: counts[name] for name in ("judgments", "counted", "without_annotator", "pairs")},
            "pairs_with_two_or_more": sum(pairs for size, pairs in sizes.items() if size > 1),
            "judgments_per_pair": {str(size): sizes[size] for size in sorted(sizes) if size},
            "alpha_nominal": rounded(krippendorff_alpha(nominal)),
            "alpha_nominal_interval": _interval(alpha_interval(nominal)),
            "alpha_ordinal": rounded(krippendorff_alpha(ordinal, ordinal=True)),
            "alpha_ordinal_interval": _interval(alpha_interval(ordinal, ordinal=True)),
            "raw_agreement": rounded(raw_agreement(nominal)),
            "tie_share": share(counts["tied"], counts["counted"]),
            "longer_share": share(counts["longer"], counts["sided"]),
            "length_and_strength": _spearman(self._lengths, self._occur),
            "first_share": share(counts["first"], counts["known"]),
            "justified_share": share(counts["justified"], counts["counted"]),
        }


class AgreementBy:
    """Agreement within groups of judgments: given in the same drop, in the same week."""

    def __init__(self) -> None:
        self._side, self._strength = VerdictCounter(SIDES), VerdictCounter(STRENGTHS)
        self._judgments: Counter[int] = Counter()
        self._annotators = np.zeros((0, 2), np.int64)

    def add(self, verdicts: Verdicts, mask: np.ndarray, group: np.ndarray) -> None:
        """Add some of the judgments on some pairs, with the group of each, `(N,)`."""
        pair, group, who = verdicts.pair[mask], group[mask], verdicts.annotator[mask]
        self._side.add(pair, verdicts.side[mask], group)
        self._strength.add(pair, (verdicts.side * verdicts.strength)[mask], group)
        found, counts = np.unique(group, return_counts=True)
        self._judgments.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        rows = np.concatenate([self._annotators, np.stack([group, who], axis=1)[who >= 0]])
        self._annotators, _ = added_up(rows, np.ones(len(rows), np.int64))

    def groups(self) -> list[int]:
        """The groups that have judgments, ascending."""
        return sorted(self._judgments)

    def of(self, group: int) -> dict[str, Any]:
        """What the report says of a group."""
        side, strength = self._side.of(group), self._strength.of(group)
        return {
            "judgments": self._judgments[group],
            "annotators": int((self._annotators[:, 0] == group).sum()),
            "alpha_nominal": rounded(krippendorff_alpha(side)),
            "alpha_ordinal": rounded(krippendorff_alpha(strength, ordinal=True)),
            "raw_agreement": rounded(raw_agreement(side)),
        }


class Course:
    """Agreement within the drops, and among judgments given in the same week."""

    def __init__(self) -> None:
        self._drops, self._weeks = AgreementBy(), AgreementBy()

    def add(self, verdicts: Verdicts) -> None:
        """Add the judgments on some pairs."""
        counted = verdicts.is_counted
        self._drops.add(verdicts, counted, verdicts.drop.astype(np.int64))
        dated = counted & (verdicts.time != NO_TIME)
        self._weeks.add(verdicts, dated, np.where(dated, verdicts.time + MONDAY, 0) // WEEK)

    def by_drop(self, drops: Sequence[DropTables]) -> list[dict[str, Any]]:
        """What the report says of every drop."""
        return [{"name": drop.name, **self._drops.of(number)} for number, drop in enumerate(drops)]

    def by_week(self) -> list[dict[str, Any]]:
        """What it says of every week in which a judgment was given, named by its Monday."""
        weeks = self._weeks
        return [{"name": str(np.datetime64(week * 7 - 3, "D")), **weeks.of(week)} for week in weeks.groups()]


class Dimensions:
    """Agreement on every rubric dimension, and how often it says what the verdict says.

    Args:
        file: Where the verdicts on dimensions lie.
    """

    def __init__(self, file: VerdictFile) -> None:
        self._file, self._side, self._strength = file, VerdictCounter(SIDES), VerdictCounter(STRENGTHS)
        self._counts = np.zeros((3, len(file.dimensions)), np.int64)

    def add(self, verdicts: Verdicts) -> None:
        """Add the judgments on some pairs."""
        entries = DimensionVerdicts.read(self._file, verdicts)
        counted = verdicts.is_counted[entries.verdict]
        verdict, name = entries.verdict[counted], entries.name[counted]
        strength = np.clip(np.round(entries.toward_low[counted]), STRENGTHS[0], STRENGTHS[-1]).astype(np.int64)
        side = np.sign(strength)
        self._side.add(verdicts.pair[verdict], side, name)
        self._strength.add(verdicts.pair[verdict], strength, name)
        follows = (side != 0) & (side == verdicts.side[verdict])
        masks = (np.ones(len(name), bool), side != 0, follows)
        self._counts += np.stack([np.bincount(name[mask], minlength=self._counts.shape[1]) for mask in masks])

    def figures(self) -> list[dict[str, Any]]:
        """What the report says of every dimension."""
        return [
            {
                "name": name,
                "judgments": int(judgments),
                "alpha_nominal": rounded(krippendorff_alpha(self._side.of(number))),
                "alpha_ordinal": rounded(krippendorff_alpha(self._strength.of(number), ordinal=True)),
                "raw_agreement": rounded(raw_agreement(self._side.of(number))),
                "follows_verdict_share": share(int(follows), int(sided)),
            }
            for number, (name, judgments, sided, follows) in enumerate(
                zip(self._file.dimensions, *self._counts, strict=True)
            )
        ]


def _spearman(rows: np.ndarray, occur: np.ndarray) -> float | None:
    """Rank correlation with average ranks of two columns whose rows occur so often; None where it is not defined."""
    ranks = []
    for values in rows.T:
        _, code = np.unique(values, return_inverse=True)
        sizes = np.bincount(code, weights=occur)
        ranks.append((np.cumsum(sizes) - (sizes - 1) / 2)[code])
        if len(sizes) < 2:
            return None
    covariance = np.cov(np.stack(ranks), fweights=occur)
    return rounded(float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])))


def share(hits: int, trials: int) -> float | None:
    """Hits per trial to four digits; None where there was no trial."""
    return rounded(hits / trials) if trials else None


def rounded(value: float) -> float | None:
    """To four digits; None for what is not finite."""
    return round(value, 4) if math.isfinite(value) else None


def _interval(ends: tuple[float, float]) -> list[float] | None:
    return [round(end, 4) for end in ends] if all(map(math.isfinite, ends)) else None
