"""Two processes materialize partitions of one home at once: one unbroken ledger, one run per attempt, none doubled."""

import os
import subprocess
import sys
from collections import Counter

import dagster as dg
import pytest

from assets.reconcile import reconcile
from dpo_pipeline.core.home import Home
from resources.mlflow_client import connect
from resources.mlflow_tracking import MlflowTracking

WORK = """
import sys
import dagster as dg
from assets.tracked import Made, tracked
from dpo_pipeline.core.artifacts import Outcome
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.mlflow_tracking import MlflowTracking
from resources.settings import PipelineSettings

root, *partitions = sys.argv[1:]

@tracked(Made("common", "Read by all: the dataset every run names."), stage="toys", code_version="1")
def common(step):
    (step.folder() / "file.txt").write_text("x")
    return Outcome()

@tracked(Made("piece", "One partition."), stage="toys", code_version="1", reads=["common"], by_drop=True)
def piece(step):
    (step.folder() / "file.txt").write_text(step.partition)
    step.metrics(1, {"loss": 0.5})
    return Outcome(counts={"rows": 1})

resources = {"settings": PipelineSettings(), "home": ArtifactHome(folder=root), "tracking": MlflowTracking(),
             "gpu": Gpu(launcher="inline")}
with dg.DagsterInstance.get() as instance:
    if not partitions:
        assert dg.materialize([common], resources=resources, instance=instance).success
    for name in partitions:
        assert dg.materialize([common, piece], selection=["piece"], resources=resources, instance=instance,
                              partition_key=name).success
"""


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_partitions_by_two_processes(count, tmp_path, mlflow_tables):
    home = Home(tmp_path / "home")
    folder = home.root / "dagster"
    folder.mkdir(parents=True)
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}")
    mlflow_tables(home)
    environment = {**os.environ, "DAGSTER_HOME": str(folder)}
    names = [f"drop-{number}" for number in range(count)]

    def start(*partitions):
        return subprocess.Popen([sys.executable, "-c", WORK, str(home.root), *partitions], env=environment)

    assert start().wait() == 0
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        instance.add_dynamic_partitions("drops", names)
        both = [start(*names[0::2]), start(*names[1::2])]
        assert [process.wait() for process in both] == [0, 0]

        assert home.ledger.verify() == []
        attempts = {event: [] for event in ("started", "finished")}
        for line in home.ledger.lines():
            attempts[line["event"]].append((line["asset"], line["partition"]))
        expected = Counter([("common", None), *(("piece", name) for name in names)])
        assert [Counter(attempts[event]) for event in ("started", "finished")] == [expected, expected]

        client, experiment = connect("", home.mlflow)
        runs = client.search_runs([experiment], max_results=1_000)
        assert len({run.data.tags["attempt"] for run in runs}) == len(runs) == count + 1
        assert {run.info.status for run in runs} == {"FINISHED"}
        pieces = [run for run in runs if run.data.tags["dagster.asset"] == "piece"]
        assert all(run.data.metrics["loss"] == 0.5 for run in pieces)
        assert {run.inputs.dataset_inputs[0].dataset.name for run in pieces} == {"common"}
        assert instance.get_materialized_partitions(dg.AssetKey("piece")) == set(names)
        assert reconcile(home, instance, MlflowTracking()).sentences == []
    assert list((home.mlflow / "spool").iterdir()) == []
