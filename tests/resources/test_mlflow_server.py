"""`mlflow server` itself, started by the command `make ui` starts: the whole life of an attempt, then an edit of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import psutil
import pytest

from dpo_pipeline.core.promotions import Promotion, promote
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
    promote(home, Promotion(artifact.digest, None, report="r", decision="d"))
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


def answer_of(server, path, body=None, **headers):
    """The status and the text of the server's answer; a body makes it a POST."""
    address = f"{server}{path}"
    lines = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(address, None if body is None else json.dumps(body).encode(), lines)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def test_pages_of_other_sites_can_neither_read_nor_write_nor_run_anything(server):
    """One server for all attacks, for it starts slowly."""
    reading = "/api/2.0/mlflow/experiments/search?max_results=1"
    port = server.rsplit(":", 1)[1]
    for name in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert answer_of(server, reading, Host=name)[0] == 200, name
    # A name an attacker points at 127.0.0.1 (DNS rebinding); MLflow's own default list, which has 192.168.* and 10.*,
    # takes the first two.
    for name in ("192.168.evil.example", "10.evil.example", "evil.example", f"evil.example:{port}", "127.0.0.1:1"):
        status, text = answer_of(server, reading, Host=name)
        assert (status, text.partition(";")[0]) == (403, f"Refused: the request names the host {name!r}"), name

    making = "/api/2.0/mlflow/experiments/create"
    for origin in ("http://evil.example", "null", f"http://127.0.0.1.evil.example:{port}", "http://localhost:8888"):
        answer = answer_of(server, making, {"name": "forged"}, Origin=origin)
        assert answer == (403, f"Refused: the request comes from {origin}, not from this server's own pages.\n"), origin
    assert "forged" not in answer_of(server, "/api/2.0/mlflow/experiments/search?max_results=99")[1]
    assert answer_of(server, making, {"name": "own"}, Origin=server)[0] == 200

    job = {"job_name": "invoke_scorer", "params": {}}
    status, text = answer_of(server, "/ajax-api/3.0/jobs/", job, Origin=server)
    assert status >= 400
    assert "MLFLOW_SERVER_ENABLE_JOB_EXECUTION" in text
    with urllib.request.urlopen(f"{server}/", timeout=30) as page:
        assert (page.headers["X-Frame-Options"], page.headers["X-Content-Type-Options"]) == ("DENY", "nosniff")

    family = psutil.Process().children(recursive=True)
    servers = [process for process in family if "mlflow_app:guarded" in " ".join(process.cmdline())]
    assert servers
    for process in servers:
        assert process.environ().items() >= {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}.items()
    assert not any("job" in " ".join(process.cmdline()) for process in family)


def test_a_pickled_model_is_not_opened_under_the_servers_settings(tmp_path):
    """The pickle of an attacker who could write into MLflow's artifacts: under the default settings it would run."""
    script = """
import pathlib, sys, cloudpickle, mlflow, mlflow.pyfunc
folder, loot = map(pathlib.Path, sys.argv[1:])

class Trap(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input
    def __reduce__(self):
        return (pathlib.Path.touch, (loot,))

mlflow.pyfunc.save_model(folder, python_model=mlflow.pyfunc.PythonModel())
pickled, = folder.glob("python_model.pkl")
pickled.write_bytes(cloudpickle.dumps(Trap()))
mlflow.pyfunc.load_model(str(folder))
"""
    bare = {name: value for name, value in os.environ.items() if name not in _MLFLOW_ENVIRONMENT}  # another test set it
    found = {}
    for name, settings in (("default", {}), ("ours", _MLFLOW_ENVIRONMENT)):
        loot = tmp_path / f"{name}.loot"
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / name), str(loot)],
            env={**bare, **settings}, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        found[name] = (loot.exists(), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION" in done.stderr)
    assert found == {"default": (True, False), "ours": (False, True)}
