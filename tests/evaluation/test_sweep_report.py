"""The frontier: who is on it, what the table says, and a page in which nothing that stands in a name can act."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.core.artifacts import Outcome, Recipe
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.evaluation.sweep_report import frontier, report_sweep


def point(home, beta, accuracy, divergence, *, loss="sigmoid", passed=None, reason="dpo gains."):
    facts = {"beta": beta, "learning_rate": 2e-5, "loss": loss, "epochs": 3.0, "outcome": "better", "reason": reason}
    for name, value in (("implicit_accuracy", accuracy), ("kl_per_reply", divergence), ("dpo/passed", passed)):
        if value is not None:
            facts |= {name: value, f"{name}/low": value - 0.05, f"{name}/high": value + 0.05}
    with home.store.staging() as folder:
        (folder / "file").write_text("x")
        return home.store.publish(folder, Recipe("sweep_point", "1", {"dpo": {"beta": beta}}, ()), Outcome(facts=facts))


def test_a_point_that_another_one_dominates_is_not_on_the_frontier(home, tmp_path):
    points = {
        "beta=0.5": point(home, 0.5, 0.70, 0.2),
        "beta=0.2": point(home, 0.2, 0.90, 1.0, passed=0.9),
        "beta=0.1": point(home, 0.1, 0.90, 2.0),  # no better than 0.2 at twice its KL
        "beta=0.05": point(home, 0.05, 0.95, 5.0),
        "beta=9": point(home, 9.0, None, None, reason="A guarded figure is broken. <script>alert(1)</script>"),
    }
    outcome = report_sweep(points, tmp_path)
    assert outcome.counts == {"points": 5, "points_on_frontier": 3, "points_broken": 1}
    assert outcome.facts == {
        "on_frontier": ["beta=0.5", "beta=0.2", "beta=0.05"],
        "on_frontier_of_target": ["beta=0.2"],
    }
    rows = json.loads((tmp_path / "sweep.json").read_text())["points"]
    assert [row["point"] for row in rows] == ["beta=0.5", "beta=0.2", "beta=0.1", "beta=0.05", "beta=9"]
    assert rows[4]["implicit_accuracy"] is None
    table = (tmp_path / "table.md").read_text().splitlines()
    assert table[3] == (
        "| **frontier** | sigmoid | 0.2 | 2e-05 | 3 | 90.0 % (85–95) | 1.00 (0.95–1.05) | 90.0 % (85–95) | better |"
    )
    assert table[6].endswith("| not measured | not measured | not measured | better |")
    page = (tmp_path / "report.html").read_text()
    assert "3 of 5 points are on the frontier; the highest reward accuracy is 95.0 % (90–100)" in page
    assert "<script" not in page
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_equal_points_give_equal_bytes(home, tmp_path):
    points = {f"beta={beta:g}": point(home, beta, 0.6 + beta, 1 / beta) for beta in (0.05, 0.1, 0.2)}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        report_sweep(dict(sorted(points.items(), reverse=name == "two")), tmp_path / name)
    for file in ("sweep.json", "table.md", "frontier.png", "report.html"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_without_points_it_says_how_to_make_some(tmp_path):
    with pytest.raises(InputError, match="Run `dpo-pipeline sweep --beta"):
        report_sweep({}, tmp_path)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 50)), max_size=12))
def test_law_whatever_is_left_out_is_dominated_and_nothing_on_the_frontier_is(figures):
    rows = [
        {"point": str(at), "implicit_accuracy": [up, up, up], "kl_per_reply": [across, across, across]}
        for at, (up, across) in enumerate(figures)
    ]
    best = frontier(rows)
    values = [(row["implicit_accuracy"][0], row["kl_per_reply"][0]) for row in best]
    assert all(left[0] < right[0] and left[1] < right[1] for left, right in pairwise(values))
    for up, across in figures:
        assert any(other_up >= up and other_across <= across for other_up, other_across in values)
