"""MLflow as a view of the ledger: one run per attempt, opened before the work and closed after it.

MLflow may be away, slow or broken: nothing waits for it longer than was granted, numbers stay in the attempt's spool
until it has them, and the reconciler (`mlflow_view`) tells it later. No call sits on the path of a training step; a
thread sends numbers in batches and goes on trying where MLflow is away.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import Field

from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.errors import TrackingError
from dpo_pipeline.core.home import Home
from resources.mlflow_client import connect, patience
from resources.mlflow_registry import point_alias
from resources.mlflow_run import close_run, open_run, send_points
from resources.mlflow_shown import opening_of
from resources.ports import served_at
from resources.spool import Spool
from resources.tracking import NoTracking, TrackedRun, Tracking, Warn

__all__ = ["MlflowRun", "MlflowTracking", "NoTracking", "TrackedRun", "Tracking"]

FLUSH_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 120.0
REST_SECONDS = 30.0
JOIN_SECONDS = 16.0  # the patience of one flush, and the timeout of the call it may be in
AWAY = {None, "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE"}  # else it is there and refuses what it was told
_away_until: dict[str, float] = {}


class MlflowTracking(Tracking):
    """MLflow: an embedded SQLite file under the home, or a server."""

    uri: str = Field(default="", description="Tracking server; empty: SQLite under the home.")
    ui: str = Field(default="", description="Where people open MLflow, for links; empty: the server, or `make ui`'s.")

    def begin(self, start: Mapping[str, Any], *, home: Home, warn: Warn, required: bool = False) -> TrackedRun:
        """Open an MLflow run tagged with the attempt, its inputs and its settings; see `Tracking.begin`."""
        run = MlflowRun(self, start, home, warn)
        if required:
            _away_until.pop(self.uri, None)
        run.open_if_there()
        if required and run.url is None:
            raise TrackingError(
                f"MLflow at {self.uri or home.mlflow} cannot be reached: {run.trouble}",
                expected="MLflow, because the profile says tracking.when_away: refuse",
                do="Start it, or set tracking.when_away to buffer: then it is told later",
            )
        return run

    def move_alias(self, model: str, alias: str, digest: str | None, *, home: Home, warn: Warn) -> None:
        """Point an alias at the version with a digest; see `Tracking.move_alias`."""
        try:
            client, _ = connect(self.uri, home.mlflow, seconds=patience(self.uri))
            point_alias(client, model, alias, digest)
        except Exception as error:  # noqa: BLE001 - a view that can be away
            warn(f"MLflow's alias {alias} of {model} was not moved to {digest or 'nobody'}; reconcile does: {error}")

    def link(self, experiment: str, run_id: str) -> str:
        """Where a person opens a run."""
        server = self.uri if self.uri.startswith("http") else ""
        at = self.ui or server or served_at("mlflow")
        return f"{at.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"


class MlflowRun:
    """An attempt's run: open, still to be opened, or left to the reconciler.

    Args:
        tracking: Which MLflow.
        start: The ledger's `started` line.
        home: Where the spool and an embedded MLflow lie.
        warn: Hears, once, that MLflow is away.
    """

    def __init__(self, tracking: MlflowTracking, start: Mapping[str, Any], home: Home, warn: Warn) -> None:
        self._tracking, self._start, self._home, self._warn = tracking, start, home, warn
        self._spool = Spool.of(home, start["attempt"])
        self._thread: threading.Thread | None = None
        self._sent = 0
        self._client: Any = None
        self._experiment = ""
        self.run_id: str | None = None
        self.url: str | None = None
        self.trouble = ""

    def open_if_there(self) -> bool:
        """Open the run unless MLflow is away, or was a moment ago; whether it is open."""
        if self.run_id is None and time.monotonic() < _away_until.get(self._tracking.uri, 0.0):
            self._say("it did not answer a moment ago")
            return False
        return self._ask(self._open)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Send what arrives in the spool, every few seconds, from a thread of its own."""
        stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(stop,), name="mlflow-metrics", daemon=True)
        self._thread.start()
        try:
            yield
        finally:
            stop.set()
            self._thread.join(JOIN_SECONDS)

    def end(self, line: Mapping[str, Any], artifact: Artifact | None) -> None:
        """Send the rest, close the run as the ledger's line says, forget the spool; or leave it to the reconciler."""

        def close(client: Any) -> None:
            assert self.run_id is not None
            points, _ = self._spool.read(self._sent)
            close_run(client, self.run_id, line, artifact, points=points, folder=self._home.mlflow)
            self._spool.remove()

        if self._thread is not None and self._thread.is_alive():
            self._say("a call to it does not end")
        elif self.open_if_there():
            self._ask(close)

    def _follow(self, stop: threading.Event) -> None:
        pause = FLUSH_SECONDS
        while not stop.wait(pause):
            pause = FLUSH_SECONDS if self._ask(self._flush) else min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _open(self, client: Any) -> None:
        if self.run_id is None:
            run_id = open_run(client, self._experiment, opening_of(self._start))
            self.url, self.run_id = self._tracking.link(self._experiment, run_id), run_id

    def _flush(self, client: Any) -> None:
        self._open(client)
        points, end = self._spool.read(self._sent)
        if points and self.run_id is not None:
            send_points(client, self.run_id, points)
        self._sent = end

    def _ask(self, work: Callable[[Any], None]) -> bool:
        """Do something with a client that waits no longer than was granted; False, and said once, if it cannot be."""
        seconds = patience(self._tracking.uri)
        try:
            if self._client is None:
                self._client, self._experiment = connect(self._tracking.uri, self._home.mlflow, seconds=seconds)
            work(self._client.again(seconds))
        except Exception as error:  # noqa: BLE001 - whatever the client raises, training does not depend on it
            if getattr(error, "error_code", None) in AWAY:
                _away_until[self._tracking.uri] = time.monotonic() + REST_SECONDS
            self._say(str(error))
            return False
        return True

    def _say(self, trouble: str) -> None:
        if not self.trouble:
            self._warn(f"MLflow does not take this attempt now; ledger and spool keep it, to be told later: {trouble}")
            self.trouble = trouble
