"""MLflow two ways, embedded and behind a server, for the same assertions."""

import importlib
import os
import threading
import warnings

import pytest

from dpo_pipeline.core.home import Home
from resources import mlflow_client, mlflow_tracking
from resources.mlflow_client import CLIENT_ENVIRONMENT
from tests.resources.worlds import World

SERVER_ENVIRONMENT = {
    "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
    "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory):
    """MLflow's own server application, REST and store, in a thread: up in the time its import takes."""
    folder = tmp_path_factory.mktemp("server")
    store = f"sqlite:///{folder / 'mlflow.db'}"
    mine = {
        **CLIENT_ENVIRONMENT,
        **SERVER_ENVIRONMENT,
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
    }
    before = dict(os.environ)
    os.environ.update(mine)
    from mlflow.server import app
    from mlflow.server.handlers import initialize_backend_stores
    from werkzeug.serving import make_server

    with warnings.catch_warnings():  # of starlette's, about MLflow; it would become an answer of 500
        warnings.simplefilter("ignore")
        importlib.import_module("mlflow.server.fastapi_app")
    initialize_backend_stores(store, store, "mlflow-artifacts:/")

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name in os.environ.keys() - before.keys() - mine.keys():  # it points every client of this process at itself
        del os.environ[name]
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    for name in mine.keys() - before.keys():
        del os.environ[name]


@pytest.fixture(scope="module", params=["embedded", "server"])
def world(request, tmp_path_factory, mlflow_tables):
    """One per module and MLflow: making MLflow's tables takes seconds."""
    uri = request.getfixturevalue("mlflow_server") if request.param == "server" else ""
    with pytest.MonkeyPatch.context() as patience:  # these tests are about what is told, on a machine that may be busy
        patience.setitem(CLIENT_ENVIRONMENT, "MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        patience.setattr(mlflow_client, "SERVER_SECONDS", 120.0)
        home = Home(tmp_path_factory.mktemp("world") / "home")
        mlflow_tables(home)
        yield World(home, uri)


@pytest.fixture(autouse=True)
def nobody_rests():
    """A server that was away in one test is asked again in the next."""
    mlflow_tracking._away_until.clear()
