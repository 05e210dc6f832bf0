"""The guard in front of Dagster: a browser on another site can neither start nor forge anything."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from resources.guard import Guard

HOST = "127.0.0.1:3000"


async def behind(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"passed"})


def ask(method, path, *, kind="http", query="", **headers):
    """The status and body a request is answered with, or the close code of a WebSocket."""
    lines = {"host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": kind,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in lines.items()],
    }
    if kind == "http":
        scope["method"] = method
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(behind, hosts=[HOST, "localhost:3000"])(scope, None, send))
    return (sent[0].get("status") or sent[0]["code"]), sent[-1].get("body", b"").decode()


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", {}),
        ("GET", "/assets/preference_pairs", {"sec_fetch_site": "cross-site"}),  # a link from the MLflow page
        ("POST", "/graphql", {"origin": f"http://{HOST}", "sec_fetch_site": "same-origin"}),
        ("POST", "/graphql", {}),  # a program, not a browser
        ("POST", "/graphql", {"host": "localhost:3000", "origin": "http://localhost:3000"}),
        ("GET", "/graphql", {}),  # the GraphiQL page
    ],
)
def test_the_servers_own_pages_and_programs_pass(method, path, headers):
    assert ask(method, path, **headers) == (200, "passed")


@pytest.mark.parametrize(
    ("method", "path", "headers", "sentence"),
    [
        ("GET", "/", {"host": "evil.example:3000"}, "the request names the host 'evil.example:3000'"),
        ("GET", "/", {"host": "127.0.0.1"}, "the request names the host '127.0.0.1'"),
        ("POST", "/graphql", {"origin": "http://evil.example"}, "comes from http://evil.example"),
        ("POST", "/graphql", {"origin": "http://127.0.0.1:5000"}, "comes from http://127.0.0.1:5000"),
        ("POST", "/graphql", {"origin": "null"}, "comes from null"),
        ("POST", "/graphql", {"sec_fetch_site": "same-site"}, "another site's page"),
        ("POST", "/report_asset_materialization/release", {}, "events are not taken from outside"),
        ("POST", "/report_asset_check/release", {"origin": f"http://{HOST}"}, "events are not taken from outside"),
    ],
)
def test_everything_else_is_refused_with_a_sentence(method, path, headers, sentence):
    status, body = ask(method, path, **headers)
    assert status == 403
    assert sentence in body


def test_a_mutation_by_get_is_refused():
    assert ask("GET", "/graphql", query="query=mutation{x}")[0] == 403
    assert ask("GET", "/graphql/", query="query={x}")[0] == 403


def test_a_websocket_of_another_page_is_closed():
    assert ask("", "/graphql", kind="websocket", origin="http://evil.example")[0] == 1008
    assert ask("", "/graphql", kind="websocket", origin=f"http://{HOST}")[0] == 200


def request(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def over_websocket(port, query, *, origin, site="none"):
    """What the server says to an operation started on its WebSocket."""
    headers = {"Sec-Fetch-Site": site}
    at = f"ws://127.0.0.1:{port}/graphql"
    with connect(at, subprotocols=["graphql-ws"], origin=origin, additional_headers=headers) as socket:
        socket.send(json.dumps({"type": "connection_init", "payload": {}}))
        socket.send(json.dumps({"type": "start", "id": "1", "payload": {"query": query}}))
        assert json.loads(socket.recv(timeout=20)) == {"type": "connection_ack"}
        return json.loads(socket.recv(timeout=20))


PLACE = 'repositoryName: "__repository__", repositoryLocationName: "dpo-pipeline"'
MUTATIONS = {
    "launchRun": f"""launchRun(executionParams: {{selector: {{{PLACE}, jobName: "no_such_job"}},
        runConfigData: "{{}}"}}) {{ __typename }}""",
    "startSensor": f'startSensor(sensorSelector: {{{PLACE}, sensorName: "new_drops"}}) {{ __typename }}',
    "startSchedule": f'startSchedule(scheduleSelector: {{{PLACE}, scheduleName: "no_such"}}) {{ __typename }}',
    "terminateRun": 'terminateRun(runId: "00000000-0000-0000-0000-000000000000") { __typename }',
    "deletePipelineRun": 'deletePipelineRun(runId: "00000000-0000-0000-0000-000000000000") { __typename }',
    "wipeAssets": 'wipeAssets(assetPartitionRanges: [{assetKey: {path: ["release"]}}]) { __typename }',
    "addDynamicPartition": f"""addDynamicPartition(partitionKey: "forged", partitionsDefName: "drops",
        repositorySelector: {{{PLACE}}}) {{ __typename }}""",
    "reportRunlessAssetEvents": """reportRunlessAssetEvents(eventParams: {eventType: ASSET_MATERIALIZATION,
        assetKey: {path: ["release"]}}) { __typename }""",
    "reloadWorkspace": "reloadWorkspace { __typename }",
}  # what a reviewer could do harm with; on the operator's server each gets past the question who asks


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--read-only"]])
def test_the_real_web_server_stands_behind_it(tmp_path, options):
    """Forging an event and a mutation by GET, which the bare server takes, are refused; reading works."""
    from dpo_pipeline.core.home import Home
    from resources.instance import prepare_instance

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_HOME", raising=False)
        patch.setenv("DPO_PIPELINE_HOME", str(tmp_path / "home"))
        environment = {**os.environ, **prepare_instance(Home.default())}
    server = subprocess.Popen(
        [sys.executable, "-m", "resources.webserver", "--port", str(port), *options], env=environment
    )
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                if request(port, "GET", "/server_info")[0] == 200:
                    break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.5)
        assert request(port, "POST", "/report_asset_materialization/release")[0] == 403
        assert request(port, "GET", "/graphql?query={version}")[0] == 403
        assert request(port, "GET", "/", Host="evil.example")[0] == 403
        query = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } canBulkTerminate }"
        status, text = request(port, "POST", "/graphql", json.dumps({"query": query}))
        answer = json.loads(text)["data"]
        assert status == 200
        assert answer["repositoriesOrError"]["nodes"], "the code location was not loaded"
        assert answer["canBulkTerminate"] is not bool(options)
        for name, mutation in MUTATIONS.items():
            status, text = request(port, "POST", "/graphql", json.dumps({"query": f"mutation {{ {mutation} }}"}))
            assert status == 200, text
            refused = json.loads(text)["data"][name]["__typename"] == "UnauthorizedError"
            assert refused is bool(options), (name, text)
        own = f"http://127.0.0.1:{port}"
        assert over_websocket(port, "mutation { setNuxSeen }", origin=own)["type"] == "error", "no mutation that way"
        for origin, site in (("http://evil.example", "none"), (own, "cross-site"), ("null", "none")):
            with pytest.raises(InvalidStatus, match="403"):
                over_websocket(port, "subscription { x }", origin=origin, site=site)
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    """MLflow's server as `make ui` starts it; its port."""
    from dpo_pipeline.core.home import Home
    from resources.servers import _MLFLOW_ENVIRONMENT, _mlflow_command

    home = Home(tmp_path_factory.mktemp("mlflow") / "home")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, **_MLFLOW_ENVIRONMENT}
    server = subprocess.Popen(_mlflow_command(home, port), env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                if request(port, "GET", "/health")[0] == 200:
                    break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.5)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGINT)
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


