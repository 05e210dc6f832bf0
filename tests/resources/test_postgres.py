"""Dagster and MLflow on Postgres, as the runbook has it: its dagster.yaml and its variables before the real servers.

Runs where `initdb` and `postgres` are installed, and the extra `postgres`; nothing else of the project needs either.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from dpo_pipeline.core.home import Home
from dpo_pipeline.samples.scenario import generate_scenario

psycopg2 = pytest.importorskip("psycopg2")
pytest.importorskip("dagster_postgres")

FOUND = [shutil.which("initdb"), *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
PROGRAMS = next((Path(path).parent for path in reversed(FOUND) if path), None)
ROOT = Path(__file__).parent.parent.parent
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8").partition("## SQLite is too small")[2]
ADDED = ("concurrency", "run_retries", "run_monitoring", "telemetry")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(PROGRAMS is None, reason="there is no Postgres on this machine"),
]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def postgres():
    """A server with the runbook's two databases, in a folder of its own; its port."""
    folder, port = Path(tempfile.mkdtemp(prefix="postgres-")), free_port()
    other = {} if os.getuid() else {"user": "nobody", "group": "nogroup", "extra_groups": []}  # it refuses to be root
    if other:
        shutil.chown(folder, "nobody", "nogroup")
    quiet = {"stdout": subprocess.DEVNULL, "cwd": folder, **other}
    data = folder / "data"
    subprocess.run([PROGRAMS / "initdb", "-D", data, "-U", "dpo", "-A", "trust", "--no-sync"], check=True, **quiet)
    command = [PROGRAMS / "postgres", "-D", data, "-k", folder, "-h", "127.0.0.1", "-p", str(port), "-F"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, **quiet)
    try:
        connection = connected(port, "postgres")
        connection.autocommit = True
        for name in ("dagster", "mlflow"):
            connection.cursor().execute(f"create database {name}")
        connection.close()
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
        shutil.rmtree(folder)


def connected(port, database):
    deadline = time.monotonic() + 60
    while True:
        try:
            return psycopg2.connect(host="127.0.0.1", port=port, user="dpo", dbname=database)
        except psycopg2.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def rows(port, database, query):
    connection = connected(port, database)
    try:
        cursor = connection.cursor()
        cursor.execute(query)
        return cursor.fetchall()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def office(postgres, tmp_path_factory):
    """A home with two drops in its inbox and the runbook's settings, all values but place and port as printed there."""
    root = tmp_path_factory.mktemp("postgres")
    ports = {name: str(free_port()) for name in ("DAGSTER", "PAGES", "MLFLOW")}
    [text] = re.findall(r"```yaml\n(.*?)```", RUNBOOK, re.DOTALL)
    shipped = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    (root / "dagster").mkdir()
    settings = yaml.safe_load(text) | {name: shipped[name] for name in ADDED}
    (root / "dagster" / "dagster.yaml").write_text(yaml.safe_dump(settings))
    printed = dict(re.findall(r"^export (\w+)=(\S+)$", RUNBOOK, re.MULTILINE))
    assert set(printed) == {
        "DAGSTER_HOME", "DAGSTER_POSTGRES_URL", "MLFLOW_BACKEND_STORE_URI", "MLFLOW_TRACKING_URI",
    }  # fmt: skip
    printed["DAGSTER_HOME"] = str(root / "dagster")
    for name in ("DAGSTER_POSTGRES_URL", "MLFLOW_BACKEND_STORE_URI"):
        printed[name] = printed[name].replace("127.0.0.1", f"127.0.0.1:{postgres}")
    printed["MLFLOW_TRACKING_URI"] = printed["MLFLOW_TRACKING_URI"].replace("5000", ports["MLFLOW"])
    home = Home(root / "home")
    generate_scenario(home.inbox, seed=3, scale=0.02)
    environment = {
        **os.environ, **{f"{name}_PORT": port for name, port in ports.items()}, **printed,
        "DPO_PIPELINE_HOME": str(home.root), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "resources.servers"]
    with (root / "servers.log").open("w") as log:
        servers = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log)
    try:
        while b"Ctrl-C stops all" not in servers.stdout.readline():
            assert servers.poll() is None, (root / "servers.log").read_text()
        yield home, environment, f"http://127.0.0.1:{ports['DAGSTER']}/graphql"
    finally:
        servers.send_signal(signal.SIGTERM)
        servers.wait(timeout=60)
        servers.stdout.close()


LAUNCH = """mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


def test_runs_from_the_terminal_and_from_the_ui_stand_in_postgres_and_so_does_mlflow(office, postgres):
    home, environment, graphql = office
    command = [sys.executable, "-m", "assets.materialize", "ingest"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    drops = home.partitions("judgments")
    assert len(drops) == 2
    assert set(rows(postgres, "dagster", "select status from runs")) == {("SUCCESS",)}

    selector = {
        "repositoryLocationName": "dpo-pipeline",
        "repositoryName": "__repository__",
        "jobName": "ingest",
    }
    tags = [{"key": "dagster/partition", "value": drops[0]}]
    params = {"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}}
    body = json.dumps({"query": LAUNCH, "variables": {"params": params}}).encode()
    request = urllib.request.Request(graphql, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        launched = json.load(answer)["data"]["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run, deadline = launched["run"]["runId"], time.monotonic() + 240
    query = f"select status from runs where run_id = '{run}'"
    while (status := rows(postgres, "dagster", query)) != [("SUCCESS",)]:
        assert status[0][0] != "FAILURE"
        assert time.monotonic() < deadline, status
        time.sleep(1)

    [(events,)] = rows(postgres, "dagster", f"select count(*) from event_logs where run_id = '{run}'")
    assert events > 10
    attempts = sum(line["event"] == "started" for line in home.ledger.lines())
    assert rows(postgres, "mlflow", "select status, count(*) from runs group by status") == [("FINISHED", attempts)]
    assert list(Path(environment["DAGSTER_HOME"]).rglob("*.db")) == []
    assert not (home.mlflow / "mlflow.db").exists()
