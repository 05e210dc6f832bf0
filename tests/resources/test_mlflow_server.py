"""`mlflow server` itself, started by the command `make ui` starts: the whole life of an attempt, then an edit of it."""

import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import psutil
import pytest

from resources.mlflow_reconcile import reconcile_mlflow
from resources.mlflow_registry import alias_of, versions_of
from resources.servers import _MLFLOW_ENVIRONMENT, _mlflow_command, _wait_until_up
from resources.spool import Spool
from tests.resources.worlds import World

pytestmark = pytest.mark.slow


@pytest.fixture
def server(home):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, **_MLFLOW_ENVIRONMENT, "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(_mlflow_command(home, port), env=environment, start_new_session=True)
    try:
        _wait_until_up([f"http://127.0.0.1:{port}/health"])
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def test_the_whole_life_of_an_attempt_on_a_real_server(server, home):
    world = World(home, server)
    start = world.start("run-1")
    run = world.begin(start)
    with run.following():
        for step in (1, 2):
            Spool.of(home, start["attempt"]).add(step, {"loss": 1 / step})
    artifact = world.publish()
    run.end(world.line(start, "finished", artifact=artifact.digest, remarks={"seconds": 1.0}), artifact)
    world.tracking.move_alias("dpo_checkpoint", "champion", artifact.digest, home=home, warn=pytest.fail)
    missed = world.start("run-2")
    world.line(missed, "killed", reason="its process ended without a word")
    assert world.warnings == []
    assert reconcile_mlflow(home, world.tracking).deeds == [f"MLflow was told of {missed['attempt']}: KILLED"]

    found = world.client.get_run(run.run_id)
    assert (found.info.status, found.data.metrics["loss"], found.data.metrics["steps"]) == ("FINISHED", 0.5, 3)
    assert [version.source for version in versions_of(world.client, "dpo_checkpoint")] == [
        f"dpo-pipeline:/dpo_checkpoint/{artifact.digest}"
    ]
    assert alias_of(world.client, "dpo_checkpoint", "champion") == artifact.digest
    assert sorted(item.path for item in world.client.list_artifacts(run.run_id)) == ["manifest.json", "training.json"]

    world.client.log_metric(run.run_id, "accuracy", 0.99)
    faults = reconcile_mlflow(home, world.tracking).faults
    assert f"MLflow run {run.run_id} says metrics accuracy 0.99, the ledger says 0.9 ({start['attempt']})" in faults


def test_it_answers_to_its_own_names_only_and_runs_no_jobs(server):
    address = f"{server}/api/2.0/mlflow/experiments/search?max_results=1"
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert answer.status == 200
    rebound = urllib.request.Request(address, headers={"Host": "192.168.evil.example.com"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(rebound, timeout=30)
    assert refused.value.code == 403
    refused.value.close()
    workers = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert any("mlflow.server" in command for command in workers)
    assert not any("job" in command for command in workers)
