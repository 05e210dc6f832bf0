"""Telling MLflow what it missed, from ledger and spool alone, with the original times; naming what was edited."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import CHAMPION_KIND, champion_digest
from dpo_pipeline.lineage.witnesses import Record
from resources.findings import Findings
from resources.mlflow_client import connect
from resources.mlflow_compare import Told, artifact_of, attempts_of, record_of
from resources.mlflow_registry import alias_of, point_alias, register_version, versions_of
from resources.mlflow_shown import STATUS
from resources.mlflow_tracking import MlflowRun, MlflowTracking
from resources.mlflow_view import CHAMPION, champion_fault, made_of, registry_faults, runs_of
from resources.processes import is_alive, is_this
from resources.spool import Spool

SECONDS_OF_ITS_OWN = 60.0  # for so long an attempt that has just ended is left to tell MLflow itself


def reconcile_mlflow(home: Home, tracking: MlflowTracking) -> Findings:
    """Tell MLflow every ended attempt, checkpoint and promotion it misses; one sentence per deed and per difference.

    A run that was edited, deleted or doubled is named and left as it is: evidence is not repaired. The alias of the
    champion is no evidence but a signpost; it is named and put back.
    """
    findings = Findings()
    try:
        client, experiment = connect(tracking.uri, home.mlflow)
        found = list(runs_of(client, experiment))  # before the ledger is read: its line is written before the run
        attempts = attempts_of(home)
        runs: dict[str | None, list[Record]] = {}
        for run in found:
            runs.setdefault(run.data.tags.get("attempt"), []).append(record_of(run, home, attempts))
        for key in runs.keys() - attempts.keys():
            findings.add(faults=[_unknown(run) for run in runs[key]])
        for key, told in attempts.items():
            if told.end is not None and not _tells_itself(told):
                _reconcile_attempt(home, tracking, told, told.end, runs.get(key, []), findings)
        _reconcile_registry(client, experiment, home, findings)
    except Exception as error:  # noqa: BLE001 - a view that can be away; the next reconcile tries again
        findings.add(faults=[f"MLflow cannot be reached, what is missing there is told to it another time: {error}"])
    return findings


def _unknown(run: Record) -> str:
    asset, digest = run.asset or "something", run.digest
    return f"MLflow {run.where} says {asset} was made as {digest}; the ledger has no attempt {run.attempt}"


def _tells_itself(told: Told) -> bool:
    """Whether the attempt's own process is likely still telling MLflow how it ended."""
    process, end = told.start.get("process"), told.end
    if process is None or end is None or is_this(process):
        return False
    age = (datetime.now(UTC) - datetime.fromisoformat(end["time"])).total_seconds()
    return age < SECONDS_OF_ITS_OWN and is_alive(process)


def _reconcile_attempt(
    home: Home, tracking: MlflowTracking, told: Told, end: Mapping[str, Any], runs: list[Record], findings: Findings
) -> None:
    key = told.start["attempt"]
    if not runs and end.get("tracking"):
        findings.add(faults=[f"MLflow shows nothing of {key}; the ledger says it was at {end['tracking']}"])
    elif len(runs) > 1:
        where = ", ".join(run.where for run in runs)
        findings.add(faults=[f"MLflow shows {len(runs)} runs of {key} ({where}); the ledger one attempt"])
    elif not runs or runs[0].status == "RUNNING" or _is_left_in_spool(home, key, runs[0]):
        warnings: list[str] = []
        MlflowRun(tracking, told.start, home, warnings.append).end(end, artifact_of(home, end))
        findings.add(faults=warnings, deeds=[] if warnings else [f"MLflow was told of {key}: {STATUS[end['event']]}"])
    else:
        findings.add(faults=_faults(runs[0], told.start, end))


def _is_left_in_spool(home: Home, key: str, run: Record) -> bool:
    """Whether numbers were left behind by a crash after the run was closed."""
    return run.status != "DELETED" and Spool.of(home, key).path.exists()


def _faults(run: Record, start: Mapping[str, Any], end: Mapping[str, Any]) -> Iterator[str]:
    pairs = [
        ("status", run.status, STATUS[end["event"]]),
        ("artifact", run.digest, end.get("artifact")),
        ("asset", run.asset, start["asset"]),
        ("partition", run.partition, start["partition"]),
        ("recipe", run.recipe, start["recipe"]),
        *run.differs,
    ]
    for name, found, expected in pairs:
        if found != expected:
            yield f"MLflow {run.where} says {name} {found}, the ledger says {expected} ({start['attempt']})"


def _reconcile_registry(client: Any, experiment: str, home: Home, findings: Findings) -> None:
    """Register what is missing, put the champion's alias back, name what the ledger does not know."""
    for model, digests in made_of(home).items():
        have = {version.tags.get("digest") for version in versions_of(client, model)}
        for digest in digests:
            if digest not in have and _register(client, experiment, home, model, digest):
                findings.add(deeds=[f"MLflow had no version of {model} with digest {digest}; registered"])
    champion, sentence = champion_digest(home), champion_fault(client, home)
    if sentence is not None and (champion is None or versions_of(client, CHAMPION_KIND, champion)):
        was = alias_of(client, CHAMPION_KIND, CHAMPION)
        point_alias(client, CHAMPION_KIND, CHAMPION, champion)
        told = f"MLflow's alias {CHAMPION} was set to {champion}, as the ledger says"
        findings.add(deeds=[f"{sentence}; {'moved' if champion else 'taken away'}" if was else told])
    findings.add(faults=dict.fromkeys(fault for _, fault in registry_faults(client, home)))


def _register(client: Any, experiment: str, home: Home, model: str, digest: str) -> bool:
    """Register a checkpoint as made by the first run that finished it; False if it is gone or no run tells of it."""
    if not home.store.path_of(model, digest).is_dir():
        return False
    made = {line.get("attempt") for line in home.finished() if line["artifact"] == digest}  # a run may be forged
    wanted = f"tags.`artifact.digest` = '{digest}' and attributes.status = 'FINISHED'"
    found = client.search_runs([experiment], wanted, order_by=["attributes.start_time"])
    run = next((run for run in found if run.data.tags.get("attempt") in made), None)
    if run is None:
        return False
    tags = {"attempt": run.data.tags["attempt"]}
    register_version(client, home.mlflow, home.store.get(model, digest), run_id=run.info.run_id, tags=tags)
    return True
