"""What a view says is compared with the ledger field by field; a view that is away is never a pass."""

from dataclasses import replace

import pytest

from dpo_pipeline.core.artifacts import Outcome, Recipe
from dpo_pipeline.lineage import witnesses
from dpo_pipeline.lineage.chain import ancestors, chain_of
from dpo_pipeline.lineage.witnesses import Record, ViewAwayError, check_views

KEY = "run-1/judgments/-/0"


class Double:
    """A view that shows what it is given."""

    name = "MLflow"

    def __init__(self, *shown):
        self.shown = shown

    def records(self, home):
        return self.shown

    def faults(self, home, digests):
        return ()


class Away:
    name = "Dagster"

    def records(self, home):
        raise ViewAwayError("its storage is gone")


@pytest.fixture
def good(home):
    recipe = Recipe("judgments", "1", {}, ())
    with home.store.staging() as folder:
        (folder / "rows.txt").write_text("may")
        made = home.store.publish(folder, recipe, Outcome())
    fields = {"attempt": KEY, "asset": "judgments", "partition": None, "recipe": recipe.digest}
    home.ledger.append("finished", **fields, artifact=made.digest, tracking="http://x/1")
    return Record(KEY, "judgments", None, made.digest, "FINISHED", recipe.digest, "run 1")


def check(home, monkeypatch, *views):
    monkeypatch.setattr(witnesses, "installed_views", lambda: list(views))
    return check_views(home, ancestors(chain_of(home, "judgments")))


def test_an_equal_record_is_a_pass(home, good, monkeypatch):
    found = check(home, monkeypatch, Double(good))
    assert (found.faults, found.not_run) == ((), None)


@pytest.mark.parametrize(
    ("field", "value"), [("digest", "f" * 64), ("status", "RUNNING"), ("recipe", "other"), ("partition", "may")]
)
def test_an_edited_field_is_named_with_both_values(home, good, monkeypatch, field, value):
    [fault] = check(home, monkeypatch, Double(replace(good, **{field: value}))).faults
    assert "run 1" in fault
    assert str(value) in fault
    assert "the ledger says" in fault


def test_a_deleted_record_a_second_one_and_a_forged_one_are_faults(home, good, monkeypatch):
    assert "shows nothing of" in check(home, monkeypatch, Double()).faults[0]
    assert "2 records" in check(home, monkeypatch, Double(good, replace(good, where="run 2"))).faults[0]
    forged = replace(good, attempt=None, digest="forged", where="event 9")
    [fault] = check(home, monkeypatch, Double(good, forged)).faults
    assert "event 9" in fault
    assert "the ledger has no attempt None" in fault


def test_a_view_that_is_away_or_not_installed_is_not_a_pass(home, good, monkeypatch):
    assert check(home, monkeypatch, Double(good), Away()).not_run == "Dagster: its storage is gone."
    assert "no package offers" in check(home, monkeypatch).not_run
