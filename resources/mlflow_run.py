"""One MLflow run, written from the ledger's lines: opened, filled, closed. Every step may be repeated without harm."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from dpo_pipeline.core.artifacts import Artifact
from resources.mlflow_registry import MODELS, register_version
from resources.mlflow_shown import DIGEST_CHARACTERS, Opening, closing_of, fit, name_for_mlflow
from resources.spool import Point

BATCH_METRICS, BATCH_PARAMS = 1_000, 100  # MLflow refuses more in one call
RACE_TRIES = 5
LONGEST_INPUT_TAG = 500
LARGEST_FILE_BYTES = 5_000_000
SHOWN_FILES = ("manifest.json", "report.json", "report.html", "training.json", "*.png")

Item = TypeVar("Item")


def open_run(client: Any, experiment: str, opening: Opening) -> str:
    """The id of the run of an attempt: found by the attempt's key, or made; with its settings and inputs."""
    key = opening.tags["attempt"]
    if found := client.search_runs([experiment], f"tags.attempt = '{key}'", max_results=1):
        run_id = found[0].info.run_id
    else:
        run_id = client.create_run(experiment, start_time=opening.started, tags=dict(opening.tags)).info.run_id
    _log_params(client, run_id, opening.params)
    _log_inputs(client, run_id, opening)
    return run_id


def send_points(client: Any, run_id: str, points: Sequence[Point]) -> None:
    """Send measured numbers with their own steps and times; those MLflow already has, it keeps once."""
    for batch in _batches(_metrics(points), BATCH_METRICS):
        client.log_batch(run_id, metrics=batch)


def close_run(
    client: Any,
    run_id: str,
    end: Mapping[str, Any],
    artifact: Artifact | None,
    *,
    points: Sequence[Point],
    folder: Path,
) -> None:
    """Send the last numbers, say how an attempt ended, show its small files, register a checkpoint; status comes last.

    Args:
        client: MLflow.
        run_id: The attempt's run.
        end: The ledger's `finished`, `failed` or `killed` line.
        artifact: What was made; None where nothing was, or where it is gone.
        points: What was measured and not sent yet.
        folder: The home's `mlflow/`.
    """
    from mlflow.entities import Metric, RunTag

    closing = closing_of(end, artifact)
    metrics = [*_metrics(points), *(Metric(name, value, closing.ended, 0) for name, value in closing.metrics.items())]
    *most, last = list(_batches(metrics, BATCH_METRICS - BATCH_PARAMS)) or [[]]
    for batch in most:
        client.log_batch(run_id, metrics=batch)
    client.log_batch(run_id, metrics=last, tags=[RunTag(name, value) for name, value in closing.tags.items()])
    if artifact is not None:
        for path in _small_files(artifact.path):
            client.log_artifact(run_id, str(path))
        if artifact.kind in MODELS:
            tags = {"attempt": end["attempt"], "dagster.run": end["attempt"].partition("/")[0]}
            register_version(client, folder, artifact, run_id=run_id, tags=tags)
    client.set_terminated(run_id, closing.status, end_time=closing.ended)


def _metrics(points: Sequence[Point]) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(name_for_mlflow(point.name), point.value, point.milliseconds, point.step) for point in points]


def _log_params(client: Any, run_id: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    for batch in _batches([Param(name, value) for name, value in params.items()], BATCH_PARAMS):
        client.log_batch(run_id, params=batch)


def _log_inputs(client: Any, run_id: str, opening: Opening) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            Dataset(
                name=fit(role, LONGEST_INPUT_TAG),
                digest=digest[:DIGEST_CHARACTERS],
                source_type="dpo-pipeline artifact",
                source=json.dumps({"kind": opening.kinds[role], "sha256": digest}),
            ),
            [InputTag("mlflow.data.context", "input"), InputTag("sha256", digest)],
        )
        for role, digest in opening.inputs.items()
    ]
    for left in reversed(range(RACE_TRIES if inputs else 0)):
        try:
            client.log_inputs(run_id, inputs)
        except Exception as error:  # two processes naming the same new dataset: one loses, and MLflow does not retry
            if "UNIQUE constraint" not in str(error) or not left:
                raise
        else:
            return


def _small_files(folder: Path) -> list[Path]:
    found = [path for name in SHOWN_FILES for path in sorted(folder.glob(name))]
    return [path for path in found if path.stat().st_size < LARGEST_FILE_BYTES]


def _batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
