"""One reconcile after a crash or a forgery: what can be mended is, the rest is named; a second changes nothing."""

import json
import os
import subprocess
import sys

import dagster as dg
import pytest

from assets.reconcile import reconcile
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.attestations import make_keys
from resources.mlflow_client import CLIENT_ENVIRONMENT, connect
from resources.mlflow_registry import versions_of
from resources.mlflow_tracking import MlflowTracking, NoTracking
from resources.processes import this_process

ATTEMPTS = """
import json, os, shutil, signal, sys
import dagster as dg
from assets.attempt import Attempt
from assets.tracked import Made, tracked
from dpo_pipeline.core.artifacts import ArtifactStore, Outcome
from dpo_pipeline.core.ledger import Ledger
from mlflow import MlflowClient
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.mlflow_tracking import MlflowTracking
from resources.settings import PipelineSettings
from resources.spool import Spool

root, *points = sys.argv[1:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def dying(point, owner, name, when):
    real = getattr(owner, name)
    def call(self, *arguments, **options):
        if point == f"before {when}":
            die()
        answer = real(self, *arguments, **options)
        if point == f"after {when}" or point == f"after ledger {arguments[:1]}":
            die()
        return answer
    setattr(owner, name, call)

@tracked(Made("dpo_checkpoint", "A toy."), stage="toys", code_version="1")
def toy(step):
    step.note(device="cpu")
    step.metrics(1, {"loss": 0.5})
    if points[0] == "in the work":
        die()
    (step.folder() / "file.txt").write_text("x")
    return Outcome(counts={"steps": 1})

def attempt(point):
    dying(point, Ledger, "append", "any ledger line")
    dying(point, MlflowClient, "create_run", "MLflow has the run, without its settings")
    dying(point, Attempt, "track", "MLflow open")
    dying(point, ArtifactStore, "publish", "publish")
    dying(point, ArtifactStore, "_point", "the recipe points at the artifact")
    dying(point, MlflowClient, "create_model_version", "MLflow has the model version")
    dying(point, MlflowClient, "set_terminated", "MLflow has the status")
    dying(point, Spool, "remove", "the spool is removed")
    dying(point, Attempt, "finish", "the attempt is closed")
    resources = {"settings": PipelineSettings(), "home": ArtifactHome(folder=root), "tracking": MlflowTracking(),
                 "gpu": Gpu(launcher="inline")}
    with dg.DagsterInstance.get() as instance:
        dg.materialize([toy], resources=resources, instance=instance)

ends = {}
while points:
    # What can be reused is taken away, so that each attempt does the whole of the work.
    shutil.rmtree(os.path.join(root, "artifacts", ".recipes"), ignore_errors=True)
    child = os.fork()
    if child == 0:
        attempt(points[0])
        os._exit(0)
    ends[points.pop(0)] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(ends))
"""
POINTS = {
    "after ledger ('started',)": "KILLED",
    "after MLflow has the run, without its settings": "KILLED",
    "after MLflow open": "KILLED",
    "in the work": "KILLED",
    "before publish": "KILLED",
    "before the recipe points at the artifact": "KILLED",
    "after publish": "KILLED",
    "after ledger ('finished',)": "FINISHED",
    "after MLflow has the model version": "FINISHED",
    "before MLflow has the status": "FINISHED",
    "after MLflow has the status": "FINISHED",
    "after the spool is removed": "FINISHED",
    "after the attempt is closed": "FINISHED",
}
UNMATERIALIZED = [point for point, end in POINTS.items() if end == "FINISHED"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory, mlflow_tables):
    """A home and instance in which one attempt was killed at each named point."""
    home = Home(tmp_path_factory.mktemp("crash") / "home")
    folder = home.root / "dagster"
    folder.mkdir(parents=True)
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}")
    mlflow_tables(home)
    connect("", home.mlflow)
    environment = {**os.environ, **CLIENT_ENVIRONMENT, "DAGSTER_HOME": str(folder)}
    command = [sys.executable, "-c", ATTEMPTS, str(home.root), *POINTS]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)
    assert json.loads(answer.stdout.splitlines()[-1]) == dict.fromkeys(POINTS, -9), answer.stderr
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        yield home, instance


