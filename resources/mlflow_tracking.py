"""MLflow as a view of the ledger: one run per attempt, opened before the work and closed after it.

MLflow may be away: each call has a short timeout, the first failing one is logged and no other is made for that
attempt; the ledger keeps all of it, and the reconciler (`mlflow_view`) tells MLflow later. The shipped double is
`NoTracking`. No call sits on the path of a training step; a thread sends metrics in batches.
"""

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
from pydantic import Field

from dpo_pipeline.core.artifacts import Artifact, Parent, Recipe

EXPERIMENT = "dpo-pipeline"
FLUSH_SECONDS = 5.0
BATCH_METRICS = 1_000
RACE_TRIES = 3
DIGEST_CHARACTERS = 32  # MLflow refuses a dataset digest of more than 36; the whole one goes into a tag
CLIENT_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the default of 7 blocks for minutes; the reconciler is our retry
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",  # the default cuts silently
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """What is known of an attempt when it starts; the same facts as the ledger's `started` line."""

    key: str
    asset: str
    partition: str | None
    dagster_run: str
    profile: str
    recipe: Recipe
    code: Mapping[str, Any] = field(default_factory=dict)
    started: int | None = None


class TrackedRun(Protocol):
    """One attempt as the tracking server sees it."""

    @property
    def url(self) -> str | None:
        """Where a person can look at it; None where there is nothing to look at."""
        ...

    def following(self, metrics: Path) -> Any:
        """A context in which lines appended to `metrics` are sent on in batches."""
        ...

    def finish(self, artifact: Artifact, *, remarks: Mapping[str, Any]) -> None:
        """Close it as done, with counts, facts and small files of the artifact."""
        ...

    def fail(self, reason: str, *, killed: bool) -> None:
        """Close it as failed or killed."""
        ...


class Tracking(dg.ConfigurableResource):
    """Base of the tracking resources."""

    def begin(self, facts: AttemptFacts, *, folder: Path, warn: Callable[[str], None]) -> TrackedRun:
        """Open a run for an attempt. Never raises because a server is away."""
        raise NotImplementedError


class NoTracking(Tracking):
    """The double: keeps nothing. The ledger is complete without it."""

    def begin(self, facts: AttemptFacts, *, folder: Path, warn: Callable[[str], None]) -> TrackedRun:
        """A run that is nowhere."""
        del facts, folder, warn
        return _NoRun()


class MlflowTracking(Tracking):
    """MLflow: an embedded SQLite file under the home, or a server."""

    uri: str = Field(default="", description="Tracking server; empty: SQLite under the home.")
    ui: str = Field(default="http://127.0.0.1:5000", description="Where people open MLflow; used for links only.")

    def begin(self, facts: AttemptFacts, *, folder: Path, warn: Callable[[str], None]) -> TrackedRun:
        """Open an MLflow run tagged with the attempt, its inputs and its settings."""
        try:
            client, experiment = connect(self.uri, folder)
            return self.open_again(client, experiment, facts, warn)
        except Exception as error:  # noqa: BLE001 - whatever the client raises, training does not depend on it
            warn(f"MLflow cannot be reached, this attempt is in the ledger only: {error}")
            return _NoRun()

    def open_again(self, client: Any, experiment: str, facts: AttemptFacts, warn: Callable[[str], None]) -> "MlflowRun":
        """The run of an attempt, found by its key or made."""
        run_id = _open_run(client, experiment, facts)
        return MlflowRun(client, run_id, f"{self.ui}/#/experiments/{experiment}/runs/{run_id}", warn)


def connect(uri: str, folder: Path) -> tuple[Any, str]:
    """A client with short timeouts, and the id of our experiment, made where there is none.

    Args:
        uri: Tracking server; empty: SQLite in `folder`.
        folder: The home's `mlflow/`.
    """
    os.environ.update(CLIENT_ENVIRONMENT)
    from mlflow import MlflowClient

    folder.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=uri or f"sqlite:///{folder / 'mlflow.db'}")
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return client, found.experiment_id
    # Without an explicit location MLflow writes `mlruns/` into whatever the current directory is.
    location = None if uri else (folder / "artifacts").as_uri()
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return client, client.create_experiment(EXPERIMENT, artifact_location=location, tags=tags)