CREATE, SEARCH = "/api/2.0/mlflow/experiments/create", "/api/2.0/mlflow/experiments/search?max_results=50"


def experiments(port):
    status, text = request(port, "GET", SEARCH)
    assert status == 200
    return {found["name"] for found in json.loads(text)["experiments"]}


@pytest.mark.slow
def test_mlflow_takes_writes_from_programs_and_from_its_own_pages_only(mlflow):
    own = f"http://127.0.0.1:{mlflow}"
    allowed = [{}, {"Origin": own, "Sec-Fetch-Site": "same-origin"}]
    attacks = {
        "another port of this machine": {"Origin": "http://localhost:8888"},
        "another port, by its number": {"Origin": "http://127.0.0.1:3000"},
        "another site": {"Origin": "http://evil.example"},
        "a sandboxed frame": {"Origin": "null"},
        "a page that hides its origin": {"Sec-Fetch-Site": "cross-site"},
        "a form of a neighbouring port": {"Sec-Fetch-Site": "same-site"},
        "a name that points here (DNS rebinding)": {"Host": f"evil.example:{mlflow}"},
        "a name that begins like ours": {"Host": f"127.0.0.1.evil.example:{mlflow}"},
    }
    for path in (CREATE, CREATE.replace("/api/", "/ajax-api/")):
        for number, headers in enumerate(allowed):
            name = f"allowed {path} {number}"
            assert request(mlflow, "POST", path, json.dumps({"name": name}), **headers)[0] == 200
            assert name in experiments(mlflow)
        for name, headers in attacks.items():
            status, text = request(mlflow, "POST", path, json.dumps({"name": f"{name} {path}"}), **headers)
            assert status == 403, (name, text)
            assert text.startswith("Refused: "), text
    assert not [name for name in experiments(mlflow) if any(name.startswith(attack) for attack in attacks)]


@pytest.mark.slow
def test_mlflow_tells_nothing_to_a_page_that_calls_it_by_another_name(mlflow):
    for path in ("/", SEARCH, "/health", "/version"):
        assert request(mlflow, "GET", path, Host="evil.example")[0] == 403


def test_mlflow_is_not_served_without_names_to_compare_with(monkeypatch):
    from resources.mlflow_app import guarded

    for hosts in ("", "*", "*.example.org"):
        monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", hosts)
        with pytest.raises(RuntimeError, match="name the hosts"):
            guarded()
