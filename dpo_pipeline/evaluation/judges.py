"""Judges compare two replies without knowing who wrote which, in both orders, and only then is a winner called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from dpo_pipeline.evaluation.replies import words_of
from dpo_pipeline.evaluation.resampling import kappa_estimate
from dpo_pipeline.evaluation.statistics import (
    Estimate,
    bootstrap_mean,
    length_controlled_win_rate,
    wilson,
)


class Verdict(StrEnum):
    """Which of the two replies shown is the better one."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"

    @property
    def swapped(self) -> "Verdict":
        """The verdict had the two replies been shown the other way round."""
        return {Verdict.FIRST: Verdict.SECOND, Verdict.SECOND: Verdict.FIRST}.get(self, self)

    @classmethod
    def of_scores(cls, first: float, second: float, *, margin: float = 0.0) -> "Verdict":
        """The higher score wins if it is higher by more than the margin.

        >>> Verdict.of_scores(2.0, 1.0), Verdict.of_scores(1.0, 1.5, margin=1.0)
        (<Verdict.FIRST: 'first'>, <Verdict.TIE: 'tie'>)
        """
        if first > second + margin:
            return cls.FIRST
        return cls.SECOND if second > first + margin else cls.TIE


POINTS = {Verdict.SECOND: 1.0, Verdict.TIE: 0.5, Verdict.FIRST: 0.0}
"""What a verdict is worth to whom is shown second; in a report that is the challenger."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a judge gets to see: the conversation and two replies, no names."""

    conversation: tuple[tuple[str, str], ...]
    """(role, content) of every turn up to the reply."""

    first: str
    second: str

    @property
    def question(self) -> str:
        """The last user turn."""
        return next((content for role, content in reversed(self.conversation) if role == "user"), "")

    @property
    def swapped(self) -> "Comparison":
        """The same with the replies exchanged."""
        return Comparison(self.conversation, self.second, self.first)


class Judge(Protocol):
    """Anything that can say which of two replies is better."""

    name: str

    def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict | None]:
        """One verdict per comparison, in order; None where the judge gave no usable answer."""
        ...


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge said of a list of comparisons, asked in both orders."""

    verdicts: tuple[Verdict | None, ...]
    """One per comparison. Opposite answers are a tie, a winner and a tie are that winner; None where either order got
    no usable answer: half a judgment is no judgment."""

    flipped: tuple[bool, ...]
    """Whether the winner changed with the order, one per comparison."""

    @property
    def flips(self) -> int:
        """Comparisons whose winner changed with the order: the judge's position bias."""
        return sum(self.flipped)


def judge_both_orders(judge: Judge, comparisons: Sequence[Comparison]) -> Judged:
    """Ask for each comparison as it stands and with the replies exchanged, and settle the two answers."""
    asked = [each for comparison in comparisons for each in (comparison, comparison.swapped)]
    answers = judge.compare(asked)
    pairs = [(answers[at], answers[at + 1]) for at in range(0, len(answers), 2)]
    flipped = tuple(first is second and first in {Verdict.FIRST, Verdict.SECOND} for first, second in pairs)
    return Judged(tuple(_settled(first, second) for first, second in pairs), flipped)


def _settled(first: Verdict | None, second: Verdict | None) -> Verdict | None:
    if first is None or second is None:
        return None
    second = second.swapped
    if first is second:
        return first
    if Verdict.TIE in {first, second}:
        return first if second is Verdict.TIE else second
    return Verdict.TIE


def summarize_wins(
    verdicts: Sequence[Verdict | None],
    length_differences: Sequence[float],
    *,
    clusters: Sequence[str],
    seed: int,
    samples: int,
) -> Mapping[str, Any]:
    """Win rates of the second reply's author (the challenger) over the first's, as plain values.

    Args:
        verdicts: Settled verdicts; FIRST means the baseline won.
        length_differences: Words of the challenger's reply minus the baseline's, one per verdict.
        clusters: Prompt cluster of each comparison; resampled whole.
        seed: Seed of the resampling.
        samples: Resamples behind the intervals.

    Returns:
        wins, ties, losses, unanswered; win_rate (a tie counts half) and length_controlled_win_rate with intervals.
    """
    rows = zip(verdicts, length_differences, clusters, strict=True)
    usable = [(POINTS[verdict], gap, cluster) for verdict, gap, cluster in rows if verdict is not None]
    points, gaps, groups = ([row[at] for row in usable] for at in range(3))
    how: Any = {"seed": seed, "samples": samples, "groups": groups}
    return {
        "wins": points.count(1.0),
        "ties": points.count(0.5),
        "losses": points.count(0.0),
        "unanswered": len(verdicts) - len(usable),
        "win_rate": bootstrap_mean(points, is_share=True, **how).as_dict(),
        "length_controlled_win_rate": length_controlled_win_rate(points, gaps, **how).as_dict(),
    }


def human_agreement(verdicts: Sequence[Verdict | None]) -> Mapping[str, Any]:
    """How often a judge shown (chosen, rejected) prefers what people chose, ties left out of the share."""
    decided = [verdict for verdict in verdicts if verdict in {Verdict.FIRST, Verdict.SECOND}]
    share: Estimate = wilson(decided.count(Verdict.FIRST), len(decided))
    return {
        "agreement": share.as_dict(),
        "ties": sum(verdict is Verdict.TIE for verdict in verdicts),
        "unanswered": sum(verdict is None for verdict in verdicts),
    }


def judge_agreement(
    verdicts: Mapping[str, Sequence[Verdict | None]], *, seed: int, samples: int
) -> list[Mapping[str, Any]]:
    """Raw agreement and Cohen's kappa of each two judges on the comparisons both answered."""
    names, rows = sorted(verdicts), []
    for at, first in enumerate(names):
        for second in names[at + 1 :]:
            both = [
                (str(a), str(b))
                for a, b in zip(verdicts[first], verdicts[second], strict=True)
                if a is not None and b is not None
            ]
            same = wilson(sum(a == b for a, b in both), len(both))
            kappa = kappa_estimate([a for a, _ in both], [b for _, b in both], seed=seed, samples=samples)
            rows.append({"judges": [first, second], "agreement": same.as_dict(), "kappa": kappa.as_dict()})
    return rows


def word_difference(comparison: Comparison) -> float:
    """Words of the second reply minus words of the first."""
    return float(len(words_of(comparison.second)) - len(words_of(comparison.first)))
