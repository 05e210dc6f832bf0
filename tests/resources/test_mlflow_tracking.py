"""MLflow as a view: one run per attempt, numbers in batches and off the training's path; embedded and on a server."""

import threading
import time
import uuid

import pytest

from dpo_pipeline.core.home import Home
from resources import mlflow_run, mlflow_tracking
from resources.mlflow_client import connect
from resources.mlflow_compare import attempts_of, record_of
from resources.mlflow_tracking import NoTracking
from resources.spool import Spool
from tests.resources.worlds import PARENT, RECIPE, World


def iso(milliseconds):
    from datetime import UTC, datetime

    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def key():
    return uuid.uuid4().hex


def differs(world, run_id):
    return record_of(world.client.get_run(run_id), world.home, attempts_of(world.home)).differs


def test_a_finished_attempt_carries_settings_inputs_numbers_and_the_artifact_with_the_ledgers_times(world):
    start = world.start(key())
    run = world.begin(start)
    spool = Spool.of(world.home, start["attempt"])
    with run.following():
        for step in range(1, 4):
            spool.add(step, {"loss": 1 / step, "broken": float("nan")})
        spool.note({"device": "cpu"})
    artifact = world.publish()
    end = world.line(start, "finished", artifact=artifact.digest, remarks={"seconds": 1.5, "device": "cpu"})
    run.end(end, artifact)
    assert world.warnings == []
    found = world.client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert (iso(found.info.start_time), iso(found.info.end_time)) == (start["time"], end["time"])
    assert found.data.params == {"dpo.beta": "0.1", "dpo.optimizer.learning_rate": "5e-07", "model.seed": "17"}
    expected = {"artifact.digest": artifact.digest, "recipe": RECIPE.digest, "noted.device": "cpu"}
    assert {name: found.data.tags[name] for name in expected} == expected
    assert (found.data.tags["code.git_commit"], found.data.tags["environment.versions.torch"]) == ("c0ffee", "2")
    [seen] = found.inputs.dataset_inputs
    assert (seen.dataset.name, seen.dataset.digest) == (PARENT.role, PARENT.digest[:32])
    assert {tag.key: tag.value for tag in seen.tags}["sha256"] == PARENT.digest
    points = world.client.get_metric_history(run.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert found.data.metrics == {"loss": 1 / 3, "steps": 3, "accuracy": 0.9, "seconds": 1.5}
    assert sorted(item.path for item in world.client.list_artifacts(run.run_id)) == ["manifest.json", "training.json"]
    assert end["curves"] == {"loss": {"points": 3, "step": 3, "value": 1 / 3}}
    assert not spool.path.exists()
    assert differs(world, run.run_id) == ()


@pytest.mark.parametrize(("event", "status"), [("failed", "FAILED"), ("killed", "KILLED")])
def test_an_attempt_that_ends_badly_says_so_and_keeps_its_numbers(world, event, status):
    start = world.start(key())
    run = world.begin(start)
    with run.following():
        Spool.of(world.home, start["attempt"]).add(1, {"loss": 7.0})
    run.end(world.line(start, event, reason="loss is not finite"), None)
    found = world.client.get_run(run.run_id)
    assert (found.info.status, found.data.tags["failure"]) == (status, "loss is not finite")
    assert found.data.metrics == {"loss": 7.0}
    assert differs(world, run.run_id) == ()


def test_a_training_step_makes_no_call_and_numbers_leave_in_batches_of_a_thousand(world, monkeypatch):
    """3,000 numbers: three calls, each from the thread that follows, none from the one that works."""
    calls, real = [], mlflow_run.send_points
    monkeypatch.setattr(mlflow_tracking, "FLUSH_SECONDS", 0.05)

    class Counting:
        def __init__(self, client):
            self.client = client

        def log_batch(self, run_id, metrics):
            calls.append((threading.current_thread().name, len(metrics)))
            self.client.log_batch(run_id, metrics=metrics)

    monkeypatch.setattr(mlflow_tracking, "send_points", lambda client, *rest: real(Counting(client), *rest))
    start = world.start(key())
    run = world.begin(start)
    spool = Spool.of(world.home, start["attempt"])
    with run.following():
        spool.add(0, {f"metric {number}": float(number) for number in range(3_000)})
        for _ in range(600):
            if sum(size for _, size in calls) == 3_000:
                break
            time.sleep(0.05)
    assert calls == [("mlflow-metrics", 1_000)] * 3
    run.end(world.line(start, "failed", reason="enough"), None)
    assert len(world.client.get_run(run.run_id).data.metrics) == 3_000


def test_what_mlflow_would_refuse_or_cut_is_made_fit_in_the_open(world):
    settings = {
        "long": "x" * 7_000,
        "na:me": {"a//b": 1},
        "na_me": {"a/_/b": 2},
        "n" * 300: "nul \0",
        "empty": "",
        **{f"setting {number}": number for number in range(150)},
    }
    start = world.start(key(), settings=settings, profile="p" * 9_000)
    run = world.begin(start)
    run.end(world.line(start, "failed", reason="because " * 2_000), None)
    assert world.warnings == []
    found = world.client.get_run(run.run_id)
    assert len(found.data.params) == 155
    assert "in all 7000 characters, sha256 " in found.data.params["long"]
    assert "in all 9000 characters, sha256 " in found.data.tags["profile"]
    assert "in all 16000 characters, sha256 " in found.data.tags["failure"]
    twins = {name: value for name, value in found.data.params.items() if name.startswith("na_me.a/_/b")}
    assert sorted(twins.values()) == ["1", "2"]
    assert "nul \\x00" in found.data.params.values()
    assert differs(world, run.run_id) == ()


def test_processes_that_name_the_same_new_dataset_at_once_all_succeed(world):
    """MLflow's UNIQUE constraint makes all but one fail; each is tried again."""
    role = f"judgments/{key()}"
    parents = [{"role": role, "kind": "judgments", "digest": "cd" * 32}]
    starts = [world.start(key(), parents=parents) for _ in range(6)]
    runs = []
    threads = [threading.Thread(target=lambda start=start: runs.append(world.begin(start))) for start in starts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.warnings == []
    for run in runs:
        [seen] = world.client.get_run(run.run_id).inputs.dataset_inputs
        assert (seen.dataset.name, {tag.key: tag.value for tag in seen.tags}["sha256"]) == (role, "cd" * 32)


def test_the_lost_race_is_forced_and_won_at_the_second_try(world, monkeypatch):
    class Losing:
        tries = 0

        def log_inputs(self, run_id, inputs):
            self.tries += 1
            if self.tries == 1:
                raise RuntimeError("BAD_REQUEST: UNIQUE constraint failed: datasets.experiment_id")

    client = Losing()
    mlflow_run._log_inputs(client, "run", mlflow_run_opening(world))
    assert client.tries == 2


def mlflow_run_opening(world):
    from resources.mlflow_shown import opening_of

    return opening_of(world.start(key()))


def test_everything_said_twice_is_there_once(world):
    told = world.finished(key())
    start, artifact = told.start, told.artifact
    end = next(line for line in reversed(list(world.home.ledger.lines())) if line.get("attempt") == told.key)
    Spool.of(world.home, told.key).add(1, {"late": 1.0})
    again = world.begin(start)
    again.end(end, artifact)
    assert again.run_id == told.run.run_id
    assert len(world.runs(told.key)) == 1


def test_nothing_is_written_to_the_current_directory(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    world.finished(key())
    assert list(tmp_path.iterdir()) == []


def test_the_experiment_is_made_once_by_many_at_once(tmp_path):
    home, found = Home(tmp_path / "home"), []
    threads = [threading.Thread(target=lambda: found.append(connect("", home.mlflow)[1])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_the_link_leads_to_the_server_or_to_what_make_ui_serves(world):
    run = world.begin(world.start(key()))
    at = world.tracking.uri or "http://127.0.0.1:5000"
    assert run.url == f"{at}/#/experiments/{world.experiment}/runs/{run.run_id}"


def test_the_double_takes_everything_and_keeps_nothing(home):
    world = World.__new__(World)
    world.home = home
    start = world.start("double")
    run = NoTracking().begin(start, home=home, warn=pytest.fail)
    with run.following():
        Spool.of(home, start["attempt"]).add(1, {"loss": 1.0})
    run.end(world.line(start, "failed", reason="fine"), None)
    assert run.url is None
    assert not home.mlflow.exists() or list((home.mlflow / "spool").iterdir()) == []
