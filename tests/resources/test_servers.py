"""`make ui`: reports are served without scripts, weights and tables are not served, one signal stops all."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from dpo_pipeline.core.artifacts import Outcome, Recipe
from resources.servers import _mlflow_command, serve_pages


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def pages(tmp_path):
    folder = tmp_path / "artifacts" / "evaluation_report" / "abc"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<h1>hello</h1>")
    (folder / "model.safetensors").write_text("weights")
    (tmp_path / "artifacts" / ".staging").mkdir()
    (tmp_path / "artifacts" / ".staging" / "x.html").write_text("half a page")
    (tmp_path / "secret.html").write_text("outside")
    server = serve_pages(tmp_path / "artifacts", 0)
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def get(port, path, host="127.0.0.1", method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, headers={"Host": f"{host}:{port}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def test_a_report_is_served_and_no_script_can_run_in_it(pages):
    status, text, headers = get(pages, "/evaluation_report/abc/report.html")
    assert (status, text) == (200, "<h1>hello</h1>")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/evaluation_report/",
        "/evaluation_report/abc/model.safetensors",
        "/../secret.html",
        "/%2e%2e/secret.html",
        "/.staging/x.html",
        "/%2estaging/x.html",
        "/evaluation_report/abc/model.safetensors#.html",
        "/evaluation_report/abc/model.safetensors?.html",
    ],
)
def test_nothing_else_is_served(pages, path):
    assert get(pages, path)[0] == 404
    assert get(pages, path, method="HEAD")[0] == 404


def test_the_chain_behind_an_artifact_is_drawn_when_asked_for(home):
    with home.store.staging() as folder:
        (folder / "rows.txt").write_text("rows")
        artifact = home.store.publish(folder, Recipe("table", "1", {}, ()), Outcome())
    server = serve_pages(home.store.root, 0)
    try:
        port = server.server_address[1]
        status, text, headers = get(port, f"/lineage/table/{artifact.digest}.html")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert artifact.digest in text
        for other in ("table/" + "0" * 64, "../table/" + artifact.digest, "table"):
            assert get(port, f"/lineage/{other}.html")[0] == 404
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("address", ["https://dpo.example.org/mlflow/", "https://dpo.example.org"])
def test_the_origin_mlflow_takes_writes_from_is_one_even_under_a_sub_path(home, monkeypatch, address):
    monkeypatch.setenv("MLFLOW_URL", address)
    command = _mlflow_command(home, 5000)
    assert command[command.index("--cors-allowed-origins") + 1] == "https://dpo.example.org"
    assert command[command.index("--allowed-hosts") + 1].endswith(",dpo.example.org")


def test_without_a_proxy_no_other_origin_is_named(home, monkeypatch):
    monkeypatch.delenv("MLFLOW_URL", raising=False)
    assert "--cors-allowed-origins" not in _mlflow_command(home, 5000)


def test_another_hosts_name_is_refused(pages):
    assert get(pages, "/evaluation_report/abc/report.html", host="evil.example")[0] == 404


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts processes by group")
def test_one_signal_stops_all_three_servers(tmp_path):
    ports = {f"{name}_PORT": str(free_port()) for name in ("DAGSTER", "MLFLOW", "PAGES")}
    environment = {**os.environ, **ports, "DPO_PIPELINE_HOME": str(tmp_path / "home")}
    environment.pop("DAGSTER_HOME", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "resources.servers"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        while b"Ctrl-C stops all" not in process.stdout.readline():
            assert process.poll() is None
        assert get(int(ports["DAGSTER_PORT"]), "/server_info")[0] == 200
        assert get(int(ports["MLFLOW_PORT"]), "/health")[0] == 200
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 4
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=40)
        process.stdout.close()
    deadline = time.monotonic() + 20
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        assert time.monotonic() < deadline, "a server outlived Ctrl-C"
        time.sleep(0.2)
