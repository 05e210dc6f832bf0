"""MLflow read back: what its runs say of each attempt, and telling it what it missed, from the ledger alone."""

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from dpo_pipeline.core.artifacts import Parent, Recipe
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.witnesses import Record, ViewAwayError
from resources.mlflow_tracking import AttemptFacts, MlflowRun, MlflowTracking, connect

ENDS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
ALL_RUNS = 3  # mlflow.entities.ViewType.ALL: deleted ones too
PAGE = 1_000
FORGOTTEN = "forgotten"
"""Tag of a run whose checkpoint learned from records that a tombstone took back."""


class MlflowView:
    """MLflow as a witness. MLFLOW_TRACKING_URI names a server; else SQLite under the home."""

    name = "MLflow"

    def records(self, home: Home) -> Iterable[Record]:
        """One record a run, deleted ones too.

        Raises:
            ViewAwayError: If nothing was ever tracked here, or the server does not answer.
        """
        uri = os.environ.get("MLFLOW_TRACKING_URI") or ""
        if not uri and not (home.mlflow / "mlflow.db").exists():
            raise ViewAwayError(f"there is no {home.mlflow / 'mlflow.db'} and MLFLOW_TRACKING_URI is not set")
        try:
            client, experiment = connect(uri, home.mlflow)
            return [_record(run) for run in _runs(client, experiment)]
        except Exception as error:
            raise ViewAwayError(f"MLflow cannot be asked: {error}") from error

    def mark(self, home: Home, marks: Mapping[str, str]) -> list[str]:
        """Tag the run of each attempt `forgotten`; what was newly tagged, or that MLflow is away."""
        uri = os.environ.get("MLFLOW_TRACKING_URI") or ""
        if not uri and not (home.mlflow / "mlflow.db").exists():
            return []
        said = []
        try:
            client, experiment = connect(uri, home.mlflow)
            for run in _runs(client, experiment):
                sentence = marks.get(run.data.tags.get("attempt", ""))
                if sentence and run.data.tags.get(FORGOTTEN) != sentence and run.info.lifecycle_stage != "deleted":
                    client.set_tag(run.info.run_id, FORGOTTEN, sentence)
                    said.append(f"MLflow run {run.info.run_id} was marked: {sentence}")
        except Exception as error:  # noqa: BLE001 - a view that can be away; the next reconcile marks it
            return [*said, f"MLflow cannot be reached, the next reconcile marks what learned from it: {error}"]
        return said


def reconcile_mlflow(home: Home, uri: str = "") -> list[str]:
    """Tell MLflow every ended attempt it misses or shows as running, with the original times; what was done and found.

    A run that was edited, deleted or doubled is reported and left as it is: evidence is not repaired.
    """
    try:
        client, experiment = connect(uri, home.mlflow)
        runs: dict[str | None, list[Record]] = {}
        for run in _runs(client, experiment):
            runs.setdefault(run.data.tags.get("attempt"), []).append(_record(run))
        started = {line["attempt"]: line for line in home.ledger.lines() if line["event"] == "started"}
        ended = {line["attempt"]: line for line in home.ledger.lines() if line["event"] in ENDS and "attempt" in line}
        said = [
            f"MLflow {run.where}: the ledger has no attempt {key}" for key in runs.keys() - started for run in runs[key]
        ]
        for key, end in ended.items():
            if key in started:
                said += _reconciled(home, client, experiment, started[key], end, runs.get(key, []))
    except Exception as error:  # noqa: BLE001 - a view that can be away; the next reconcile tries again
        return [f"MLflow cannot be reached, nothing was told to it: {error}"]
    return said


def _reconciled(
    home: Home, client: Any, experiment: str, start: Mapping[str, Any], end: Mapping[str, Any], runs: list[Record]
) -> Iterator[str]:
    key, status = start["attempt"], ENDS[end["event"]]
    if not runs and end.get("tracking"):
        yield f"MLflow shows nothing of {key}; the ledger says it was at {end['tracking']}"
    elif len(runs) > 1:
        yield f"MLflow shows {len(runs)} runs of {key} ({', '.join(run.where for run in runs)}); the ledger one attempt"
    elif not runs or runs[0].status == "RUNNING":
        warnings: list[str] = []
        run = MlflowTracking(uri="").open_again(client, experiment, _facts(start), warnings.append)
        _end(home, run, end)
        yield from warnings or [f"MLflow was told of {key}: {status}"]
    else:
        expected = {"status": status, "digest": end.get("artifact")}
        for name, value in expected.items():
            if (found := getattr(runs[0], name)) != value:
                yield f"MLflow {runs[0].where} says {name} {found}, the ledger says {value} ({key})"


def _end(home: Home, run: MlflowRun, end: Mapping[str, Any]) -> None:
    ended = _milliseconds(end["time"])
    if end["event"] != "finished":
        run.fail(end["reason"], killed=end["event"] == "killed", ended=ended)
        return
    try:
        artifact = home.store.get(end["asset"], end["artifact"])
    except ArtifactError as error:
        run.fail(f"the artifact of this attempt is gone: {error}", killed=False, ended=ended)
        return
    run.finish(artifact, remarks=end.get("remarks") or {}, ended=ended)


def _facts(start: Mapping[str, Any]) -> AttemptFacts:
    parents = tuple(Parent(**parent) for parent in start["parents"])
    recipe = Recipe(start["asset"], start["code_version"], start["settings"], parents)
    place = (start["attempt"], start["asset"], start["partition"], start["dagster_run"], start["profile"])
    return AttemptFacts(*place, recipe, start["code"], _milliseconds(start["time"]))


def _runs(client: Any, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], run_view_type=ALL_RUNS, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _record(run: Any) -> Record:
    tags, info = run.data.tags, run.info
    status = "DELETED" if info.lifecycle_stage == "deleted" else info.status
    place = (tags.get("attempt"), tags.get("dagster.asset", ""), tags.get("dagster.partition") or None)
    return Record(*place, tags.get("artifact.digest"), status, tags.get("recipe"), f"run {info.run_id}")


def _milliseconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)
