"""MLflow as a view: one run per attempt, metrics in batches, and an attempt that goes on when MLflow is away."""

import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from dpo_pipeline.core.artifacts import ArtifactStore, Outcome, Parent, Recipe
from dpo_pipeline.core.metrics import append_metrics
from resources.mlflow_tracking import AttemptFacts, MlflowTracking, NoTracking

PARENT = Parent("judgments/may", "judgments", "ab" * 32)
RECIPE = Recipe("dpo_checkpoint", "1", {"dpo": {"beta": 0.1, "optimizer": {"learning_rate": 5e-7}}}, (PARENT,))
FACTS = AttemptFacts(
    "run-1/dpo_checkpoint/-/0", "dpo_checkpoint", None, "run-1", "demo", RECIPE, {"git_commit": "c0ffee"}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def client(folder):
    from mlflow import MlflowClient

    MlflowTracking().begin(FACTS, folder=folder, warn=pytest.fail).fail("warm-up", killed=False)
    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def begin(folder):
    facts = replace(FACTS, key=f"{uuid.uuid4().hex}/dpo_checkpoint/-/0")
    return MlflowTracking().begin(facts, folder=folder, warn=pytest.fail)


def test_a_finished_attempt_carries_settings_inputs_metrics_and_the_artifact(folder, client, tmp_path):
    run = begin(folder)
    metrics = tmp_path / "progress.jsonl"
    with run.following(metrics):
        for step in range(1, 4):
            append_metrics(metrics, step, {"loss": 1 / step, "time": time.time()})
    store = ArtifactStore(tmp_path / "artifacts")
    with store.staging() as staged:
        (staged / "training.json").write_text("{}")
        artifact = store.publish(
            staged, RECIPE, Outcome(counts={"steps": 3}, facts={"accuracy": 0.9, "loss kind": "x"})
        )
    run.finish(artifact, remarks={"seconds": 1.5})
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"dpo.beta": "0.1", "dpo.optimizer.learning_rate": "5e-07"}
    assert found.data.tags["attempt"].endswith("/dpo_checkpoint/-/0")
    assert found.data.tags["artifact.digest"] == artifact.digest
    assert found.data.tags["code.git_commit"] == "c0ffee"
    [seen] = found.inputs.dataset_inputs
    assert (seen.dataset.name, seen.dataset.digest) == (PARENT.role, PARENT.digest[:32])
    assert {tag.key: tag.value for tag in seen.tags}["sha256"] == PARENT.digest
    assert [(point.step, point.value) for point in client.get_metric_history(run.run_id, "loss")] == [
        (1, 1.0),
        (2, 0.5),
        (3, 1 / 3),
    ]
    assert found.data.metrics["steps"] == 3
    assert found.data.metrics["seconds"] == 1.5
    assert sorted(item.path for item in client.list_artifacts(run.run_id)) == ["manifest.json", "training.json"]


@pytest.mark.parametrize(("killed", "status"), [(False, "FAILED"), (True, "KILLED")])
def test_an_attempt_that_ends_badly_says_so(folder, client, killed, status):
    run = begin(folder)
    run.fail("loss is not finite", killed=killed)
    found = client.get_run(run.run_id)
    assert (found.info.status, found.data.tags["failure"]) == (status, "loss is not finite")


def test_nothing_is_written_to_the_current_directory(folder, client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin(folder).fail("done", killed=False)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_away_is_one_warning_and_the_attempt_goes_on(tmp_path):
    warnings = []
    started = time.monotonic()
    run = MlflowTracking(uri="http://127.0.0.1:9").begin(FACTS, folder=tmp_path, warn=warnings.append)
    assert time.monotonic() - started < 20
    [warning] = warnings
    assert warning.startswith("MLflow cannot be reached, this attempt is in the ledger only")
    assert run.url is None
    run.fail("still fine", killed=False)


def test_the_double_takes_everything_and_keeps_nothing(tmp_path):
    run = NoTracking().begin(FACTS, folder=tmp_path, warn=pytest.fail)
    with run.following(Path("nowhere")):
        pass
    run.fail("fine", killed=True)
    assert run.url is None
    assert list(tmp_path.iterdir()) == []
