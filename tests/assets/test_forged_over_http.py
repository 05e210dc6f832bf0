"""Dagster's own web server, without the guard, takes events from anybody; reconcile and verify name what is forged."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import dagster as dg
import pytest

from assets.definitions import build_definitions
from assets.reconcile import reconcile
from dpo_pipeline.lineage import witnesses
from dpo_pipeline.lineage.chain import ancestors, chain_of
from dpo_pipeline.lineage.witnesses import check_views
from dpo_pipeline.samples.scenario import generate_scenario
from resources.artifact_store import ArtifactHome
from resources.dagster_view import DagsterView
from resources.instance import create_storage, prepare_instance, shipped
from resources.tracking import NoTracking

pytestmark = pytest.mark.slow


@pytest.fixture
def webserver(home, monkeypatch):
    """One drop taken in, and an unguarded `dagster-webserver` on the same instance."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    before = dict(os.environ)
    variables = prepare_instance(home)
    create_storage()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port)]
    command += ["-w", str(shipped("workspace.yaml")), "--log-level", "warning"]
    process = subprocess.Popen(command, env={**os.environ, **variables}, start_new_session=True)
    try:
        for _ in range(240):
            assert process.poll() is None
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def report(server, asset, **body):
    """What any program, or any web page its operator has open, can send."""
    request = urllib.request.Request(
        f"{server}/report_asset_materialization/{asset}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def test_a_forged_event_and_a_copied_one_are_named_by_reconcile_and_by_verify(home, webserver, monkeypatch):
    generate_scenario(home.inbox, seed=3, scale=0.02)
    drop = min(path.name for path in home.inbox.iterdir())
    definitions = build_definitions({"home": ArtifactHome(folder=str(home.root)), "tracking": NoTracking()})
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("drops", [drop])
        ingest = definitions.resolve_job_def("ingest")
        assert ingest.execute_in_process(instance=instance, partition_key=drop).success
        assert reconcile(home, instance, NoTracking()).sentences == []
        line = home.latest_line("judgments", drop)
        report(webserver, "judgments", data_version="forged", partition=drop)
        real = {"data_version": line["artifact"], "partition": drop, "metadata": {"attempt": line["attempt"]}}
        report(webserver, "judgments", **real)
        faults = reconcile(home, instance, NoTracking()).faults
    assert len(faults) == 2
    assert any(
        "says judgments was made as forged; the ledger has no finished attempt None: forged" in f for f in faults
    )
    assert any(f"Dagster shows 2 materializations of {line['attempt']} (event " in fault for fault in faults)

    monkeypatch.setattr(witnesses, "installed_views", lambda: [DagsterView()])
    found = check_views(home, ancestors(chain_of(home, f"judgments/{drop}"))).faults
    assert any("with artifact forged; the ledger has no attempt None" in fault for fault in found)
    assert any(f"Dagster shows 2 records of {line['attempt']}" in fault for fault in found)
