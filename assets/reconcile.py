"""Join ledger, Dagster, MLflow and disk after crashes; a second time does nothing more."""

import os
from collections.abc import Iterator

import dagster as dg

from assets.abandoned import close_abandoned
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.attestations import sign_artifacts
from resources.artifact_store import ArtifactHome
from resources.dagster_view import records_of
from resources.instance import prepare_instance
from resources.mlflow_tracking import MlflowTracking, Tracking
from resources.mlflow_view import reconcile_mlflow


def reconcile_home(home: Home) -> list[str]:
    """Reconcile from a terminal, with the Dagster instance and the MLflow that the environment names."""
    prepare_instance(home)
    with dg.DagsterInstance.get() as instance:
        return reconcile(home, instance, MlflowTracking(uri=os.environ.get("MLFLOW_TRACKING_URI") or ""))


def reconcile(home: Home, instance: dg.DagsterInstance, tracking: Tracking) -> list[str]:
    """Close what killed processes left, tell MLflow what it missed, sign what is whole; one sentence per deed or fault.

    The ledger is looked at first: on a broken one nothing is written.
    """
    from dpo_pipeline.lineage.forget import mark_forgotten

    if faults := home.ledger.verify():
        return faults
    said = [f"{key} was left open by a killed process; booked as killed" for key in close_abandoned(home, instance)]
    said += _promotions_left_undone(home)
    said += _dagster_against_ledger(home, instance)
    if isinstance(tracking, MlflowTracking):
        said += reconcile_mlflow(home, tracking.uri)
    return said + mark_forgotten(home) + sign_artifacts(home)


@dg.sensor(
    minimum_interval_seconds=60,
    description="Joins ledger, Dagster, MLflow and disk after crashes; says what it did and what does not agree.",
)
def reconciliation(
    context: dg.SensorEvaluationContext, home: ArtifactHome, tracking: dg.ResourceParam[Tracking]
) -> dg.SkipReason:
    """Reconcile once; requests no run."""
    said = reconcile(home.home, context.instance, tracking)
    for sentence in said:
        context.log.info(sentence)
    return dg.SkipReason("; ".join(said[:20]) or "ledger, Dagster, MLflow and disk agree")


def _promotions_left_undone(home: Home) -> Iterator[str]:
    from dpo_pipeline.evaluation.champion import complete_promotion

    if done := complete_promotion(home):
        yield done


def _dagster_against_ledger(home: Home, instance: dg.DagsterInstance) -> Iterator[str]:
    """Materializations without a finished attempt, or with another digest than the ledger's; and the reverse."""
    finished = {line["attempt"]: line for line in home.finished() if "attempt" in line}
    shown = {record.attempt: record for record in records_of(instance) if record.attempt in finished}
    for record in records_of(instance):
        line = finished.get(record.attempt or "")
        if line is None:
            yield (
                f"Dagster {record.where} says {record.asset} was made as {record.digest}; "
                f"the ledger has no finished attempt {record.attempt}: forged"
            )
        elif record.digest != line["artifact"]:
            yield f"Dagster {record.where} says {record.digest}, the ledger says {line['artifact']} ({record.attempt})"
    for key in finished.keys() - shown.keys():
        yield f"the ledger says {key} finished with {finished[key]['artifact']}; Dagster shows no materialization of it"
