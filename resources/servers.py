"""`make ui`: Dagster, MLflow and the reports on loopback; one Ctrl-C stops all: `python -m resources.servers`.

`--read-only` is for reviewers: Dagster's UI and the reports to look at, nothing to start; without MLflow, which has no
such mode.
"""

import argparse
import functools
import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.core.home import Home
from resources.instance import create_storage, prepare_instance, shipped
from resources.mlflow_app import APP_NAME
from resources.ports import LOOPBACK, PORTS, hosts_of, origin_of, port_of, served_at

START_SECONDS = 120
STOP_SECONDS = 15
PAGE_TYPES = {".html", ".json", ".png", ".svg"}
SUBJECT = re.compile(r"[a-z][a-z_]{0,63}/[0-9a-f]{64}")


class Pages(http.server.SimpleHTTPRequestHandler):
    """Serves reports out of the artifacts, read-only: pages and pictures, no tables, no weights, no listings."""

    def do_GET(self) -> None:
        """Answer with a page, or 404."""
        host = self.headers.get("Host") or ""
        asked = self.translate_path(self.path)  # what would be read; "model.safetensors#.html" is no page
        is_page = Path(asked).suffix in PAGE_TYPES and "/." not in asked.removeprefix(self.directory)
        if host not in hosts_of("pages", self.connection.getsockname()[1]) or not is_page:
            self.send_error(404)
            return
        if self.path.startswith("/lineage/"):
            self._answer_lineage(self.path.partition("?")[0].removeprefix("/lineage/").removesuffix(".html"))
            return
        super().do_GET()

    def do_HEAD(self) -> None:
        """Not answered: it would tell of files that are not served."""
        self.send_error(404)

    def _answer_lineage(self, subject: str) -> None:
        """The chain behind `kind/digest`, drawn when asked for: a page inside the artifact would change its digest."""
        from dpo_pipeline.lineage.audit import describe_audit
        from dpo_pipeline.lineage.page import render_chain

        if not SUBJECT.fullmatch(subject):
            self.send_error(404)
            return
        try:
            page = render_chain(describe_audit(Home(Path(self.directory).parent), subject, [])).encode()
        except PipelineError:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def end_headers(self) -> None:
        """Forbid scripts on every page, whatever it holds."""
        policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data: 'self'"
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep the terminal quiet."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the servers, print where they are, wait for Ctrl-C, stop all."""
    parser = argparse.ArgumentParser(description="Dagster, MLflow and the reports on loopback.")
    parser.add_argument("--read-only", action="store_true", help="for reviewers: look at everything, start nothing")
    read_only = parser.parse_args(arguments).read_only
    home = Home.default()
    variables = prepare_instance(home)
    create_storage()
    ports = {name: port_of(name) for name in PORTS}
    pages = serve_pages(home.store.root, ports["pages"])
    commands = (
        {"dagster": [_webserver_command(ports["dagster"], "--read-only")]}
        if read_only
        else {
            "dagster": [_webserver_command(ports["dagster"]), _DAEMON],
            "mlflow": [_mlflow_command(home, ports["mlflow"])],
        }
    )
    settings = {**variables, **_MLFLOW_ENVIRONMENT}
    processes = [_start(command, settings) for several in commands.values() for command in several]
    for ending in (signal.SIGINT, signal.SIGTERM):  # a shell's background job starts with SIGINT ignored
        signal.signal(ending, signal.default_int_handler)
    try:
        at = {name: served_at(name) for name in PORTS}
        _wait_until_up([f"http://{LOOPBACK}:{ports[name]}/{_HEALTH[name]}" for name in commands])
        at["dagster"] += graph_path()
        print("\n" + "\n".join(f"  {_NAMES[name]:8} {at[name]}" for name in commands))
        print(f"  reports  {at['pages']}  (linked from Dagster)\n")
        print(_FIRST_STEPS if not read_only and not home.finished() else "", end="")
        print("  Ctrl-C stops all.\n", flush=True)
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
        print("one of the servers ended; stopping the others", file=sys.stderr)
    except KeyboardInterrupt:
        pass
    finally:
        pages.shutdown()
        pages.server_close()
        _stop(processes)
    return 0


GROUPS = ("1_annotations", "2_preferences", "3_sft", "4_dpo", "5_evaluation", "6_release", "7_sweeps")
_NAMES = {"dagster": "Dagster", "mlflow": "MLflow"}
_HEALTH = {"dagster": "server_info", "mlflow": "health"}
_DAEMON = [
    sys.executable,
    "-m",
    "dagster._daemon",
    "run",
    "-w",
    str(shipped("workspace.yaml")),
    "--log-level",
    "warning",
]
_MLFLOW_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "MLFLOW_MODEL_CATALOG_URI": "",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}


_FIRST_STEPS = """  Nothing was taken in yet. Put a delivery into the inbox (`dpo-pipeline drop add PATH --name NAME`,
  or the bundled scenario by `dpo-pipeline sample`), switch on `new_drops` under Automation, run the job `everything`.

"""


def graph_path() -> str:
    """Where Dagster shows the whole graph with every group open; its front page shows an empty timeline at first."""
    return "/asset-groups?expanded=" + "%2C".join(f"global%40global%3A{group}" for group in GROUPS)


def serve_pages(root: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A running server of the pages under `root`, in a thread of this process; call `shutdown()` to end it."""
    server = http.server.ThreadingHTTPServer((LOOPBACK, port), functools.partial(Pages, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _webserver_command(port: int, *options: str) -> list[str]:
    return [sys.executable, "-m", "resources.webserver", "--port", str(port), *options]


def _mlflow_command(home: Home, port: int) -> list[str]:
    home.mlflow.mkdir(parents=True, exist_ok=True)
    proxied = origin_of("mlflow")
    store = os.environ.get("MLFLOW_BACKEND_STORE_URI") or f"sqlite:///{home.mlflow / 'mlflow.db'}"
    return [
        *[sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", LOOPBACK, "--port", str(port)],
        *["--backend-store-uri", store],
        *[
            "--artifacts-destination",
            str(home.mlflow / "artifacts"),
            "--allowed-hosts",
            ",".join(hosts_of("mlflow", port)),
        ],
        *["--x-frame-options", "DENY", "--app-name", APP_NAME],
        *(["--cors-allowed-origins", proxied] if proxied else []),
    ]


def _start(command: Sequence[str], variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a server in a process group of its own, so that it and its workers can be stopped together."""
    environment = {**os.environ, **variables}
    return subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603


def _wait_until_up(urls: Sequence[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    for url in urls:
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - a fixed loopback URL
                    break
            except OSError:
                time.sleep(0.5)


def _stop(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
