"""Intervals of figures that are no means: against arithmetic, against means, and against what resampling would do."""

import numpy as np
import pytest

from dpo_pipeline.evaluation.replies import ngrams
from dpo_pipeline.evaluation.resampling import bootstrap_quantiles, bootstrap_sums, distinct_estimate, kappa_estimate
from dpo_pipeline.evaluation.statistics import bootstrap_mean, draws


def test_a_mean_as_a_ratio_of_sums_is_the_bootstrap_of_the_mean():
    values = np.random.default_rng(1).normal(size=60)
    groups = np.repeat(np.arange(20), 3)
    columns = np.stack([values, np.ones(60)], axis=1)
    found = bootstrap_sums(columns, lambda sums: sums[:, 0] / sums[:, 1], seed=3, samples=400, groups=groups)
    assert found.as_dict() == bootstrap_mean(values, seed=3, samples=400, groups=groups).as_dict()


def test_what_has_no_value_is_missing():
    assert bootstrap_sums(np.empty((0, 2)), lambda sums: sums[:, 0], seed=1, samples=100).value is None
    assert bootstrap_sums([[np.nan, 1.0]], lambda sums: sums[:, 0], seed=1, samples=100).value is None
    assert bootstrap_sums([[0.0, 0.0]], lambda sums: sums[:, 0] / sums[:, 1], seed=1, samples=100).value is None


def test_kappa_of_a_worked_table():
    """20 both yes, 15 both no, 5 and 10 apart: observed 0.7, expected 0.5 -> 0.4."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = kappa_estimate(first, second, seed=1, samples=1000)
    assert found.value == pytest.approx(0.4)
    assert found.low is not None
    assert found.high is not None
    half = 1.96 * (0.7 * 0.3 / 50) ** 0.5 / 0.5  # Cohen's large-sample error
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)
    assert kappa_estimate(["tie"], ["tie"], seed=1, samples=100).value is None
    assert kappa_estimate([], [], seed=1, samples=100).value is None


def grams(texts, n=2):
    return [ngrams(text, n=n) for text in texts]


def test_distinct_counts_different_bigrams():
    """`a b c` and `a b d` have four bigrams, three of them different."""
    assert distinct_estimate(grams(["a b c", "a b d"])).value == 0.75
    assert distinct_estimate([]).value is None
    assert distinct_estimate(grams(["one"])).value is None
    only = distinct_estimate(grams(["a b c"]))
    assert (only.value, only.low, only.high) == (1.0, 0.0, 1.0)


def test_the_jackknife_of_distinct_is_too_wide_rather_than_too_narrow():
    """Texts of ten words from a vocabulary of 50, drawn anew 200 times: its variance is no less (Efron-Stein)."""
    chance = np.random.default_rng(5)

    def sample():
        return [" ".join(f"w{word}" for word in chance.integers(0, 50, size=10)) for _ in range(60)]

    first = distinct_estimate(grams(sample()))
    assert first.low is not None
    assert first.high is not None
    spread = float(np.std([distinct_estimate(grams(sample())).value for _ in range(200)]))
    assert 1.96 * spread < (first.high - first.low) / 2 < 2 * 1.96 * spread


def test_percentiles_are_those_of_resamples_made_by_hand():
    values = np.random.default_rng(2).normal(size=45)
    groups = np.array([f"g{at % 12}" for at in range(45)])
    found = bootstrap_quantiles(values, (10, 50, 90), seed=3, samples=300, groups=groups)
    members = [values[groups == name] for name in np.unique(groups)]
    resamples = [
        np.concatenate([members[at] for at in draw]) for block in draws(12, samples=300, seed=3) for draw in block
    ]
    for percentile, each in zip((10, 50, 90), found, strict=True):
        of_each = [np.quantile(sample, percentile / 100, method="inverted_cdf") for sample in resamples]
        assert [each.low, each.high] == pytest.approx(np.quantile(of_each, [0.025, 0.975]).tolist())
        assert each.value == pytest.approx(np.quantile(values, percentile / 100))
        assert each.count == 45


def test_the_interval_of_a_median_covers_the_true_one_about_as_often_as_it_says():
    covered = 0
    for trial in range(200):
        values = np.random.default_rng(trial).exponential(size=80)
        (middle,) = bootstrap_quantiles(values, (50,), seed=trial, samples=200, groups=np.arange(80))
        covered += middle.low <= np.log(2) <= middle.high
    assert 0.9 <= covered / 200 <= 0.99


def test_percentiles_of_nothing_are_missing():
    assert [each.value for each in bootstrap_quantiles([], (10, 90), seed=1, samples=100, groups=[])] == [None, None]