def test_killed_at_any_named_point_one_reconcile_leaves_nothing_open(killed):
    home, instance = killed
    said = reconcile(home, instance, MlflowTracking()).sentences
    client, experiment = connect("", home.mlflow)
    runs = {run.data.tags["attempt"]: run for run in client.search_runs([experiment])}
    attempts = [line["attempt"] for line in home.ledger.lines() if line["event"] == "started"]
    ends = {point: runs[key].info.status for point, key in zip(POINTS, attempts, strict=True)}
    assert ends == POINTS
    assert len(runs) == len(attempts)
    assert not list((home.store.root / ".staging").iterdir())
    assert list((home.mlflow / "spool").iterdir()) == []
    with_numbers = {point for point, key in zip(POINTS, attempts, strict=True) if "loss" in runs[key].data.metrics}
    assert with_numbers == set(list(POINTS)[list(POINTS).index("in the work") :])
    [digest] = {line["artifact"] for line in home.finished()}
    assert [version.tags["digest"] for version in versions_of(client, "dpo_checkpoint")] == [digest]
    assert sum("Dagster shows no materialization of it" in sentence for sentence in said) == len(UNMATERIALIZED)
    assert home.ledger.verify() == []
    assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.FAILURE}
    before = home.ledger.path.read_bytes()
    again = reconcile(home, instance, MlflowTracking())
    assert again.deeds == []
    assert all("Dagster shows no materialization of it" in sentence for sentence in again.faults)
    assert len(again.faults) == len(UNMATERIALIZED)
    assert home.ledger.path.read_bytes() == before


def test_what_a_killed_attempt_had_found_out_is_in_the_ledger(killed):
    home, instance = killed
    reconcile(home, instance, MlflowTracking())
    ends = [line for line in home.ledger.lines() if line["event"] in {"killed", "finished"}]
    keys = [line["attempt"] for line in home.ledger.lines() if line["event"] == "started"]
    in_the_work = keys[list(POINTS).index("in the work")]
    [end] = [line for line in ends if line["attempt"] == in_the_work]
    assert (end["event"], end["noted"]) == ("killed", {"device": "cpu"})
    assert end["curves"] == {"loss": {"points": 1, "step": 1, "value": 0.5}}


def test_an_attempt_between_the_ledgers_line_and_dagsters_event_is_left_alone(home):
    with dg.instance_for_test() as instance:
        run = instance.create_run_for_job(dg.job(name="train")(lambda: None), status=dg.DagsterRunStatus.STARTED)
        same = {"attempt": "a", "asset": "x", "partition": None, "recipe": "r"}
        home.ledger.append("started", **same, dagster_run=run.run_id, process=this_process())
        home.ledger.append("finished", **same, artifact="ab" * 32)
        assert reconcile(home, instance, NoTracking()).sentences == []
        instance.report_run_failed(run)
        [fault] = reconcile(home, instance, NoTracking()).faults
        assert "Dagster shows no materialization of it" in fault


def test_a_forged_materialization_is_named(home):
    with dg.DagsterInstance.ephemeral() as instance:
        forged = dg.AssetMaterialization("dpo_checkpoint", tags={"dagster/data_version": "forged"})
        instance.report_runless_asset_event(forged)
        [sentence] = reconcile(home, instance, NoTracking()).sentences
    assert "says dpo_checkpoint was made as forged" in sentence
    assert "the ledger has no finished attempt None" in sentence


def test_a_decision_that_is_gone_is_named_and_keeps_nothing_else_from_being_joined(home):
    home.ledger.append("finished", attempt="a", asset="champion", partition=None, artifact="ab" * 32)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization("dpo_checkpoint", tags={"dagster/data_version": "forged"})
        )
        faults = reconcile(home, instance, NoTracking()).faults
    assert faults[0].startswith("the newest decision of the gate was not followed: the champion artifact abab")
    assert "says dpo_checkpoint was made as forged" in faults[1]


def test_on_a_broken_ledger_nothing_is_written(home):
    make_keys(home)
    for number in range(2):
        home.ledger.append("noted", number=number)
    cut = home.ledger.path.read_text().splitlines()[0] + "\n"
    home.ledger.path.write_text(cut)
    with dg.DagsterInstance.ephemeral() as instance:
        assert "its head speaks of 2" in reconcile(home, instance, NoTracking()).faults[0]
    assert home.ledger.path.read_text() == cut
