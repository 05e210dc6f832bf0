"""Sensors that watch the runs themselves: one ends those whose process is dead, one tells people of failures."""

import dagster as dg

from assets.abandoned import close_abandoned
from assets.dead_runs import fail_dead_runs
from resources.alerts import Alerts, Failed
from resources.artifact_store import ArtifactHome


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports runs as failed whose process is dead, and frees what they held. On from the start.",
)
def killed_runs(context: dg.SensorEvaluationContext, home: ArtifactHome) -> dg.SkipReason:
    """Close what killed processes left; requests no run."""
    said = [f"{attempt} is booked as killed" for attempt in close_abandoned(home.home, context.instance)]
    said += fail_dead_runs(context.instance)
    for sentence in said:
        context.log.warning(sentence)
    return dg.SkipReason("; ".join(said[:20]) or "every run in progress has a living process")


@dg.run_failure_sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells of each failed run: in the log, or to the webhook in DPO_PIPELINE_ALERT_WEBHOOK.",
)
def failure_alerts(context: dg.RunFailureSensorContext, alerts: dg.ResourceParam[Alerts]) -> None:
    """Send what failed, where and why, with a link; a channel that is away is a line in this log, no more."""
    failed = describe_failure(context)
    context.log.error(failed.text)
    if fault := alerts.send(failed):
        context.log.error("The alert could not be sent: %s", fault)


def describe_failure(context: dg.RunFailureSensorContext) -> Failed:
    """A failed run in words for a person who did not watch it."""
    run = context.dagster_run
    steps = context.get_step_failure_events()
    why = [f"{event.step_key}: {_reason(event)}" for event in steps]
    return Failed(
        run=run.run_id,
        job=run.job_name,
        drop=run.tags.get("dagster/partition"),
        started_by=run.tags.get("started_by") or run.tags.get("dagster/sensor_name") or "a person",
        reasons=why or [context.failure_event.message or "no reason was given"],
    )


def _reason(event: dg.DagsterEvent) -> str:
    """The sentence a step failed with, else the last line of its error."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    cause = error.cause if error is not None and error.cause is not None else error
    return "" if cause is None else cause.message.strip().splitlines()[-1]
