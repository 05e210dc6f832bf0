"""The reverse proxy of the runbook, as it stands there, in a real nginx before the servers of `make ui`.

Only the port and the paths of certificate and passwords are exchanged. Skipped where there is no nginx.
"""

import base64
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from dpo_pipeline.core.home import Home

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine")]

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
NAMES = {"dagster": "dpo.example.org", "pages": "reports.example.org", "mlflow": "mlflow.example.org"}
PASSWORD = {"Authorization": "Basic " + base64.b64encode(b"ada:her word").decode()}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(command, **rest):
    process = subprocess.Popen(command, **rest)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def configuration(folder, ports):
    """The snippet of the runbook between what every nginx needs, with this machine's port and paths."""
    [snippet] = re.findall(r"```nginx\n(.*?)```", RUNBOOK.read_text(), re.DOTALL)
    exchanged = {
        "443": str(ports["proxy"]),
        "3000": str(ports["dagster"]),
        "3001": str(ports["pages"]),
        "5000": str(ports["mlflow"]),
        "/etc/ssl/certs/dpo.pem": str(folder / "dpo.pem"),
        "/etc/ssl/private/dpo.key": str(folder / "dpo.key"),
        "/etc/nginx/dpo.htpasswd": str(folder / "dpo.htpasswd"),
    }
    for written, here in exchanged.items():
        assert written in snippet
        snippet = snippet.replace(written, here)
    user = "user root;" if os.getuid() == 0 else ""
    return f"""{user} daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}
        http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
        fastcgi_temp_path {folder}/a; uwsgi_temp_path {folder}/b; scgi_temp_path {folder}/c;
        {snippet} }}"""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    """The port of a proxy before all three servers, each under its name."""
    folder = tmp_path_factory.mktemp("proxy")
    ports = {name: free_port() for name in (*NAMES, "proxy")}
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=dpo.example.org", "-days", "2"]
    subprocess.run([*make, "-keyout", folder / "dpo.key", "-out", folder / "dpo.pem"], check=True, capture_output=True)
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", "her word"], check=True, capture_output=True, text=True
    ).stdout.strip()
    (folder / "dpo.htpasswd").write_text(f"ada:{hashed}\n")
    (folder / "nginx.conf").write_text(configuration(folder, ports))
    home = Home(folder / "home")
    page = home.store.root / "evaluation_report" / "abc" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("<h1>hello</h1>")
    environment = {
        **{name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"},
        **{f"{name.upper()}_PORT": str(ports[name]) for name in NAMES},
        **{f"{name.upper()}_URL": f"https://{host}" for name, host in NAMES.items()},
        "DPO_PIPELINE_HOME": str(home.root),
    }
    with (
        (folder / "servers.log").open("w") as log,
        running([sys.executable, "-m", "resources.servers"], env=environment, stdout=subprocess.PIPE, stderr=log) as ui,
        running([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")]) as nginx,
        ui.stdout,
    ):
        said = b""
        while b"Ctrl-C stops all" not in (line := ui.stdout.readline()):
            assert ui.poll() is None, (folder / "servers.log").read_text()
            said += line
        for host in NAMES.values():
            assert f"https://{host}".encode() in said
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", ports["proxy"]), timeout=2).close()
                break
            except OSError:
                assert nginx.poll() is None, (folder / "error.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
        yield ports


def ask(ports, name, method, path, body=None, **headers):
    """Status and body of a request to one of the three names, through the proxy."""
    context = ssl._create_unverified_context()
    connection = http.client.HTTPSConnection("127.0.0.1", ports["proxy"], timeout=60, context=context)
    try:
        sent = {"Host": NAMES[name], "Content-Type": "application/json", **headers}
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


READ = {"dagster": "/server_info", "pages": "/evaluation_report/abc/report.html", "mlflow": "/version"}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_served_without_the_password_and_all_three_with_it(proxy, name):
    assert ask(proxy, name, "GET", READ[name])[0] == 401
    assert ask(proxy, name, "GET", READ[name], Authorization="Basic YWRhOm5v")[0] == 401
    assert ask(proxy, name, "GET", READ[name], **PASSWORD)[0] == 200


QUERY = {"query": "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"}
WRITES = {
    "dagster": ("/graphql", lambda _: QUERY),
    "mlflow": ("/ajax-api/2.0/mlflow/experiments/create", lambda origin: {"name": f"from {origin}"}),
}


@pytest.mark.parametrize("name", WRITES)
def test_their_own_pages_may_command_them_and_no_other_though_the_password_is_right(proxy, name):
    path, body = WRITES[name]
    own = f"https://{NAMES[name]}"
    same = {"Origin": own, "Sec-Fetch-Site": "same-origin"}
    status, text = ask(proxy, name, "POST", path, body(own), **PASSWORD, **same)
    assert status == 200, text
    if name == "dagster":
        assert json.loads(text)["data"]["repositoriesOrError"]["nodes"], "the code location was not loaded"
    for foreign in (f"https://{NAMES['pages']}", "https://evil.example", "http://localhost:8888", "null"):
        status, text = ask(proxy, name, "POST", path, body(foreign), **PASSWORD, Origin=foreign)
        assert (status, text.startswith("Refused: ")) == (403, True), (foreign, text)
    assert ask(proxy, name, "POST", path, body("x"), **PASSWORD, **{"Sec-Fetch-Site": "same-site"})[0] == 403


def test_the_websocket_of_the_live_logs_gets_through(proxy):
    context = ssl._create_unverified_context()
    own = f"https://{NAMES['dagster']}"
    with (
        socket.create_connection(("127.0.0.1", proxy["proxy"])) as plain,
        connect(
            f"wss://{NAMES['dagster']}/graphql", sock=plain, ssl=context, subprotocols=["graphql-ws"], origin=own,
            additional_headers=PASSWORD,
        ) as line,
    ):  # fmt: skip
        line.send(json.dumps({"type": "connection_init", "payload": {}}))
        assert json.loads(line.recv(timeout=20)) == {"type": "connection_ack"}


def test_a_name_nobody_gave_is_refused_by_the_guard(proxy):
    for host in ("other.example.org", "127.0.0.1"):
        status, text = ask(proxy, "dagster", "GET", "/server_info", **PASSWORD, Host=host)
        assert (status, "the request names the host" in text) == (403, True)
