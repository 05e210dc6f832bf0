"""Rankings of K responses: circles are found, orders recognised, concordance is Kendall's W."""

import itertools

import numpy as np
import pytest
from preference_worlds import judgment

from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.preferences.adding_up import counted
from dpo_pipeline.preferences.annotators import report_annotators
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.comparisons import ByPrompt
from dpo_pipeline.preferences.rankings import Rankings
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.verdict_file import VerdictFile


def text_of(letter):
    return f"The reply called {letter} says {letter * 3} and then something about {letter}."


def ranked(prompt, order, annotator):
    """The judgments an order of letters, the best first, stands for."""
    return [
        judgment(prompt, text_of(better), text_of(worse), "a", annotator)
        for better, worse in itertools.combinations(order, 2)
    ]


def described(world, rows):
    drop = world.drop("may", rows)
    catalogue = Catalogue([drop])
    rankings = Rankings()
    with ByPrompt(catalogue, least_pairs=2) as by_prompt:
        for start, _, verdicts in VerdictFile.merge(catalogue, Quiet()).slices():
            by_prompt.add(start, counted(verdicts))
        for comparisons in by_prompt.ranges():
            rankings.add(comparisons)
    return rankings.figures()


def test_two_like_minded_annotators_and_one_prompt_of_two_responses(world):
    rows = [*ranked("Which of four?", "wxyz", "ann"), *ranked("Which of four?", "wxyz", "bob")]
    found = described(world, [*rows, judgment("Which of two?", text_of("p"), text_of("q"), "a")])
    assert found == {
        "groups": 1,
        "sizes": {"4": 1},
        "complete": 1,
        "circular_share": 0.0,
        "ordered_share": 1.0,
        "ranked_by_several": 1,
        "kendall_w": 1.0,
    }


def test_a_circle_is_no_order(world):
    """x over y, y over z, z over x: the one triple is circular. A second prompt is in order: one of two, in all."""
    circle = [judgment("Which?", text_of(a), text_of(b), "a", "ann") for a, b in ("xy", "yz", "zx")]
    found = described(world, [*circle, *ranked("And here?", "xyz", "ann")])
    assert (found["complete"], found["circular_share"], found["ordered_share"]) == (2, 0.5, 0.5)


def test_opposite_orders_have_no_concordance_and_decide_nothing(world):
    found = described(world, [*ranked("Which?", "xyz", "ann"), *ranked("Which?", "zyx", "bob")])
    assert (found["complete"], found["circular_share"], found["kendall_w"]) == (0, None, 0.0)


def test_kendall_w_is_scipys(world):
    """W is Friedman's statistic over m (K - 1)."""
    from scipy.stats import friedmanchisquare

    orders = ["vwxyz", "wvxzy", "vxwyz", "zvwxy"]
    found = described(
        world, [row for name, order in enumerate(orders) for row in ranked("Which?", order, f"ann-{name}")]
    )
    ranks = np.array([[order.index(letter) for order in orders] for letter in "vwxyz"])
    assert found["kendall_w"] == pytest.approx(friedmanchisquare(*ranks).statistic / (4 * 4), abs=1e-4)


def test_the_page_tells_of_rankings_only_where_there_are_any(world):
    for rows, expected in (
        (ranked("Which?", "wxyz", "ann"), True),
        ([judgment("Which?", text_of("p"), text_of("q"), "a")], False),
    ):
        drop = world.drop("may", rows)
        pairs, _ = world.build(drop)
        out = world.new_folder("report")
        report_annotators([drop], pairs, out, settings=PreferenceSettings(), reporter=Quiet())
        assert ("<h2>Rankings</h2>" in (out / "report.html").read_text()) is expected
