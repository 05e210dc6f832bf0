"""What the verdicts on a pair add up to: majority, strength, Dawid-Skene with ties, Bradley-Terry.

Every method treats the two sides of a pair alike and is independent of the order of the verdicts.

Shapes: N verdicts, P pairs, A annotators. `side` is +1 toward a pair's low response, -1 toward the high.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

ITERATIONS = 300
PLAIN_ROUNDS, DEPTH = 10, 10
"""Rounds before the guessing begins, so that it stays near the majority's answer, and how many it looks back."""
TOLERANCE = 1e-4
"""No probability moves more than this in the last iteration."""
AT_REST, MOST_IMPROVEMENTS = 1e-6, 10_000
"""By what share no score of a prompt moves any more under Bradley and Terry, and after how many improvements it ends.

Improvements get smaller by a constant factor, so what is left to go is many times the last one: at 1e-4 the pairs of 32
responses, each compared once with each, were off by up to 0.003, at 1e-6 by 0.00001.
"""
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
    evidence = evidence_of(verdicts, annotator_count)
    several = np.bincount(verdicts.pair, minlength=1)[verdicts.pair] > 1
    confusion = learn_confusion(lambda: [evidence.only(several)], annotator_count)
    return weigh(evidence, pair_count, confusion)


class Evidence(NamedTuple):
    """Verdicts as the model of Dawid and Skene sees them.

    `code` is 3 x annotator + 0 (for the low response), 1 (the high one) or 2 (a tie); who is unknown is annotator A.
    """

    pair: np.ndarray
    code: np.ndarray
    votes: np.ndarray

    def only(self, mask: np.ndarray) -> "Evidence":
        """Some of the verdicts, their pairs numbered from 0 without gaps."""
        pair = np.unique(self.pair[mask], return_inverse=True)[1]
        return Evidence(pair, self.code[mask], self.votes[mask])


def evidence_of(verdicts: Verdict, annotator_count: int) -> Evidence:
    """The verdicts as the model sees them; A is the count of annotators."""
    who = np.where(verdicts.annotator < 0, annotator_count, verdicts.annotator).astype(np.int32)
    return Evidence(verdicts.pair, 3 * who + np.array([2, 0, 1], np.int32)[verdicts.side], verdicts.votes)


class Confusion(NamedTuple):
    """Log-probabilities per annotator: (agrees, opposes, ties) on decided pairs, (ties, takes this side) on ties.

    The last annotator is the average one, who stands for all unknown. `moved` is by how much the probability of a pair
    still moved when learning ended.
    """

    log_decided: np.ndarray
    log_tied: np.ndarray
    tie_share: float
    moved: float = 0.0

    @property
    def reliability(self) -> np.ndarray:
        """How probably each annotator prefers the better response of a decided pair, `(A,)`."""
        decided = np.exp(self.log_decided[:-1])
        return decided[:, 0] / decided[:, :2].sum(axis=1)


def weigh(evidence: Evidence, pair_count: int, confusion: Confusion) -> Consensus:
    """The consensus by verdicts weighed as the model of the annotators says."""
    low, _, tie = _posterior(evidence, pair_count, confusion)
    return Consensus(low + tie / 2, tie, confusion.reliability)


def learn_confusion(
    pieces: Callable[[], Iterable[Evidence]],
    annotator_count: int,
    *,
    empty: Callable[[tuple[int, int], type], np.ndarray] = np.empty,
) -> Confusion:
    """How the annotators judge, from the pairs with several verdicts.

    Expectation-maximisation from the majority's answer until no posterior moves.

    Args:
        pieces: Gives the verdicts in pieces, the same each time it is called; no pair is in two of them, and the pairs
            of each are numbered from 0 without gaps.
        annotator_count: A.
        empty: Makes arrays for what is believed of the pairs, 12 bytes each.
    """
    posteriors, tallies = [], _Tallies(annotator_count + 1)
    for evidence in pieces():
        posterior = _by_majority(evidence)
        tallies.add(evidence, posterior)
        posteriors.append(empty(posterior.shape, np.float32))
        posteriors[-1][:] = posterior
    faster, asked, answered, change = Acceleration(), tallies, tallies, 0.0
    for _ in range(ITERATIONS):
        change, confusion, answered = 0.0, asked.confusion(), _Tallies(annotator_count + 1)
        for number, evidence in enumerate(pieces()):
            updated = _posterior(evidence, posteriors[number].shape[1], confusion)
            answered.add(evidence, updated)
            change = max(change, float(np.abs(updated - posteriors[number]).max(initial=0.0)))
            posteriors[number][:] = updated
        if change < TOLERANCE:
            break
        asked = answered.of(faster.next(asked.values, answered.values))
    return answered.confusion()._replace(moved=change)


class Acceleration:
    """Guesses where a repeated step leads, from where the last few led (Anderson 1965; type II of Walker and Ni 2011).

    Plain expectation-maximisation creeps: where most pairs have two verdicts, what it believes of a pair was off by
    0.38 after a hundred rounds, and by 0.0002 after as many with this (docs/log.md).
    """

    def __init__(self) -> None:
        self._rounds = 0
        self._asked: list[np.ndarray] = []
        self._moves: list[np.ndarray] = []

    def next(self, asked: np.ndarray, answered: np.ndarray) -> np.ndarray:
        """What to ask next, given what was asked and what the step made of it, `(K,)` each."""
        move = answered - asked
        self._rounds += 1
        if self._rounds <= PLAIN_ROUNDS:
            return answered
        if self._moves and np.square(move).sum() > 2 * np.square(self._moves[-1]).sum():
            # The last guess led astray: begin anew from here.
            self._asked, self._moves = [], []
        self._asked, self._moves = [*self._asked[-DEPTH:], asked], [*self._moves[-DEPTH:], move]
        if len(self._moves) == 1:
            return answered
        moves, steps = np.diff(self._moves, axis=0), np.diff(self._asked, axis=0)
        # By einsum, not by a matrix product, whose last bits depend on the number of threads.
        products = np.einsum("ik,jk->ij", moves, moves)
        # Never singular, not where every step has led as far as the one before.
        products += max(1e-10 * np.trace(products), np.finfo(float).tiny) * np.eye(len(moves))
        weights = np.linalg.solve(products, np.einsum("ik,k->i", moves, move))
        return answered - np.einsum("i,ik->k", weights, moves + steps)


