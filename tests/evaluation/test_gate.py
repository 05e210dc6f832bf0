"""The stated rule, case by case: better, not better, not enough evidence; and its laws."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.evaluation.gate import Evidence, Finding, decide_promotion, stated_rule
from dpo_pipeline.evaluation.settings import GateSettings

SETTINGS = GateSettings()


def shown(model, passed, *, count=100, right=0.8, **figures):
    """Evidence of a model that passes the first `passed` of so many prompts and ranks a share of pairs right."""
    known = {"empty_share": 0.0, "repetition": 0.02, "distinct_2": 0.4, "log_loss": 0.2, "unfinished_share": 0.0}
    return Evidence(
        model,
        {f"prompt {at}": float(at < passed) for at in range(count)},
        {f"pair {at}": at < right * count for at in range(count)},
        **{**known, **figures},
    )


def decide(challenger, champion=None, settings=SETTINGS):
    return decide_promotion(challenger, champion or shown("sft", 50), settings, samples=500)


def test_a_clear_gain_with_every_guard_held_is_better():
    decision = decide(shown("dpo", 90))
    assert decision.outcome is Finding.BETTER
    assert decision.promotes
    assert decision.gain.value == pytest.approx(0.4)
    assert decision.p_value < 0.01
    assert decision.reason.startswith("dpo gains +40.0 points (")
    assert all(check.held for check in decision.checks)


def test_a_loss_is_not_better():
    decision = decide(shown("dpo", 30))
    assert decision.outcome is Finding.NOT_BETTER
    assert "does not gain" in decision.reason


def test_one_more_prompt_is_not_enough_evidence():
    decision = decide(shown("dpo", 51))
    assert decision.outcome is Finding.NOT_ENOUGH_EVIDENCE
    assert not decision.promotes


def test_few_items_are_never_enough_however_large_the_gain():
    decision = decide(shown("dpo", 20, count=20), shown("sft", 0, count=20))
    assert decision.outcome is Finding.NOT_ENOUGH_EVIDENCE
    assert decision.reason == (
        "Found 20 items in 20 clusters measured on both sides; the rule asks for at least 30 in 10."
    )


def test_many_pairs_of_few_prompts_are_not_many_observations():
    """100 items that all stem from one prompt: the interval of a constant is no proof, so clusters are resampled."""
    clusters = {f"prompt {at}": str(at % 3) for at in range(100)}
    mixed = replace(
        shown("dpo", 0), target={f"prompt {at}": float(at % 3 != 0) for at in range(100)}, clusters=clusters
    )
    decision = decide(mixed, shown("sft", 0))
    assert decision.gain.low == 0.0
    assert decision.outcome is Finding.NOT_ENOUGH_EVIDENCE


@pytest.mark.parametrize(("count", "finding"), [(1, "not_enough_evidence"), (9, "not_enough_evidence"), (10, "better")])
def test_copies_of_few_prompts_are_never_enough_however_large_the_gain(count, finding):
    """One cluster resampled has an interval of no width, which lies above any smaller gain."""
    clusters = {f"prompt {at}": str(at % count) for at in range(100)}
    decision = decide(replace(shown("dpo", 100), clusters=clusters), shown("sft", 50))
    assert decision.gain.low > 0
    assert decision.outcome == finding


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        ({"not_finite": 1}, "Log-probs"),
        ({"empty_share": 0.5}, "Empty replies"),
        ({"kl_per_token": 3.0}, "KL per token"),
        ({"kl_per_token": math.nan}, "KL per token"),
        ({"repetition": 0.4}, "Rise of repetition"),
        ({"distinct_2": 0.05}, "Distinct-2"),
        ({"log_loss": 0.2 + math.log(2)}, "Growth of perplexity"),
        ({"log_loss": math.nan}, "Growth of perplexity"),
        ({"log_loss": 1e9}, "Growth of perplexity"),
        ({"unfinished_share": 0.3}, "Rise of cut replies"),
        ({"right": 0.5}, "Ranking accuracy"),
    ],
)
def test_a_broken_guard_is_not_better_whatever_the_gain(broken, name):
    decision = decide(shown("dpo", 100, **broken))
    assert decision.outcome is Finding.NOT_BETTER
    assert name in decision.reason


def test_a_guard_that_cannot_be_decided_is_not_enough_evidence():
    """Accuracy 0.80 -> 0.79 with intervals some points wide: neither shown to hold nor shown to be broken."""
    champion = shown("sft", 10)
    wobbly = {key: value ^ (at % 10 == 0) for at, (key, value) in enumerate(champion.rankings.items())}
    decision = decide(replace(shown("dpo", 90), rankings=wobbly), champion)
    assert decision.outcome is Finding.NOT_ENOUGH_EVIDENCE
    assert "guard could not be decided" in decision.reason


def test_no_items_at_all_is_not_enough_evidence():
    nothing = Evidence("dpo", {}, {})
    decision = decide(nothing, Evidence("sft", {}, {}))
    assert decision.outcome is Finding.NOT_ENOUGH_EVIDENCE
    assert decision.as_dict()["gain"] == {"value": None, "low": None, "high": None, "count": 0}


def test_items_that_are_nan_on_one_side_are_left_out():
    half = {f"prompt {at}": math.nan if at < 80 else 1.0 for at in range(100)}
    decision = decide(replace(shown("dpo", 100), target=half))
    assert decision.gain.count == 20
    assert decision.outcome is Finding.NOT_ENOUGH_EVIDENCE


def test_the_rule_names_every_margin():
    text = " ".join(stated_rule(GateSettings(least_gain=0.05, accuracy_margin=0.03), target="the win rate"))
    for words in ("the win rate", "above 5 points", "by 3 points", "30 items", "1.5 times", "2 % of the replies"):
        assert words in text


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_model_is_never_better_than_itself_nor_both_ways(first, second):
    """Laws: not better than itself; of two models at most one is better."""
    one, other = shown("a", first, count=60), shown("b", second, count=60)
    assert not decide(one, one).promotes
    assert not (decide(one, other).promotes and decide(other, one).promotes)
