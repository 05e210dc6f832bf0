"""How MLflow is talked to: short timeouts, no telemetry, no silent cuts, and never longer in all than was granted."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXPERIMENT = "dpo-pipeline"
CLIENT_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the default of 7 blocks for minutes; the reconciler is our retry
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",  # the default cuts silently
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}
SERVER_SECONDS = 10.0
EMBEDDED_SECONDS = 60.0  # SQLite waits up to 20 s for another writer, and its tables may have to be made first


class OutOfPatienceError(Exception):
    """MLflow answers, but so slowly that nobody waits for it any longer."""


class BoundedClient:
    """An MLflow client whose calls may take so many seconds in all; then each further call is refused.

    Args:
        client: A `mlflow.MlflowClient`.
        seconds: How long the caller is willing to wait for all calls together. A call that is under way is ended by
            the HTTP timeout of five seconds.
    """

    def __init__(self, client: Any, seconds: float) -> None:
        self._client, self._granted, self._left = client, seconds, seconds

    def again(self, seconds: float) -> "BoundedClient":
        """The same client with fresh patience."""
        return BoundedClient(self._client, seconds)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A method of the client, counted."""
        method = getattr(self._client, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            if self._left <= 0:
                raise OutOfPatienceError(f"MLflow took more than {self._granted:.0f} s; nothing more is asked of it")
            started = time.monotonic()
            try:
                return method(*arguments, **options)
            finally:
                self._left -= time.monotonic() - started

        return counted


def patience(uri: str) -> float:
    """Seconds one attempt waits for MLflow, once at its beginning and once at its end."""
    return SERVER_SECONDS if uri else EMBEDDED_SECONDS


def connect(uri: str, folder: Path, *, seconds: float | None = None) -> tuple[Any, str]:
    """A client with short timeouts, and the id of our experiment, made where there is none.

    Args:
        uri: Tracking server; empty: SQLite in `folder`.
        folder: The home's `mlflow/`.
        seconds: How long the client's calls may take in all; None: as long as they take.
    """
    os.environ.update(CLIENT_ENVIRONMENT)
    from mlflow import MlflowClient

    folder.mkdir(parents=True, exist_ok=True)
    at = uri or f"sqlite:///{folder / 'mlflow.db'}"
    # Two processes that make MLflow's tables, or the experiment, at the same time get in each other's way.
    with (folder / "connect.lock").open("a") as lock:
        if not uri:
            fcntl.flock(lock, fcntl.LOCK_EX)
        client: Any = MlflowClient(tracking_uri=at, registry_uri=at)
        if seconds is not None:
            client = BoundedClient(client, seconds)
        return client, _experiment(client, None if uri else (folder / "artifacts").as_uri())


def _experiment(client: Any, location: str | None) -> str:
    """Our experiment; without an explicit location MLflow writes `mlruns/` into whatever the current directory is."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return found.experiment_id
    tags = {"mlflow.experimentKind": "custom_model_development"}
    try:
        return client.create_experiment(EXPERIMENT, artifact_location=location, tags=tags)
    except Exception:
        found = client.get_experiment_by_name(EXPERIMENT)  # made by another process in between
        if found is None:
            raise
        return found.experiment_id
