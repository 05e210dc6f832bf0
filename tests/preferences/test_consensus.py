"""The four ways of adding up verdicts: worked arithmetic, planted truth, and laws."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.preferences import consensus
from dpo_pipeline.preferences.consensus import Verdict, bradley_terry, dawid_skene, majority, strength


def verdicts(rows):
    pair, annotator, side, force = np.array(rows, np.int64).reshape(-1, 4).T
    return Verdict(pair, annotator, side, force, np.ones(len(pair), np.int64))


def by_bradley_terry(some, pair_count, annotator_count):
    return bradley_terry(some, np.arange(2 * pair_count).reshape(-1, 2), np.arange(pair_count), annotator_count)


METHODS = [majority, strength, dawid_skene, by_bradley_terry]
ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(-1, 3), st.integers(-1, 1), st.integers(1, 3)).map(
        lambda row: (*row[:3], row[3] if row[2] else 0)
    ),
    min_size=1,
    max_size=25,
)


def test_majority_counts_votes():
    """Two for low, one tie: (2 + 1/2) / 3. One each: 1/2. Two ties, one for high: a tie."""
    result = majority(
        verdicts(
            [
                (0, 0, 1, 3),
                (0, 1, 1, 1),
                (0, 2, 0, 0),
                (1, 0, 1, 1),
                (1, 1, -1, 3),
                (2, 0, 0, 0),
                (2, 1, 0, 0),
                (2, 2, -1, 1),
            ]
        ),
        3,
        3,
    )
    assert result.p_low.tolist() == pytest.approx([2.5 / 3, 0.5, 1 / 3])
    assert result.p_tie.tolist() == [0, 0, 1]


def test_strength_weighs_votes():
    """One strong for high against two slight for low: 2 of 5 speak for low."""
    result = strength(verdicts([(0, 0, -1, 3), (0, 1, 1, 1), (0, 2, 1, 1)]), 1, 3)
    assert result.p_low.tolist() == pytest.approx([0.4])


def test_votes_count_as_people():
    some = verdicts([(0, -1, 1, 2), (0, -1, -1, 2)])._replace(votes=np.array([3, 1]))
    assert majority(some, 1, 0).p_low.tolist() == pytest.approx([0.75])


def planted(chance, *, pair_count, per_pair, reliabilities, tie_share=0.1):
    truth = chance.choice([-1, 1], pair_count)
    truth[chance.random(pair_count) < tie_share] = 0
    rows = []
    for pair in range(pair_count):
        for annotator in chance.choice(len(reliabilities), per_pair, replace=False):
            if truth[pair] == 0:
                side = 0 if chance.random() < 0.7 else chance.choice([-1, 1])
            elif chance.random() < reliabilities[annotator]:
                side = truth[pair]
            else:
                side = chance.choice([-truth[pair], 0], p=[0.8, 0.2])
            rows.append((pair, annotator, side, 1 if side else 0))
    return truth, verdicts(rows)


def test_dawid_skene_finds_truth_and_reliability():
    """Half of the annotators guess: weighing them beats counting, and their estimated reliability says who they are."""
    chance = np.random.default_rng(5)
    reliabilities = np.array([0.95] * 10 + [0.5] * 10)
    truth, some = planted(chance, pair_count=1500, per_pair=5, reliabilities=reliabilities)
    decided = truth != 0
    accuracy = {
        method.__name__: ((method(some, 1500, 20).p_low > 0.5) == (truth > 0))[decided].mean()
        for method in (majority, dawid_skene)
    }
    assert accuracy["dawid_skene"] > accuracy["majority"] + 0.02
    assert accuracy["dawid_skene"] > 0.96
    result = dawid_skene(some, 1500, 20)
    assert result.reliability[:10].min() > result.reliability[10:].max() + 0.1
    assert result.p_tie[~decided].mean() > result.p_tie[decided].mean() + 0.5
    sure = np.maximum(result.p_low, 1 - result.p_low)
    is_right = (result.p_low > 0.5) == (truth > 0)
    assert is_right[decided & (sure > 0.95)].mean() > 0.97


def test_crowd_kit_says_the_same():
    """Labels of crowd-kit's two estimators, stored with what made them, on a world where a quarter of the people guess.

    Ours keeps the two sides symmetric and shrinks annotators toward the average, so a few contested pairs may differ.
    """
    oracle = json.loads((Path(__file__).parent / "oracles" / "crowd_kit.json").read_text())
    truth = np.array(oracle["truth"])
    pair, annotator, side = np.array(oracle["rows"]).T
    some = Verdict(pair, annotator, side, np.abs(side), np.ones(len(pair), np.int64))
    result = dawid_skene(some, len(truth), annotator.max() + 1)
    is_tie = result.p_tie > np.maximum(result.p_low, 1 - result.p_low) - result.p_tie / 2
    ours = np.where(is_tie, 0, np.where(result.p_low > 0.5, 1, -1))
    for name in ("dawid_skene", "one_coin"):
        theirs = np.array(oracle[name])
        assert (ours == theirs).mean() > 0.96
        assert (ours == truth).mean() >= (theirs == truth).mean()
    assert (ours == truth).mean() > (np.array(oracle["majority"]) == truth).mean() + 0.04
    assert set(np.argsort(result.reliability)[:3]) == {0, 4, 8}  # who guesses


def test_what_is_learnt_is_where_plain_expectation_maximisation_ends(monkeypatch):
    """Two verdicts a pair: plain steps creep, and after a hundred of them they are further away than the guesses."""
    chance = np.random.default_rng(0)
    _, some = planted(chance, pair_count=600, per_pair=2, reliabilities=np.array([0.9, 0.8, 0.6, 0.5]), tie_share=0.3)
    faster = dawid_skene(some, 600, 4).p_low

    class Plain:
        def next(self, _, answered):
            return answered

    monkeypatch.setattr(consensus, "Acceleration", Plain)
    monkeypatch.setattr(consensus, "ITERATIONS", 100)
    after_a_hundred = dawid_skene(some, 600, 4).p_low
    monkeypatch.setattr(consensus, "ITERATIONS", 20_000)
    monkeypatch.setattr(consensus, "TOLERANCE", 1e-8)
    truth = dawid_skene(some, 600, 4).p_low
    assert np.abs(faster - truth).max() < 0.001
    assert np.abs(after_a_hundred - truth).max() > 0.03


def test_a_model_that_has_not_settled_is_told_of(monkeypatch):
    chance = np.random.default_rng(0)
    _, some = planted(chance, pair_count=600, per_pair=2, reliabilities=np.array([0.9, 0.8, 0.6, 0.5]), tie_share=0.3)
    evidence = consensus.evidence_of(some, 4)
    assert consensus.learn_confusion(lambda: [evidence], 4).moved < consensus.TOLERANCE
    monkeypatch.setattr(consensus, "ITERATIONS", 3)
    assert consensus.learn_confusion(lambda: [evidence], 4).moved > consensus.TOLERANCE


def test_a_guess_is_made_where_every_step_led_as_far_as_the_one_before():
    faster, asked = consensus.Acceleration(), np.zeros(3)
    for _ in range(2 * consensus.PLAIN_ROUNDS):
        asked = faster.next(asked, asked + 1)
    assert asked.tolist() == [20.0, 20.0, 20.0]


def test_one_verdict_per_pair_teaches_nothing_about_annotators():
    result = dawid_skene(verdicts([(pair, pair % 3, 1, 2) for pair in range(30)]), 30, 3)
    assert np.ptp(result.reliability) < 1e-9
    assert (result.p_low > 0.6).all()


def test_bradley_terry_uses_the_whole_ranking():
    """a beats b and b beats c, each twice; a against c was judged once, against the grain: the ranking outvotes it."""
    items = np.array([[0, 1], [1, 2], [0, 2]])
    some = verdicts([(0, 0, 1, 1)] * 4 + [(1, 0, 1, 1)] * 4 + [(2, 0, -1, 1)])
    result = bradley_terry(some, items, np.zeros(3, int), 1)
    assert (result.p_low > 0.5).all()
    assert majority(some, 3, 1).p_low[2] == 0


def test_bradley_terry_is_the_posterior_mode():
    """The scores are where the gradient of the penalised likelihood vanishes, checked by finite differences."""
    items = np.array([[0, 1], [1, 2], [0, 2]])
    some = verdicts([(0, 0, 1, 1), (0, 0, 1, 1), (1, 0, -1, 1), (2, 0, 1, 1), (2, 0, 0, 0)])
    p_low = bradley_terry(some, items, np.zeros(3, int), 1).p_low
    odds = np.log(p_low / (1 - p_low))
    assert odds[0] + odds[1] == pytest.approx(odds[2], abs=1e-6)

    def loss(scores):
        gap = scores[items[some.pair, 0]] - scores[items[some.pair, 1]]
        won = (1 + some.side) / 2
        game = won * np.log1p(np.exp(-gap)) + (1 - won) * np.log1p(np.exp(gap))
        prior = np.log1p(np.exp(-scores)) / 2 + np.log1p(np.exp(scores)) / 2
        return game.sum() + prior.sum()

    from scipy.optimize import minimize

    best = minimize(loss, np.zeros(3), tol=1e-12).x
    assert odds[0] == pytest.approx(best[0] - best[1], abs=1e-3)


@pytest.mark.parametrize(("lead", "votes"), [(31, [1]), (1, [60, 40]), (1, [9, 1])])
def test_bradley_terry_is_improved_to_the_end(lead, votes):
    """Thirty-two responses in an order, each compared with so many below it, by so many for and against: the gradient
    of the penalised likelihood vanishes where plain improvements creep, too."""
    items = np.array([(one, other) for one in range(32) for other in range(one + 1, 32) if other - one <= lead])
    some = verdicts([(pair, who, (1, -1)[who], 1) for pair in range(len(items)) for who in range(len(votes))])
    some = some._replace(votes=np.array(votes * len(items)))

    def loss(scores):
        gap, prior = np.subtract(*scores[items[some.pair].T]), scores / 2 + np.log1p(np.exp(-scores))
        share = some.votes / (1 + np.exp(some.side * gap))
        slope = 0.5 - 1 / (1 + np.exp(scores))
        np.add.at(slope, items[some.pair, 0], -some.side * share)
        np.add.at(slope, items[some.pair, 1], some.side * share)
        return some.votes @ np.log1p(np.exp(-some.side * gap)) + prior.sum(), slope

    from scipy.optimize import minimize

    best = minimize(loss, np.zeros(32), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9}).x
    p_low = bradley_terry(some, items, np.zeros(len(items), int), len(votes)).p_low
    assert p_low == pytest.approx(1 / (1 + np.exp(-np.subtract(*best[items.T]))), abs=1e-4)


@given(rows=ROWS)
def test_a_prompt_has_the_same_scores_to_the_last_bit_whatever_other_prompts_there_are(rows):
    """Law of Bradley-Terry: prompts 0 (pairs 0 to 2, three responses) and 1 (pairs 3 and 4), together and alone."""
    items, prompt = np.array([[0, 1], [1, 2], [0, 2], [3, 4], [4, 5]]), np.array([0, 0, 0, 1, 1])
    some = verdicts(rows)
    whole = bradley_terry(some, items, prompt, 4).p_low
    for mine in (slice(0, 3), slice(3, 5)):
        own = (some.pair >= mine.start) & (some.pair < mine.stop)
        alone = Verdict(some.pair[own] - mine.start, *(column[own] for column in some[1:]))
        numbers = items[mine] - items[mine].min()
        assert bradley_terry(alone, numbers, np.zeros(len(numbers), int), 4).p_low.tolist() == whole[mine].tolist()


@pytest.mark.parametrize("method", METHODS)
@given(rows=ROWS)
def test_both_sides_are_treated_alike(method, rows):
    some = verdicts(rows)
    here, there = method(some, 5, 4), method(some._replace(side=-some.side), 5, 4)
    assert here.p_tie == pytest.approx(there.p_tie, abs=1e-6)
    judged = np.unique(some.pair)
    assert here.p_low[judged] == pytest.approx(1 - there.p_low[judged], abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
@given(rows=ROWS, data=st.data())
def test_the_order_of_verdicts_does_not_matter(method, rows, data):
    other = data.draw(st.permutations(rows))
    here, there = method(verdicts(rows), 5, 4), method(verdicts(other), 5, 4)
    assert here.p_low == pytest.approx(there.p_low, abs=1e-6)
    assert here.p_tie == pytest.approx(there.p_tie, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
@given(rows=ROWS)
def test_probabilities_are_probabilities(method, rows):
    result = method(verdicts(rows), 5, 4)
    for some in (result.p_low, result.p_tie):
        assert np.isfinite(some).all()
        assert ((some >= 0) & (some <= 1)).all()
