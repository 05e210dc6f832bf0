"""One reconcile after a crash or a forgery: what can be mended is, the rest is named; a second changes nothing."""

import os
import subprocess
import sys

import dagster as dg
import pytest

from assets.reconcile import reconcile
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.attestations import make_keys
from resources.mlflow_client import connect
from resources.mlflow_tracking import MlflowTracking, NoTracking

ATTEMPT = """
import os, signal, sys
import dagster as dg
from assets import tracked as module
from assets.tracked import Made, tracked
from dpo_pipeline.core.artifacts import ArtifactStore, Outcome
from dpo_pipeline.core.ledger import Ledger
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.mlflow_tracking import MlflowRun, MlflowTracking
from resources.settings import PipelineSettings

root, point = sys.argv[1:]
die = lambda: os.kill(os.getpid(), signal.SIGKILL)

def dying(owner, name, when):
    real = getattr(owner, name)
    def call(self, *arguments, **options):
        if point == f"before {when}":
            die()
        answer = real(self, *arguments, **options)
        if point == f"after {when}" or point == f"after ledger {arguments[:1]}":
            die()
        return answer
    setattr(owner, name, call)

dying(Ledger, "append", "any ledger line")
dying(MlflowTracking, "begin", "MLflow open")
dying(ArtifactStore, "publish", "publish")
dying(MlflowRun, "end", "MLflow end")

@tracked(Made("toy", "A toy."), stage="toys", code_version="1")
def toy(step):
    (step.folder() / "file.txt").write_text("x")
    return Outcome()

resources = {"settings": PipelineSettings(), "home": ArtifactHome(folder=root), "tracking": MlflowTracking(),
             "gpu": Gpu(launcher="inline")}
with dg.DagsterInstance.get() as instance:
    dg.materialize([toy], resources=resources, instance=instance)
"""
POINTS = {
    "after ledger ('started',)": "KILLED",
    "after MLflow open": "KILLED",
    "before publish": "KILLED",
    "after publish": "KILLED",
    "after ledger ('finished',)": "FINISHED",
    "after MLflow end": "FINISHED",
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory, mlflow_tables):
    """A home and instance in which one attempt was killed at each named point."""
    home = Home(tmp_path_factory.mktemp("crash") / "home")
    folder = home.root / "dagster"
    folder.mkdir(parents=True)
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}")
    environment = {**os.environ, "DAGSTER_HOME": str(folder)}
    mlflow_tables(home)
    connect("", home.mlflow)
    ends = {}
    for point in POINTS:
        command = [sys.executable, "-c", ATTEMPT, str(home.root), point]
        # The artifact is taken away, so that the next attempt publishes again instead of reusing it.
        subprocess.run(["rm", "-rf", str(home.store.root / ".recipes")], check=True)
        ends[point] = subprocess.run(command, env=environment, capture_output=True, check=False).returncode
    assert set(ends.values()) == {-9}, ends
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        yield home, instance


def test_killed_at_any_named_point_one_reconcile_leaves_nothing_open(killed):
    home, instance = killed
    said = reconcile(home, instance, MlflowTracking()).sentences
    client, experiment = connect("", home.mlflow)
    runs = {run.data.tags["attempt"]: run.info.status for run in client.search_runs([experiment])}
    attempts = [line["attempt"] for line in home.ledger.lines() if line["event"] == "started"]
    assert [runs.get(key) for key in attempts] == list(POINTS.values())
    assert len(runs) == len(attempts)
    assert not list((home.store.root / ".staging").iterdir())
    assert sum("Dagster shows no materialization of it" in sentence for sentence in said) == 2
    assert home.ledger.verify() == []
    before = home.ledger.path.read_bytes()
    again = reconcile(home, instance, MlflowTracking()).sentences
    assert all("Dagster shows no materialization of it" in sentence for sentence in again)
    assert home.ledger.path.read_bytes() == before


def test_a_forged_materialization_is_named(home):
    with dg.DagsterInstance.ephemeral() as instance:
        forged = dg.AssetMaterialization("dpo_checkpoint", tags={"dagster/data_version": "forged"})
        instance.report_runless_asset_event(forged)
        [sentence] = reconcile(home, instance, NoTracking()).sentences
    assert "says dpo_checkpoint was made as forged" in sentence
    assert "the ledger has no finished attempt None" in sentence


def test_on_a_broken_ledger_nothing_is_written(home):
    make_keys(home)
    for number in range(2):
        home.ledger.append("noted", number=number)
    cut = home.ledger.path.read_text().splitlines()[0] + "\n"
    home.ledger.path.write_text(cut)
    with dg.DagsterInstance.ephemeral() as instance:
        assert "its head speaks of 2" in reconcile(home, instance, NoTracking()).faults[0]
    assert home.ledger.path.read_text() == cut
