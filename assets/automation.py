"""Jobs by name, and what starts them by itself; all of it off until switched on in the UI.

Tables follow drops at once (`tables_follow_drops`). Models are trained again by the clock (`retraining`) or when enough
new pairs have come (`enough_new_pairs`), for the reasons and under the guards of `assets.retraining`.
"""

import os

import dagster as dg

from assets.retraining import Situation, look_at
from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.profiles import load_profile
from dpo_pipeline.profiles.operation import OperationSettings
from resources.artifact_store import ArtifactHome
from resources.settings import PipelineSettings

TRAINS = {"dpo-pipeline/trains": "yes", "dagster/max_retries": "1"}
"""By the first tag `dagster.yaml` lets one such run go at a time; by the second a killed one is started once more."""

BY_DROP = dg.AssetSelection.assets(
    "raw_annotations", "judgments", "rejected_records", "demonstrations", "pair_sketches"
)
TABLES = dg.AssetSelection.assets("preference_pairs", "annotator_report")
TRAINING = dg.AssetSelection.assets("sft_checkpoint", "reference_logprobs", "dpo_checkpoint")
EVALUATION = dg.AssetSelection.assets("evaluation_report", "champion")
RELEASE = dg.AssetSelection.assets("release")

ingest = dg.define_asset_job("ingest", BY_DROP, description="Take in one drop: read, account for every record, sketch.")
train = dg.define_asset_job(
    "train", TABLES | TRAINING, tags=TRAINS, description="Tables from all drops, then SFT and DPO."
)
evaluate = dg.define_asset_job(
    "evaluate", EVALUATION, description="Compare the newest checkpoint on held-out data; promote it if better."
)
decide = dg.define_asset_job(
    "decide", dg.AssetSelection.assets("champion"), description="The gate alone; by hand with `promote` and a reason."
)
everything = dg.define_asset_job(
    "everything",
    TABLES | TRAINING | EVALUATION | RELEASE,
    tags=TRAINS,
    description="From all drops taken in to the release.",
)
JOBS = [ingest, train, evaluate, decide, everything]

tables_follow_drops = dg.AutomationConditionSensorDefinition(
    "tables_follow_drops",
    target=TABLES,
    default_status=dg.DefaultSensorStatus.STOPPED,
    minimum_interval_seconds=30,
    run_tags={"started_by": "tables_follow_drops"},
    description="Builds the tables again as soon as the judgments of a drop are new or changed.",
)


def operation_settings() -> OperationSettings:
    """Those of the profile the environment names; the defaults where it cannot be read, which each run then says."""
    try:
        return load_profile(os.environ.get("DPO_PIPELINE_PROFILE") or "demo").operation
    except PipelineError:
        return OperationSettings()


def _schedule() -> dg.ScheduleDefinition:
    operation = operation_settings()

    @dg.schedule(
        job=everything,
        cron_schedule=operation.retraining_cron,
        execution_timezone=operation.time_zone,
        description="Trains again if the drops changed since the newest checkpoint; the profile says when it looks.",
    )
    def retraining(
        context: dg.ScheduleEvaluationContext, home: ArtifactHome, settings: PipelineSettings
    ) -> dg.RunRequest | dg.SkipReason:
        """Request `everything`, or say why not."""
        situation = look_at(home.home, context.instance)
        if situation.hindrance is not None:
            return dg.SkipReason(situation.hindrance)
        return dg.RunRequest(run_key=None, tags=_tags("retraining", situation, settings))

    return retraining


retraining = _schedule()


@dg.sensor(
    job=everything,
    minimum_interval_seconds=60,
    description="Trains again when the profile's `operation.new_pairs` training pairs have come since the checkpoint.",
)
def enough_new_pairs(
    context: dg.SensorEvaluationContext, home: ArtifactHome, settings: PipelineSettings
) -> dg.RunRequest | dg.SkipReason:
    """Request `everything` once per table that has enough new pairs, or say why not."""
    wanted = settings.values.operation.new_pairs
    if wanted is None:
        return dg.SkipReason("the profile has no operation.new_pairs, so pairs alone start no training")
    situation = look_at(home.home, context.instance)
    if situation.hindrance is not None:
        return dg.SkipReason(situation.hindrance)
    if situation.new_pairs is None or situation.new_pairs < wanted:
        return dg.SkipReason(f"{situation.pairs_in_words}; training starts at {wanted:,}")
    return dg.RunRequest(run_key=situation.pairs_digest, tags=_tags("enough_new_pairs", situation, settings))


def _tags(name: str, situation: Situation, settings: PipelineSettings) -> dict[str, str]:
    return {"started_by": name, "why": situation.reason, "profile": settings.profile}
