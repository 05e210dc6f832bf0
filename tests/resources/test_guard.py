"""The guard in front of Dagster: a browser on another site can neither start nor forge anything."""

import asyncio
import http.client
import json
import os
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