class MlflowRun:
    """An open MLflow run."""

    def __init__(self, client: Any, run_id: str, url: str, warn: Callable[[str], None]) -> None:
        self._client, self.run_id, self.url, self._warn = client, run_id, url, warn
        self.is_reachable = True

    @contextmanager
    def following(self, metrics: Path) -> Iterator[None]:
        """Send what is appended to `metrics`, every few seconds, from a thread of its own."""
        stop = threading.Event()
        tail = _Tail(metrics)

        def send() -> None:
            while not stop.wait(FLUSH_SECONDS):
                self._send(tail.new_lines())

        thread = threading.Thread(target=send, name="mlflow-metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self._send(tail.new_lines())

    def finish(self, artifact: Artifact, *, remarks: Mapping[str, Any], ended: int | None = None) -> None:
        """Log counts, numeric facts, manifest, report and pictures; then FINISHED, at `ended` in milliseconds."""
        if not self.is_reachable:
            return
        with self._patience():
            from mlflow.entities import Metric

            numbers = {**artifact.counts, **_numeric(artifact.facts), **_numeric(remarks)}
            metrics = [Metric(_clean(name), float(value), _now(), 0) for name, value in numbers.items()]
            self._client.log_batch(self.run_id, metrics=metrics)
            self._client.set_tag(self.run_id, "artifact.digest", artifact.digest)
            self._client.set_tag(self.run_id, "artifact.kind", artifact.kind)
            for path in _small_files(artifact.path):
                self._client.log_artifact(self.run_id, str(path))
            self._client.set_terminated(self.run_id, "FINISHED", end_time=ended)

    def fail(self, reason: str, *, killed: bool, ended: int | None = None) -> None:
        """Tag the reason; then FAILED or KILLED, at `ended` in milliseconds."""
        if not self.is_reachable:
            return
        with self._patience():
            self._client.set_tag(self.run_id, "failure", reason[:5_000])
            self._client.set_terminated(self.run_id, "KILLED" if killed else "FAILED", end_time=ended)

    def _send(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if not self.is_reachable or not lines:
            return
        with self._patience():
            from mlflow.entities import Metric

            metrics = [
                Metric(_clean(name), value, int(line.get("time", 0) * 1000) or _now(), int(line["step"]))
                for line in lines
                for name, value in line.items()
                if name not in {"step", "time"} and value is not None
            ]
            for start in range(0, len(metrics), BATCH_METRICS):
                self._client.log_batch(self.run_id, metrics=metrics[start : start + BATCH_METRICS])

    @contextmanager
    def _patience(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - as in begin: a view that can be away
            self.is_reachable = False
            self._warn(f"MLflow did not take everything of run {self.run_id}; the reconciler will tell it: {error}")


class _NoRun:
    url = None

    @contextmanager
    def following(self, metrics: Path) -> Iterator[None]:
        del metrics
        yield

    def finish(self, artifact: Artifact, *, remarks: Mapping[str, Any]) -> None:
        pass

    def fail(self, reason: str, *, killed: bool) -> None:
        pass


class _Tail:
    """Reads whole lines appended to a file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, path.stat().st_size if path.exists() else 0

    def new_lines(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


def _open_run(client: Any, experiment: str, facts: AttemptFacts) -> str:
    """The run of an attempt: the one with its key if there is one, else a new one."""
    if found := client.search_runs([experiment], f"tags.attempt = '{facts.key}'", max_results=1):
        return found[0].info.run_id
    tags = {
        "mlflow.runName": facts.asset if facts.partition is None else f"{facts.asset} {facts.partition}",
        "attempt": facts.key,
        "dagster.run": facts.dagster_run,
        "dagster.asset": facts.asset,
        "dagster.partition": facts.partition or "",
        "profile": facts.profile,
        "recipe": facts.recipe.digest,
        "code_version": facts.recipe.code_version,
        **{f"code.{name}": str(value) for name, value in facts.code.items() if value is not None},
    }
    run_id = client.create_run(experiment, start_time=facts.started, tags=tags).info.run_id
    _log_settings(client, run_id, facts.recipe.settings)
    _log_inputs(client, run_id, facts.recipe.parents)
    return run_id


def _log_settings(client: Any, run_id: str, settings: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    client.log_batch(run_id, params=[Param(_clean(key), str(value)) for key, value in _flat(settings)])


def _log_inputs(client: Any, run_id: str, parents: Sequence[Parent]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            Dataset(
                name=parent.role,
                digest=parent.digest[:DIGEST_CHARACTERS],
                source_type="dpo-pipeline artifact",
                source=json.dumps({"kind": parent.kind, "sha256": parent.digest}),
            ),
            [InputTag("mlflow.data.context", "input"), InputTag("sha256", parent.digest)],
        )
        for parent in parents
    ]
    for left in reversed(range(RACE_TRIES if inputs else 0)):
        try:
            client.log_inputs(run_id, inputs)
        except Exception as error:  # two processes naming the same new dataset: one loses, and MLflow does not retry
            if "UNIQUE constraint" not in str(error) or not left:
                raise
        else:
            return


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _numeric(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, int | float) and math.isfinite(value)}


def _small_files(folder: Path) -> list[Path]:
    names = ("manifest.json", "report.json", "report.html", "training.json", "*.png")
    found = [path for name in names for path in sorted(folder.glob(name))]
    return [path for path in found if path.stat().st_size < 5_000_000]


def _clean(name: str) -> str:
    """A name MLflow takes: letters, digits, and _ - . / space."""
    return "".join(character if character.isalnum() or character in "_-./ " else "_" for character in name)


def _now() -> int:
    return int(time.time() * 1000)