def _by_majority(evidence: Evidence) -> np.ndarray:
    """What the votes alone say of each pair's truth being low, high and tie, `(3, P)` float32."""
    who, side = np.divmod(evidence.code, 3)
    toward = np.array([1, -1, 0])[side]
    verdicts = Verdict(evidence.pair, who, toward, np.abs(toward), evidence.votes)
    start = majority(verdicts, int(evidence.pair.max(initial=-1)) + 1, 0)
    tie = np.where(start.p_tie > 0, 0.8, 0.1)
    return np.stack([start.p_low * (1 - tie), (1 - start.p_low) * (1 - tie), tie]).astype(np.float32)


def _posterior(evidence: Evidence, pair_count: int, confusion: Confusion) -> np.ndarray:
    """Probabilities of each pair's truth being low, high and tie, `(3, P)`."""
    # Per annotator what a verdict for low, for high and a tie are worth if low or high is true, beside a true tie.
    log_low, log_high = confusion.log_decided, confusion.log_decided[:, [1, 0, 2]]
    beside = confusion.log_tied[:, [1, 1, 0]]
    posterior, share = np.zeros((3, pair_count)), confusion.tie_share
    for truth, log in zip(posterior, (log_low, log_high), strict=False):
        worth = (log - beside).ravel()[evidence.code]
        truth[:] = _sums(evidence.pair, evidence.votes * worth, pair_count) + np.log((1 - share) / 2 / share)
    posterior = np.exp(posterior - posterior.max(axis=0))
    return posterior / posterior.sum(axis=0)


class _Tallies:
    """What verdicts on truths of given probabilities say of the annotators who gave them, added up."""

    def __init__(self, annotator_count: int) -> None:
        self.decided, self.tied = np.zeros((annotator_count, 3)), np.zeros((annotator_count, 2))

    @property
    def values(self) -> np.ndarray:
        """All of them in a row."""
        return np.concatenate([self.decided.ravel(), self.tied.ravel()])

    def of(self, values: np.ndarray) -> "_Tallies":
        """Tallies of as many annotators from numbers in a row; none is below zero."""
        other = _Tallies(len(self.decided))
        decided, tied = np.split(np.maximum(values, 0.0), [self.decided.size])
        other.decided, other.tied = decided.reshape(-1, 3), tied.reshape(-1, 2)
        return other

    def add(self, evidence: Evidence, posterior: np.ndarray) -> None:
        """Add verdicts, given the probabilities of their pairs' truths, `(3, P)`."""
        low, high, tie = (
            _sums(evidence.code, truth[evidence.pair] * evidence.votes, self.decided.size).reshape(-1, 3)
            for truth in posterior
        )
        # Agreeing is a verdict for low where the truth is low, and for high where it is high.
        self.decided += low + high[:, [1, 0, 2]]
        self.tied += np.stack([tie[:, 2], tie[:, 0] + tie[:, 1]], axis=1)

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


def bradley_terry(verdicts: Verdict, items: np.ndarray, prompt: np.ndarray, annotator_count: int) -> Consensus:
    """One score per response from all comparisons of its prompt (Bradley and Terry 1952), a tie as half a win each.

    Each response also plays one drawn game against a response of average strength, so that one that always wins keeps
    a finite score. The scores of a prompt are improved until none of them moves, whatever other prompts there are
    (minorisation-maximisation, Hunter 2004).

    Args:
        verdicts: The verdicts.
        items: Numbers of the low and the high response of each pair, `(P, 2)`; pairs of one prompt share them.
        prompt: Number of each pair's prompt, `(P,)`.
        annotator_count: A.
    """
    count = int(items.max(initial=-1)) + 1
    prompt_of = np.zeros(count, np.int64)
    prompt_of[items] = prompt[:, None]
    low, high = items[verdicts.pair].T
    weight = verdicts.votes.astype(float)
    share = (1 + verdicts.side) / 2
    wins = 0.5 + _sums(low, weight * share, count) + _sums(high, weight * (1 - share), count)
    score, is_moving = np.ones(count), np.ones(int(prompt.max(initial=-1)) + 1, bool)
    for _ in range(MOST_IMPROVEMENTS):
        mine = np.flatnonzero(is_moving[prompt_of])
        games = weight / (score[low] + score[high])
        played = _sums(low, games, count) + _sums(high, games, count)
        updated = wins[mine] / (played[mine] + 1 / (score[mine] + 1))
        moved = np.abs(np.log(updated / score[mine])) >= AT_REST
        score[mine] = updated
        is_moving = np.bincount(prompt_of[mine][moved], minlength=len(is_moving)) > 0
        if not is_moving.any():
            break
        still = np.flatnonzero(is_moving[prompt_of[low]])
        low, high, weight = low[still], high[still], weight[still]
    strength_low, strength_high = score[items].T
    tie = majority(verdicts, len(items), annotator_count).p_tie
    return Consensus(strength_low / (strength_low + strength_high), tie, np.full(annotator_count, np.nan))
