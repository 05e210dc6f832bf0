"""Each statistic against arithmetic a reader can redo, or an independent implementation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dpo_pipeline.evaluation.statistics import (
    Estimate,
    bootstrap_mean,
    length_controlled_win_rate,
    mcnemar_p_value,
    sign_flip_p_value,
    wilson,
)

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


def test_wilson_of_8_in_10():
    """z = 1.96: middle (0.8 + 0.19207) / 1.38415 = 0.71674, half width 0.22642 -> 0.490 to 0.943."""
    found = wilson(8, 10)
    assert (round(found.low, 3), round(found.high, 3)) == (0.490, 0.943)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(case):
    successes, count = case
    found, expected = wilson(successes, count), stats.binomtest(successes, count).proportion_ci(method="wilson")
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)


def test_wilson_of_nothing_is_missing():
    assert wilson(0, 0) == Estimate.missing()


def test_bootstrap_agrees_with_scipy_on_a_large_sample():
    """The interval of a mean of 400 normal numbers is about mean +- 1.96 * sd / 20."""
    values = np.random.default_rng(5).normal(3.0, 2.0, 400)
    found = bootstrap_mean(values, seed=1, samples=4000)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)


def test_weighted_mean_is_a_mean_per_token():
    """Two texts of 1 and 3 tokens with 2.0 and 1.0 nats per token: (2 + 3) / 4."""
    found = bootstrap_mean([2.0, 1.0], weights=[1, 3], seed=1, samples=200)
    assert found.value == 1.25


def test_groups_are_resampled_whole():
    """Ten copies of each of two observations say no more than the two: the interval stays as wide."""
    alone = bootstrap_mean([0.0, 0.5], seed=1, samples=500)
    copied = bootstrap_mean([0.0] * 10 + [0.5] * 10, groups=["a"] * 10 + ["b"] * 10, seed=1, samples=500)
    assert (copied.low, copied.high) == (alone.low, alone.high) == (0.0, 0.5)


def test_a_share_of_one_keeps_its_doubt_and_counts_groups_not_rows():
    found = bootstrap_mean([True] * 20, groups=list("abcde") * 4, seed=1, samples=500)
    assert (found.value, found.low, found.high) == (1.0, wilson(5, 5).low, 1.0)


@given(st.lists(FINITE, min_size=1, max_size=30), st.integers(0, 1000))
def test_the_interval_lies_within_the_sample_and_repeats(values, seed):
    """Law: equal arguments give equal intervals; resampled means lie between least and greatest observation."""
    first = bootstrap_mean(values, seed=seed, samples=100)
    assert first == bootstrap_mean(values, seed=seed, samples=100)
    slack = 1e-9 * max(1.0, *map(abs, values))
    assert min(values) - slack <= first.low <= first.high <= max(values) + slack


def test_differences_that_are_all_zero_have_no_width():
    """A model against itself: no doubt that it gains nothing."""
    found = bootstrap_mean([0.0] * 50, seed=1, samples=100)
    assert (found.low, found.high) == (0.0, 0.0)


def test_the_chunks_change_nothing(monkeypatch):
    values = np.random.default_rng(3).normal(size=50)
    whole = bootstrap_mean(values, seed=4, samples=300)
    monkeypatch.setattr("dpo_pipeline.evaluation.statistics.CHUNK_DRAWS", 500)
    assert bootstrap_mean(values, seed=4, samples=300) == whole


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_cannot_be_measured_is_missing(values):
    assert bootstrap_mean(values, seed=1, samples=100).value is None
    assert sign_flip_p_value(values, seed=1, samples=100) == 1.0


def test_sign_flips_of_ten_equal_gains():
    """Only 2 of the 2**10 sign patterns reach the observed sum: p is about 0.002."""
    assert sign_flip_p_value([1.0] * 10, seed=1, samples=20_000) == pytest.approx(2 / 1024, abs=0.0015)


def test_sign_flips_flip_groups_not_rows():
    """Ten gains of one prompt are one observation: both of its signs reach the sum."""
    assert sign_flip_p_value([1.0] * 10, groups=["a"] * 10, seed=1, samples=200) == 1.0


def test_mcnemar_is_the_exact_binomial_test():
    """Nine pairs only the second gets right, one only the first: 2 * (1 + 10) / 2**10."""
    first, second = [1] + [0] * 9 + [1] * 30, [0] + [1] * 9 + [1] * 30
    assert mcnemar_p_value(first, second) == pytest.approx(22 / 1024)
    assert mcnemar_p_value(first, first) == 1.0


def test_length_control_takes_the_length_out():
    """Wins exactly where the reply is longer: the win rate is 0.5 here, and about 0.5 at equal length too; adding
    short replies that lose moves the plain rate, not the controlled one.
    """
    longer, shorter = [10.0] * 60, [-10.0] * 60
    even = length_controlled_win_rate([1] * 60 + [0] * 60, longer + shorter, seed=1, samples=100)
    assert even.value == pytest.approx(0.5, abs=0.01)
    more = length_controlled_win_rate([1] * 60 + [0] * 180, longer + shorter * 3, seed=1, samples=100)
    assert 0.25 < more.value <= 0.55


def test_length_control_of_equal_lengths_is_the_win_rate():
    found = length_controlled_win_rate([1] * 70 + [0] * 30, [0.0] * 100, seed=1, samples=500)
    assert found.value == pytest.approx(0.7, abs=0.01)
    assert found.low < 0.7 < found.high


def test_length_control_stays_finite_when_one_side_always_wins():
    found = length_controlled_win_rate([1] * 50, list(range(50)), seed=1, samples=200)
    assert 0.9 < found.low <= found.value <= 1.0
