"""Figures on held-out pairs, by arithmetic on four pairs."""

import numpy as np
import pytest

from dpo_pipeline.evaluation.preferences import (
    Measure,
    PairScores,
    calibration,
    compare_rankings,
    histogram,
    ranking_figures,
    reference_figures,
    slices_of,
)


def scores(chosen, rejected, chosen_tokens=None, rejected_tokens=None):
    count = len(chosen)
    return PairScores(
        np.array(chosen, dtype=float),
        np.array(rejected, dtype=float),
        np.array(chosen_tokens or [4] * count),
        np.array(rejected_tokens or [4] * count),
    )


def measure(count):
    return Measure(np.array([str(at) for at in range(count)]), samples=200, seed=1)


def test_ranking_counts_ties_and_nan_as_wrong():
    found = ranking_figures(scores([-1, -2, -3, np.nan], [-2, -2, -1, -1]), measure(4))
    assert found["ranking_accuracy"]["value"] == 0.25
    assert found["not_finite"] == 1
    assert found["chosen_log_prob"]["value"] is None


def test_per_token_accuracy_does_not_favour_the_shorter():
    """-6 over 6 tokens beats -5 over 2 tokens per token, though not in sum."""
    found = ranking_figures(scores([-6.0], [-5.0], [6], [2]), measure(1))
    assert found["ranking_accuracy"]["value"] == 0.0
    assert found["ranking_accuracy_per_token"]["value"] == 1.0


def test_movement_against_the_reference():
    """Changes of chosen: +1, -1, -2, +2; of rejected: -3, -3, +1, -2; beta 0.1."""
    reference = scores([-10, -10, -10, -10], [-10, -10, -10, -10])
    policy = scores([-9, -11, -12, -8], [-13, -13, -9, -12])
    found = reference_figures(policy, reference, beta=0.1, measure=measure(4))
    assert found["implicit_accuracy"]["value"] == 0.75
    assert found["margin"]["value"] == pytest.approx(0.1 * (4 + 2 - 3 + 4) / 4)
    assert found["chosen_change"]["value"] == 0.0
    assert found["rejected_change"]["value"] == -1.75
    assert found["chosen_fell"]["value"] == 0.5
    assert found["both_fell"]["value"] == 0.25
    expected = np.mean(np.log1p(np.exp(-0.1 * np.array([4, 2, -3, 4]))))
    assert found["bradley_terry_log_loss"]["value"] == pytest.approx(expected, rel=1e-5)
    brier = np.mean((1 - 1 / (1 + np.exp(-0.1 * np.array([4, 2, -3, 4])))) ** 2)
    assert found["brier"]["value"] == pytest.approx(brier, rel=1e-5)
    assert found["margin_quantiles"]["p50"]["value"] == pytest.approx(0.3)


def test_the_reference_itself_has_log_loss_ln_2():
    same = scores([-3.0, -4.0], [-5.0, -2.0])
    found = reference_figures(same, same, beta=0.1, measure=measure(2))
    assert found["bradley_terry_log_loss"]["value"] == pytest.approx(np.log(2), rel=1e-5)
    assert found["chosen_fell"]["value"] == 0.0


def test_calibration_of_calls_right_as_often_as_stated():
    """logit(0.9) for nine right and one wrong call: confidence 0.9, right 0.9, no error."""
    sure = np.log(9)
    found = calibration([sure] * 9 + [-sure], measure(10))
    row = next(each for each in found["bins"] if each["count"])
    assert (row["count"], row["confidence"], row["right"]["value"]) == (10, 0.9, 0.9)
    assert found["expected_calibration_error"]["value"] == pytest.approx(0.0, abs=1e-6)


def test_calibration_of_an_overconfident_model():
    """Ten calls at confidence 0.9, half of them right: the error is 0.4."""
    found = calibration([np.log(9)] * 5 + [-np.log(9)] * 5, measure(10))
    error = found["expected_calibration_error"]
    assert error["value"] == pytest.approx(0.4, abs=1e-6)
    assert error["low"] < 0.4 < error["high"]
    assert calibration([], measure(0))["expected_calibration_error"]["value"] is None


def test_paired_comparison_of_rankings():
    """The challenger gets pairs 3 to 10 right that the baseline gets wrong: +8 of 10, McNemar 2 / 2**8."""
    baseline = scores([-1] * 2 + [-3] * 8, [-2] * 10)
    challenger = scores([-1] * 10, [-2] * 10)
    found = compare_rankings(baseline, challenger, measure(10))
    assert found["gain"]["value"] == 0.8
    assert found["mcnemar_p"] == pytest.approx(2 / 256, abs=1e-6)


def test_histogram_keeps_every_finite_value():
    values = {"a": np.array([0.0, 1.0, 2.0, 1000.0, np.nan]), "b": np.array([1.0])}
    found = histogram(values, bins=4)
    assert sum(found["counts"]["a"]) == 4
    assert sum(found["counts"]["b"]) == 1
    framed = histogram({**values, "c": np.array([-900.0])}, bins=4, framed_by=["b"])
    assert (framed["edges"][0], framed["counts"]["c"][0]) == (0.5, 1)
    assert histogram({"a": np.array([])})["edges"] == []
    assert sum(histogram({"a": np.array([2.0, 2.0])})["counts"]["a"]) == 2


def pair(chosen, rejected, **fields):
    known = {
        "prompt": [{"role": "user", "content": "one two"}],
        "agreement": 1.0,
        "judgment_count": 3,
        "dimensions": [],
        "sources": ["csv"],
        "drops": ["a"],
    }
    return {"chosen": chosen, "rejected": rejected, **known, **fields}


def test_slices_by_length_agreement_and_membership():
    pairs = [
        pair("a b", "a b c d", agreement=0.6, drops=["a", "b"]),
        pair("a b c d", "a b", dimensions=[{"name": "tone", "strength": 2.0}, {"name": "short", "strength": -1.0}]),
        pair("a b", "c d", agreement=0.75, sources=["label_studio"]),
    ]
    found = {
        (family, label): mask.tolist() for family, masks in slices_of(pairs).items() for label, mask in masks.items()
    }
    assert found["length of chosen", "shorter than rejected"] == [True, False, False]
    assert found["length of chosen", "within 10 %"] == [False, False, True]
    assert found["agreement of the annotators", "contested"] == [True, False, False]
    assert found["agreement of the annotators", "three quarters or more"] == [False, False, True]
    assert found["dimension that favours chosen", "tone"] == [False, True, False]
    assert ("dimension that favours chosen", "short") not in found
    assert found["drop", "a"] == [True, True, True]
    assert found["drop", "b"] == [True, False, False]
    assert found["length of the prompt", "up to 2 words"] == [True, True, True]


def test_golden_pairs_are_in_no_slice_by_agreement():
    found = slices_of([pair("a", "b"), pair("a", "b", judgment_count=0, sources=["golden_set"])])
    assert {name: mask.tolist() for name, mask in found["agreement of the annotators"].items()} == {
        "unanimous": [True, False]
    }


def test_many_labels_are_shown_together_and_none_is_lost():
    pairs = [pair("a", "b", drops=[f"drop {at:02}"]) for at in range(30)]
    found = slices_of(pairs)["drop"]
    assert len(found) == 13
    assert sum(found["18 others together"]) == 18


def test_slices_of_nothing():
    assert slices_of([]) == {}
