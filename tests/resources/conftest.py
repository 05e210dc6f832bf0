"""MLflow two ways, embedded and behind a server, for the same assertions; attempts as the ledger books them."""

import importlib
import os
import threading
import warnings
from types import SimpleNamespace

import pytest

from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.home import Home
from resources import mlflow_client, mlflow_tracking
from resources.mlflow_client import CLIENT_ENVIRONMENT, connect
from resources.mlflow_tracking import MlflowTracking
from resources.processes import this_process

PARENT = Parent("judgments/may", "judgments", "ab" * 32)
SETTINGS = {"dpo": {"beta": 0.1, "optimizer": {"learning_rate": 5e-7}}, "model": {"seed": 17}}
RECIPE = Recipe("dpo_checkpoint", "1", SETTINGS, (PARENT,))
SERVER_ENVIRONMENT = {
    "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
    "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


class World:
    """A home, an MLflow beside it, and attempts written as the assets write them."""

    def __init__(self, home, uri):
        self.home, self.tracking = home, MlflowTracking(uri=uri)
        self.client, self.experiment = connect(uri, home.mlflow)
        self.warnings = []

    def start(self, key, asset="dpo_checkpoint", **changes):
        known = {
            "attempt": f"{key}/{asset}/-/0",
            "asset": asset,
            "partition": None,
            "recipe": RECIPE.digest,
            "dagster_run": key,
            "profile": "demo",
            "settings": SETTINGS,
            "code_version": "1",
            "parents": [{"role": PARENT.role, "kind": PARENT.kind, "digest": PARENT.digest}],
            "code": {"git_commit": "c0ffee"},
            "environment": {"python": "3.11", "versions": {"torch": "2"}},
            "process": this_process(),
        }
        return self.home.ledger.append("started", **{**known, **changes})

    def line(self, start, event, **fields):
        from assets.attempt import end_line

        return end_line(self.home, start, event, tracking=None, **fields)

    def begin(self, start, **options):
        return self.tracking.begin(start, home=self.home, warn=self.warnings.append, **options)

    def publish(self, text="weights", kind="dpo_checkpoint"):
        recipe = Recipe(kind, "1", SETTINGS, (PARENT,))
        with self.home.store.staging() as folder:
            (folder / "training.json").write_text(text)
            outcome = Outcome(counts={"steps": 3}, facts={"accuracy": 0.9, "loss kind": "x"})
            return self.home.store.publish(folder, recipe, outcome)

    def finished(self, key, text=None):
        """A whole attempt, told as it goes."""
        start = self.start(key)
        run = self.begin(start)
        artifact = self.publish(text or key)
        run.end(self.line(start, "finished", artifact=artifact.digest, remarks={"seconds": 1.5}), artifact)
        return SimpleNamespace(start=start, run=run, artifact=artifact, key=start["attempt"])

    def runs(self, key):
        return self.client.search_runs([self.experiment], f"tags.attempt = '{key}'")


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
