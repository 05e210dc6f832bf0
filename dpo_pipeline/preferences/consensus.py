"""What the verdicts on a pair add up to: majority, strength, Dawid-Skene with ties, Bradley-Terry.

Every method treats the two sides of a pair alike and is independent of the order of the verdicts.

Shapes: N verdicts, P pairs, A annotators. `side` is +1 toward a pair's low response, -1 toward the high.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

ITERATIONS = 100
TOLERANCE = 1e-4
"""No probability moves more than this in the last iteration."""
PRIOR_VERDICTS = 4.0
"""Verdicts' worth of the average annotator mixed into each annotator's estimate: few judgments stay near average."""


class Verdict(NamedTuple):
    """N verdicts: on which pair, by whom (-1 unknown), toward which side, how strongly, for how many people."""

    pair: np.ndarray
    annotator: np.ndarray
    side: np.ndarray
    strength: np.ndarray
    votes: np.ndarray


class Consensus(NamedTuple):
    """Per pair the probability that the low response is better, and that the pair is a tie, `(P,)` each.

    `reliability` is the estimated probability that an annotator's verdict on a decided pair prefers the better
    response, `(A,)`; NaN where the method does not estimate it.
    """

    p_low: np.ndarray
    p_tie: np.ndarray
    reliability: np.ndarray


def majority(verdicts: Verdict, pair_count: int, annotator_count: int) -> Consensus:
    """Count votes; a tie is half a vote for each side. A pair is a tie where tied votes outnumber either side's."""
    return _by_weight(verdicts, verdicts.votes.astype(float), pair_count, annotator_count)


def strength(verdicts: Verdict, pair_count: int, annotator_count: int) -> Consensus:
    """Add up strengths: a verdict of strength 3 weighs as three of strength 1, a tie as one."""
    weight = verdicts.votes * np.maximum(verdicts.strength, 1)
    return _by_weight(verdicts, weight.astype(float), pair_count, annotator_count)


def _by_weight(verdicts: Verdict, weight: np.ndarray, pair_count: int, annotator_count: int) -> Consensus:
    low, high, tied = (
        np.bincount(verdicts.pair, weights=weight * (verdicts.side == side), minlength=pair_count)
        for side in (1, -1, 0)
    )
    total = np.maximum(low + high + tied, 1e-300)
    p_tie = np.where(tied > np.maximum(low, high), 1.0, 0.0)
    return Consensus((low + tied / 2) / total, p_tie, np.full(annotator_count, np.nan))


def dawid_skene(verdicts: Verdict, pair_count: int, annotator_count: int) -> Consensus:
    """Weigh annotators by how they agree with each other (Dawid and Skene 1979, EM), ties as a third truth.

    The confusion of an annotator is kept symmetric in the two sides: on a decided pair a verdict agrees, opposes or
    ties; on a true tie it ties or takes a side. That lies between the one-coin model and full confusion matrices, and
    was measured as right as both (docs/log.md). Reliabilities are learnt from pairs with at least two verdicts; who is
    unknown counts as one average annotator. Where no pair has two, nothing can be learnt, and a verdict is believed
    four to one.
    """
    confusion = learn_confusion(lambda: [overlapping(verdicts)], annotator_count)
    return weigh(verdicts, pair_count, confusion)


class Confusion(NamedTuple):
    """Log-probabilities per annotator: (agrees, opposes, ties) on decided pairs, (ties, takes this side) on ties.

    The last annotator is the average one, who stands for all unknown.
    """

    log_decided: np.ndarray
    log_tied: np.ndarray
    tie_share: float


def overlapping(verdicts: Verdict) -> Verdict:
    """The verdicts on pairs with at least two."""
    several = np.bincount(verdicts.pair, minlength=1)[verdicts.pair] > 1
    return Verdict(*(column[several] for column in verdicts))


def weigh(verdicts: Verdict, pair_count: int, confusion: Confusion) -> Consensus:
    """The consensus by verdicts weighed as Dawid and Skene's model of the annotators says."""
    low, _, tie = _posterior(verdicts, pair_count, confusion)
    decided = np.exp(confusion.log_decided[:-1])
    return Consensus(low + tie / 2, tie, decided[:, 0] / decided[:, :2].sum(axis=1))


def learn_confusion(pieces: Callable[[], Iterable[Verdict]], annotator_count: int) -> Confusion:
    """How the annotators judge, from the pairs with several verdicts.

    Expectation-maximisation from the majority's answer until no posterior moves. 12 bytes a pair stay in memory.

    Args:
        pieces: Gives the verdicts in pieces, the same each time it is called; no pair is in two of them.
        annotator_count: A.
    """
    posteriors, tallies = [], _Tallies(annotator_count + 1)
    for verdicts in map(_renumbered, pieces()):
        pair_count = int(verdicts.pair.max(initial=-1)) + 1
        start = majority(verdicts, pair_count, annotator_count)
        tie = np.where(start.p_tie > 0, 0.8, 0.1)
        posterior = np.stack([start.p_low * (1 - tie), (1 - start.p_low) * (1 - tie), tie]).astype(np.float32)
        tallies.add(verdicts, posterior)
        posteriors.append(posterior)
    confusion = tallies.confusion()
    for _ in range(ITERATIONS):
        change, tallies = 0.0, _Tallies(annotator_count + 1)
        for number, verdicts in enumerate(map(_renumbered, pieces())):
            updated = _posterior(verdicts, posteriors[number].shape[1], confusion)
            tallies.add(verdicts, updated)
            change = max(change, float(np.abs(updated - posteriors[number]).max(initial=0.0)))
            posteriors[number] = updated.astype(np.float32)
        confusion = tallies.confusion()
        if change < TOLERANCE:
            break
    return confusion


