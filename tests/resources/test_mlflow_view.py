"""The reconciler tells MLflow what it missed, from the ledger alone, and reports what was edited or doubled."""

import pytest

from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.witnesses import ViewAwayError
from resources.mlflow_tracking import connect
from resources.mlflow_view import MlflowView, reconcile_mlflow

RECIPE = Recipe("pairs", "1", {"beta": 0.1}, (Parent("judgments/may", "judgments", "ab" * 32),))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One home for all: making MLflow's tables takes seconds."""
    home = Home(tmp_path_factory.mktemp("view") / "home")
    connect("", home.mlflow)
    return home


def attempt(home, key, event=None, **fields):
    same = {"attempt": key, "asset": "pairs", "partition": None, "recipe": RECIPE.digest}
    parents = [{"role": p.role, "kind": p.kind, "digest": p.digest} for p in RECIPE.parents]
    about = {"dagster_run": "r", "profile": "demo", "settings": dict(RECIPE.settings), "code_version": "1"}
    home.ledger.append("started", **same, **about, parents=parents, code={})
    if event:
        home.ledger.append(event, **same, tracking=None, **fields)


def publish(home, text):
    with home.store.staging() as folder:
        (folder / "rows.txt").write_text(text)
        return home.store.publish(folder, RECIPE, Outcome(counts={"rows": 3}))


def runs(home, key):
    client, experiment = connect("", home.mlflow)
    return client, client.search_runs([experiment], f"tags.attempt = '{key}'")


def about(home, key):
    return [sentence for sentence in reconcile_mlflow(home) if key in sentence]


@pytest.mark.parametrize(("event", "status"), [("failed", "FAILED"), ("killed", "KILLED")])
def test_an_attempt_mlflow_missed_is_told_with_its_times_and_once(home, event, status):
    attempt(home, event, event, reason="the disk is full")
    assert about(home, f"{event}:") == [f"MLflow was told of {event}: {status}"]
    assert about(home, event) == []
    _, [run] = runs(home, event)
    start, end = (line for line in home.ledger.lines() if line["attempt"] == event)
    assert run.info.status == status
    assert start["time"][:19] == _iso(run.info.start_time)
    assert end["time"][:19] == _iso(run.info.end_time)


def test_a_finished_one_is_told_whole_then_every_later_change_is_named(home):
    artifact = publish(home, "whole")
    attempt(home, "whole", "finished", artifact=artifact.digest, remarks={"seconds": 2.0})
    reconcile_mlflow(home)
    client, [run] = runs(home, "whole")
    assert (run.info.status, run.data.params, run.data.metrics["rows"]) == ("FINISHED", {"beta": "0.1"}, 3)
    assert run.inputs.dataset_inputs[0].dataset.digest == ("ab" * 32)[:32]
    client.set_tag(run.info.run_id, "artifact.digest", "forged")
    [edited] = about(home, "whole")
    assert edited == (f"MLflow run {run.info.run_id} says digest forged, the ledger says {artifact.digest} (whole)")
    client.set_tag(run.info.run_id, "artifact.digest", artifact.digest)
    client.delete_run(run.info.run_id)
    assert "says status DELETED, the ledger says FINISHED" in about(home, "whole")[0]
    client.restore_run(run.info.run_id)
    double = client.create_run(run.info.experiment_id, tags={"attempt": "whole"})
    assert "MLflow shows 2 runs of whole" in about(home, "whole")[0]
    client.delete_run(double.info.run_id)


def test_a_run_left_running_is_closed_and_one_still_at_work_left_alone(home):
    client, experiment = connect("", home.mlflow)
    for key in ("dead", "live"):
        client.create_run(experiment, tags={"attempt": key})
    attempt(home, "dead", "killed", reason="its process ended without a word")
    attempt(home, "live")
    reconcile_mlflow(home)
    assert [runs(home, key)[1][0].info.status for key in ("dead", "live")] == ["KILLED", "RUNNING"]


def test_a_run_nobody_attempted_is_reported(home):
    client, experiment = connect("", home.mlflow)
    client.create_run(experiment, tags={"attempt": "invented"})
    assert "the ledger has no attempt invented" in about(home, "invented")[0]


def test_the_view_shows_each_run_or_says_why_not(home, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert {record.status for record in MlflowView().records(home)} >= {"KILLED"}
    with pytest.raises(ViewAwayError, match=r"there is no .*mlflow\.db"):
        MlflowView().records(Home(tmp_path))


def test_a_server_that_is_away_is_said_and_nothing_is_raised(tmp_path):
    [sentence] = reconcile_mlflow(Home(tmp_path), "http://127.0.0.1:9")
    assert sentence.startswith("MLflow cannot be reached, nothing was told to it")


def _iso(milliseconds):
    from datetime import UTC, datetime

    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()[:19]
