"""The scenario's language: on-brand replies keep the guidelines, each flaw misses its own, prompts are varied."""

import random

import pytest

from dpo_pipeline.samples import catalog
from dpo_pipeline.samples.brand import brand_rubric, misses
from dpo_pipeline.samples.replies import HABITS, Dimension, Flaw, draw_case, flawed, logged, message, on_brand

COMBINATIONS = [(product, issue) for product in catalog.PRODUCTS for issue in catalog.ISSUES]


def cases(count):
    chance = random.Random(5)
    return [(draw_case(chance, COMBINATIONS), chance) for _ in range(count)]


def test_on_brand_replies_miss_nothing():
    assert {misses(on_brand(case, chance)) for case, chance in cases(400)} == {frozenset()}


@pytest.mark.parametrize("flaw", Flaw)
def test_each_flaw_misses_its_guideline(flaw):
    assert all(flaw.breaks in misses(flawed(case, flaw, chance)) for case, chance in cases(200))


def test_the_rubric_is_one_of_evaluation():
    settings = pytest.importorskip("dpo_pipeline.evaluation.settings")
    rubric = settings.Rubric.parse(brand_rubric(), where="the brand rubric")
    assert {*rubric.required, *rubric.forbidden, "concise"} == set(Dimension)


def test_an_on_brand_reply_names_customer_order_and_product():
    for case, chance in cases(100):
        reply = on_brand(case, chance)
        assert case.name in reply
        assert case.order in reply
        assert case.product in reply


def test_prompts_are_all_different_and_name_the_order():
    drawn = [(case, message(case, chance)) for case, chance in cases(500)]
    assert len({text for _, text in drawn}) == 500
    assert all(case.order in text and case.name in text for case, text in drawn)


def test_logs_follow_the_habit_of_the_team_on_duty_and_half_of_them_are_on_brand():
    drawn = [(case, misses(logged(case, chance))) for case, chance in cases(4_000)]
    assert 0.4 < sum(not missed for _, missed in drawn) / len(drawn) < 0.6
    for (channel, mood), flaw in HABITS.items():
        of_team = [missed for case, missed in drawn if (case.channel, case.mood) == (channel, mood)]
        assert sum(flaw.breaks in missed for missed in of_team) / len(of_team) > 0.7
