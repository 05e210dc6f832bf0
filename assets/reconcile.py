"""Join ledger, Dagster, MLflow and disk after crashes; a second time does nothing more."""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.abandoned import UNFINISHED, close_abandoned
from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.attestations import sign_artifacts
from dpo_pipeline.lineage.witnesses import Record
from resources.artifact_store import ArtifactHome
from resources.dagster_view import records_of
from resources.findings import Findings
from resources.instance import prepare_instance
from resources.mlflow_compare import attempts_of
from resources.mlflow_reconcile import reconcile_mlflow
from resources.mlflow_tracking import MlflowTracking
from resources.processes import is_alive
from resources.tracking import Tracking


def reconcile_home(home: Home) -> list[str]:
    """Reconcile from a terminal, with the Dagster instance and the MLflow that the environment names."""
    prepare_instance(home)
    with dg.DagsterInstance.get() as instance:
        tracking = MlflowTracking(uri=os.environ.get("MLFLOW_TRACKING_URI") or "")
        return reconcile(home, instance, tracking).sentences


def reconcile(home: Home, instance: dg.DagsterInstance, tracking: Tracking) -> Findings:
    """Close what killed processes left, tell MLflow what it missed, sign what is whole; a sentence per deed or fault.

    The ledger is looked at first: on a broken one nothing is written.
    """
    from dpo_pipeline.evaluation.champion import complete_promotion
    from dpo_pipeline.lineage.forget import mark_forgotten

    findings = Findings(faults=home.ledger.verify())
    if findings.faults:
        return findings
    closed = close_abandoned(home, instance)
    findings.add(deeds=[f"{key} was left open by a killed process; booked as killed" for key in closed])
    try:
        findings.add(deeds=[done] if (done := complete_promotion(home)) else [])
    except PipelineError as error:  # an artifact that is gone must not keep the rest from being joined
        findings.add(faults=[f"the newest decision of the gate was not followed: {error}"])
    findings.take(_dagster_against_ledger(home, instance))
    if isinstance(tracking, MlflowTracking):
        findings.take(reconcile_mlflow(home, tracking))
    findings.add(deeds=mark_forgotten(home))
    for sentence in sign_artifacts(home):
        findings.add(**{"faults" if sentence.startswith("not signed") else "deeds": [sentence]})
    return findings


@dg.sensor(
    minimum_interval_seconds=60,
    description="Joins ledger, Dagster, MLflow and disk after crashes; says what it did and what does not agree.",
)
def reconciliation(
    context: dg.SensorEvaluationContext, home: ArtifactHome, tracking: dg.ResourceParam[Tracking]
) -> dg.SkipReason:
    """Reconcile once; requests no run."""
    said = reconcile(home.home, context.instance, tracking).sentences
    for sentence in said:
        context.log.info(sentence)
    return dg.SkipReason("; ".join(said[:20]) or "ledger, Dagster, MLflow and disk agree")


def _dagster_against_ledger(home: Home, instance: dg.DagsterInstance) -> Findings:
    """Materializations without a finished attempt, with another digest than the ledger's, or twice; and the reverse."""
    findings = Findings()
    shown: dict[str | None, list[Record]] = {}
    for record in records_of(instance):  # before the ledger is read: its line is written before Dagster's event
        shown.setdefault(record.attempt, []).append(record)
    attempts = {key: told for key, told in attempts_of(home).items() if told.end and told.end["event"] == "finished"}
    for key, records in shown.items():
        told = attempts.get(key or "")
        findings.add(faults=_of_attempt(key, told.end if told else None, records))
    missing = attempts.keys() - shown.keys()
    since = {record.attempt for record in records_of(instance)} if missing else set[str | None]()
    for key in sorted(missing - since):
        _unmaterialized(attempts[key].start, attempts[key].end or {}, instance, findings)
    return findings


def _of_attempt(key: str | None, end: Mapping[str, Any] | None, records: list[Record]) -> list[str]:
    if end is None:
        return [
            f"Dagster {record.where} says {record.asset} was made as {record.digest}; "
            f"the ledger has no finished attempt {key}: forged"
            for record in records
        ]
    said = []
    if len(records) > 1:
        where = ", ".join(record.where for record in records)
        said.append(f"Dagster shows {len(records)} materializations of {key} ({where}); the ledger one attempt")
    for record in records:
        pairs = {
            "asset": (record.asset, end["asset"]),
            "partition": (record.partition, end["partition"]),
            "artifact": (record.digest, end["artifact"]),
        }
        for name, (found, expected) in pairs.items():
            if found != expected:
                said.append(f"Dagster {record.where} says {name} {found}, the ledger says {expected} ({key})")
    return said


def _unmaterialized(
    start: Mapping[str, Any], end: Mapping[str, Any], instance: dg.DagsterInstance, findings: Findings
) -> None:
    """A finished attempt Dagster does not show: on its way, killed just before, or its event was deleted."""
    run = instance.get_run_by_id(start["dagster_run"])
    if run is not None and run.status in UNFINISHED:
        if is_alive(start["process"]):
            return  # between the ledger's line and Dagster's event, or in a step that makes several assets
        instance.report_run_failed(run, "The process that performed this run was killed after its work was done.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        findings.add(deeds=[f"Dagster run {run.run_id} was left running by a killed process; reported as failed"])
    made = f"the ledger says {start['attempt']} finished with {end['artifact']}"
    findings.add(faults=[f"{made}; Dagster shows no materialization of it"])
