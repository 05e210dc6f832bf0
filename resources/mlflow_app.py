"""MLflow's server behind the guard: `mlflow server --app-name guarded`, found by the entry point `mlflow.app`.

MLflow checks the Host header, yet takes writes from a page of any port of this machine (its rule for origins lets every
localhost through), and from none at all where a browser sends no Origin. Here both have to be the server's own.
"""

import os

from resources.guard import Guard

APP_NAME = "guarded"
HOSTS_VARIABLE = "MLFLOW_SERVER_ALLOWED_HOSTS"


def guarded() -> Guard:
    """The application for uvicorn's workers.

    Raises:
        RuntimeError: If the server was started without `--allowed-hosts`, which the guard compares with.
    """
    hosts = [host.strip() for host in os.environ.get(HOSTS_VARIABLE, "").split(",") if host.strip()]
    if not hosts or "*" in "".join(hosts):
        raise RuntimeError("name the hosts, with their ports and without asterisks: --allowed-hosts 127.0.0.1:5000")
    from mlflow.server.fastapi_app import app

    return Guard(app, hosts=hosts)
