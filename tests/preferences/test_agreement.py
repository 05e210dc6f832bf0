"""Agreement measures against the krippendorff package and against counting by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.preferences.agreement import (
    VerdictCounter,
    alpha_interval,
    krippendorff_alpha,
    leave_one_out,
    raw_agreement,
    verdict_sets,
    wilson_interval,
)

VERDICTS = st.lists(st.tuples(st.integers(0, 5), st.integers(-2, 2)), min_size=1, max_size=30)


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
@given(verdicts=VERDICTS)
def test_alpha_is_that_of_the_krippendorff_package(level, verdicts):
    import krippendorff

    pair, value = np.array(verdicts).T
    counts = np.array([[((pair == p) & (value == v)).sum() for v in np.unique(value)] for p in range(6)])
    ours = krippendorff_alpha(verdict_sets(pair, value), ordinal=level == "ordinal")
    if not (counts.sum(axis=1) > 1).any():
        assert math.isnan(ours)
        return
    if counts[counts.sum(axis=1) > 1].sum(axis=0).astype(bool).sum() < 2:
        assert ours == 1.0
        return
    theirs = krippendorff.alpha(
        value_counts=counts, value_domain=np.unique(value), level_of_measurement=level, dtype=np.float64
    )
    assert ours == pytest.approx(theirs)


@given(verdicts=VERDICTS, cut=st.integers(0, 6))
def test_sets_of_verdicts_are_the_same_counted_in_pieces(verdicts, cut):
    """Law: pairs below the cut in one call, the others in the next; groups are those of the verdicts of each alone."""
    pair, value = np.array(verdicts).T
    group = np.where(value > 0, 7, -7)
    counter = VerdictCounter(range(-2, 3))
    for some in (pair < cut, pair >= cut):
        counter.add(pair[some], value[some], group[some])
    for one in (7, -7):
        whole = verdict_sets(pair[group == one], value[group == one])
        assert counter.of(one).table.tolist() == whole.table.tolist()
        assert counter.of(one).occur.tolist() == whole.occur.tolist()
    assert len(counter.of(0).table) == 0


@given(VERDICTS)
def test_raw_agreement_counts_pairs_of_verdicts(verdicts):
    pairs = [one[1] == other[1] for one, other in itertools.combinations(verdicts, 2) if one[0] == other[0]]
    ours = raw_agreement(verdict_sets(*np.array(verdicts).T))
    assert math.isnan(ours) if not pairs else ours == pytest.approx(sum(pairs) / len(pairs))


def test_wilson_interval_holds_the_share_and_nothing_is_known_without_trials():
    low, high = wilson_interval(np.array([0, 5, 10, 0]), np.array([10, 10, 10, 0]))
    assert (low <= [0, 0.5, 1, 0]).all()
    assert (high >= [0, 0.5, 1, 1]).all()
    assert (low[3], high[3]) == (0, 1)
    assert low[1] == pytest.approx(0.2366, abs=1e-4)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 1), st.integers(1, 3)), max_size=15))
def test_leave_one_out_leaves_one_out(verdicts):
    pair, side, votes = np.array(verdicts, np.int64).reshape(-1, 3).T
    comparable, agrees = leave_one_out(pair, side, votes)
    for place in range(len(verdicts)):
        others = sum(s * v for q, (p, s, v) in enumerate(verdicts) if q != place and p == pair[place])
        assert comparable[place] == (side[place] != 0 and others != 0)
        assert agrees[place] == (comparable[place] and np.sign(others) == side[place])


def test_the_bootstrap_interval_of_alpha_holds_the_truth_and_does_not_depend_on_order():
    """Two annotators who each err in 15 % of 400 pairs: in 95 of 100 such worlds the interval should hold the mean."""
    chance = np.random.default_rng(11)
    pair = np.repeat(np.arange(400), 2)

    def world():
        truth = np.repeat(chance.choice([-1, 1], 400), 2)
        return np.where(chance.random(800) < 0.15, -truth, truth)

    truth = np.mean([krippendorff_alpha(verdict_sets(pair, world())) for _ in range(200)])
    held = 0
    for _ in range(60):
        low, high = alpha_interval(verdict_sets(pair, world()), resamples=300)
        held += low <= truth <= high
    assert held >= 52  # 95 % of 60 are 57; fewer than 52 would happen once in a thousand times
    value, order = world(), chance.permutation(800)
    assert alpha_interval(verdict_sets(pair, value)) == alpha_interval(verdict_sets(pair[order], value[order]))
    assert all(np.isnan(alpha_interval(verdict_sets(np.arange(5), np.ones(5, int)))))
