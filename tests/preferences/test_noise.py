"""Label noise: planted flips are found again, by single verdicts and by kept pairs."""

import numpy as np
import pytest
from preference_worlds import judgment

from dpo_pipeline.preferences.noise import label_noise, noise_sentence
from dpo_pipeline.preferences.settings import PreferenceSettings


def planted(error, verdicts, *, pairs=20_000, seed=5):
    """Verdicts toward the low and the high response of pairs whose low response is the better one."""
    wrong = np.random.default_rng(seed).binomial(verdicts, error, pairs)
    return verdicts - wrong, wrong


@pytest.mark.parametrize("verdicts", [2, 3, 5])
@pytest.mark.parametrize("error", [0.02, 0.15, 0.3])
def test_the_planted_error_of_one_verdict_is_found(error, verdicts):
    noise = label_noise(*planted(error, verdicts), np.array([0.9]))
    assert noise["one_verdict"] == pytest.approx(error, abs=0.012)
    assert noise["one_verdict_low"] <= error <= noise["one_verdict_high"]
    assert noise["pairs_compared"] == 20_000


def test_verdicts_by_chance_give_one_half():
    """Half of all pairs of verdicts differ: d = 1/2, e = 1/2, reached only from below."""
    noise = label_noise(*planted(0.5, 2), np.array([0.5]))
    assert 0.4 < noise["one_verdict"] <= 0.5


def test_where_nothing_meets_nothing_is_said():
    noise = label_noise(np.array([1, 0]), np.array([0, 1]), np.array([0.8, 0.8]))
    assert noise == {
        "one_verdict": None, "one_verdict_low": None, "one_verdict_high": None, "kept_pairs": 0.2, "pairs_compared": 0,
    }  # fmt: skip
    assert noise_sentence(noise).startswith("label noise: no pair has two verdicts to compare; by the consensus' prior")


def test_contradictions_left_out_of_training_count_for_the_estimate(world):
    """Four pairs of two verdicts each, one of which is contradicted: two verdicts differ in a quarter of the pairs."""
    rows = []
    for number, second in enumerate(("a", "a", "a", "b")):
        texts = (
            f"How many lamps hang in room {number}?",
            f"There are {number} and a half.",
            "Nobody has counted them.",
        )
        rows += [judgment(*texts, "a", "ann-1"), judgment(*texts, second, "ann-2")]
    settings = PreferenceSettings(consensus="majority")
    _, outcome = world.build(world.drop("may", rows, settings=settings), settings=settings)
    assert outcome.counts["excluded_contradiction"] == 1
    noise = outcome.facts["label_noise"]
    assert noise["one_verdict"] == 0.1464  # (1 - sqrt(1 - 2 / 4)) / 2
    assert noise["pairs_compared"] == 4
    assert noise["kept_pairs"] == 0.0
