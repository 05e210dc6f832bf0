"""Dagster's web server behind the guard: `python -m resources.webserver --port 3000 [--read-only]`."""

import argparse
from collections.abc import Sequence

import dagster as dg
import uvicorn
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__

from resources.guard import Guard
from resources.instance import shipped
from resources.ports import LOOPBACK, hosts_of


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the UI of the instance in DAGSTER_HOME until a signal ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--read-only", action="store_true", help="nothing can be started, switched or deleted")
    options = parser.parse_args(arguments)
    target = WorkspaceFileTarget([str(shipped("workspace.yaml"))])
    with (
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(
            instance, target, version=__version__, read_only=options.read_only, code_server_log_level="warning"
        ) as workspace,
    ):
        instance.optimize_for_webserver(statement_timeout=15_000, pool_recycle=3_600, max_overflow=20)
        app = create_app_from_workspace_process_context(workspace, live_data_poll_rate=2_000)
        uvicorn.run(
            Guard(app, hosts=hosts_of("dagster", options.port)), host=LOOPBACK, port=options.port, log_level="warning"
        )


if __name__ == "__main__":
    main()
