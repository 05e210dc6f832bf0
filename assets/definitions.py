"""The code location: every asset, check, job, sensor and schedule, bound to the resources of the outside world."""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets import annotations, champion, dpo, evaluation, preferences, release, sft, sweeps
from assets.arrivals import new_drops
from assets.automation import JOBS, enough_new_pairs, retraining, tables_follow_drops
from assets.checks import CHECKS
from assets.forgetting import forgotten
from assets.reconcile import reconciliation
from assets.tracked import assert_all_tracked
from assets.watching import failure_alerts, killed_runs
from dpo_pipeline.core.home import HOME_VARIABLE, INBOX_VARIABLE
from resources.alerts import WEBHOOK_VARIABLE, LogAlerts, WebhookAlerts
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.mlflow_tracking import MlflowTracking
from resources.ports import served_at
from resources.settings import PipelineSettings

ASSETS = [
    annotations.raw_annotations,
    annotations.read_annotations,
    preferences.pair_sketches,
    preferences.preference_pairs,
    preferences.annotator_report,
    sft.sft_checkpoint,
    dpo.reference_logprobs,
    dpo.dpo_checkpoint,
    evaluation.evaluation_report,
    champion.champion,
    release.release,
    sweeps.sweep_point,
    sweeps.sweep_report,
]
assert_all_tracked(ASSETS)


def default_resources() -> dict[str, Any]:
    """Resources as the environment asks for them: DPO_PIPELINE_HOME, _INBOX, _PROFILE, MLFLOW_TRACKING_URI."""
    return {
        "settings": PipelineSettings(profile=os.environ.get("DPO_PIPELINE_PROFILE") or "demo"),
        "home": ArtifactHome(
            folder=os.environ.get(HOME_VARIABLE) or "home",
            inbox=os.environ.get(INBOX_VARIABLE) or "",
            pages=served_at("pages"),
        ),
        "tracking": MlflowTracking(uri=os.environ.get("MLFLOW_TRACKING_URI") or ""),
        "gpu": Gpu(),
        "alerts": WebhookAlerts(ui=served_at("dagster")) if os.environ.get(WEBHOOK_VARIABLE) else LogAlerts(),
    }


def build_definitions(
    resources: Mapping[str, Any] | None = None, *, loggers: Mapping[str, dg.LoggerDefinition] | None = None
) -> dg.Definitions:
    """The definitions, with some resources exchanged: tests pass a home of their own and `NoTracking()`."""
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=CHECKS,
        jobs=[*JOBS, sweeps.sweep, sweeps.frontier],
        sensors=[
            new_drops,
            forgotten,
            tables_follow_drops,
            enough_new_pairs,
            reconciliation,
            killed_runs,
            failure_alerts,
        ],
        schedules=[retraining],
        resources={**default_resources(), **(resources or {})},
        executor=dg.in_process_executor,
        loggers=loggers,
    )


defs = build_definitions()