def _renumbered(verdicts: Verdict) -> Verdict:
    """The verdicts with their pairs numbered from 0 without gaps."""
    return verdicts._replace(pair=np.unique(verdicts.pair, return_inverse=True)[1])


def _posterior(verdicts: Verdict, pair_count: int, confusion: Confusion) -> np.ndarray:
    """Probabilities of each pair's truth being low, high and tie, `(3, P)`."""
    side = verdicts.side.astype(np.int64)
    who = np.where(verdicts.annotator < 0, len(confusion.log_decided) - 1, verdicts.annotator).astype(np.int64)
    decided = confusion.log_decided.ravel()
    if_low = decided[3 * who + np.array([2, 0, 1])[side]]
    if_high = decided[3 * who + np.array([2, 1, 0])[side]]
    if_tie = confusion.log_tied.ravel()[2 * who + (side != 0)]
    posterior = np.stack(
        [_sums(verdicts.pair, verdicts.votes * score, pair_count) for score in (if_low, if_high, if_tie)]
    )
    share = confusion.tie_share
    posterior += np.log([(1 - share) / 2, (1 - share) / 2, share])[:, None]
    posterior = np.exp(posterior - posterior.max(axis=0))
    return posterior / posterior.sum(axis=0)


class _Tallies:
    """What verdicts on truths of given probabilities say of the annotators who gave them, added up."""

    def __init__(self, annotator_count: int) -> None:
        self.decided, self.tied = np.zeros((annotator_count, 3)), np.zeros((annotator_count, 2))

    def add(self, verdicts: Verdict, posterior: np.ndarray) -> None:
        """Add verdicts, given the probabilities of their pairs' truths, `(3, P)`."""
        low, high, tie = posterior[:, verdicts.pair] * verdicts.votes
        who = np.where(verdicts.annotator < 0, len(self.decided) - 1, verdicts.annotator).astype(np.int64)
        column = 3 * who + np.array([2, 0, 1])[verdicts.side.astype(np.int64)]
        # Counted as if the truth were low: (agrees, opposes, ties); as if it were high, the first two trade places.
        if_low = _sums(column, low, self.decided.size).reshape(-1, 3)
        if_high = _sums(column, high, self.decided.size).reshape(-1, 3)[:, [1, 0, 2]]
        self.decided += if_low + if_high
        self.tied += _sums(2 * who + (verdicts.side != 0), tie, self.tied.size).reshape(-1, 2)

    def confusion(self) -> Confusion:
        """The confusions of all annotators."""
        decided, tied = self.decided.copy(), self.tied.copy()
        # The average annotator itself rests on a weak belief: four in six agree, ties are told apart half of the time.
        average, average_tied = decided.sum(axis=0) + np.array([4.0, 1.0, 1.0]), tied.sum(axis=0) + np.array([2.0, 2.0])
        tie_share = (tied.sum() + 1.0) / (decided.sum() + tied.sum() + 10.0)
        decided += PRIOR_VERDICTS * average / average.sum()
        tied += PRIOR_VERDICTS * average_tied / average_tied.sum()
        log_tied = np.log(tied / tied.sum(axis=1, keepdims=True)) - [0.0, np.log(2)]
        return Confusion(np.log(decided / decided.sum(axis=1, keepdims=True)), log_tied, float(tie_share))


def _sums(place: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Sums of weights by place, `(size,)` float64; of nothing at all numpy would make integers."""
    return np.bincount(place, weights, size).astype(float)


def bradley_terry(verdicts: Verdict, items: np.ndarray, annotator_count: int) -> Consensus:
    """One score per response from all comparisons of its prompt (Bradley and Terry 1952), a tie as half a win each.

    Each response also plays one drawn game against a response of average strength, so that one that always wins keeps
    a finite score.

    Args:
        verdicts: The verdicts.
        items: Numbers of the low and the high response of each pair, `(P, 2)`; pairs of one prompt share them.
        annotator_count: A.
    """
    count = int(items.max(initial=-1)) + 1
    low, high = items[verdicts.pair].T
    weight = verdicts.votes.astype(float)
    share = (1 + verdicts.side) / 2
    wins = (
        0.5
        + np.bincount(low, weight * share, minlength=count)
        + np.bincount(high, weight * (1 - share), minlength=count)
    )
    score = np.ones(count)
    for _ in range(ITERATIONS):
        games = weight / (score[low] + score[high])
        played = np.bincount(low, games, minlength=count) + np.bincount(high, games, minlength=count)
        updated = wins / (played + 1 / (score + 1))
        change = np.abs(np.log(updated / score)).max(initial=0.0)
        score = updated
        if change < TOLERANCE:
            break
    strength_low, strength_high = score[items].T
    tie = majority(verdicts, len(items), annotator_count).p_tie
    return Consensus(strength_low / (strength_low + strength_high), tie, np.full(annotator_count, np.nan))
