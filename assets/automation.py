"""Jobs by name, and the schedule that retrains, off until switched on."""

import os

import dagster as dg

from resources.artifact_store import ArtifactHome

RETRAINING_CRON = os.environ.get("DPO_PIPELINE_RETRAINING_CRON", "0 3 * * *")

BY_DROP = dg.AssetSelection.assets(
    "raw_annotations", "judgments", "rejected_records", "demonstrations", "pair_sketches"
)
TABLES = dg.AssetSelection.assets("preference_pairs", "annotator_report")
TRAINING = dg.AssetSelection.assets("sft_checkpoint", "reference_logprobs", "dpo_checkpoint")
EVALUATION = dg.AssetSelection.assets("evaluation_report", "champion")
RELEASE = dg.AssetSelection.assets("release")

ingest = dg.define_asset_job("ingest", BY_DROP, description="Take in one drop: read, account for every record, sketch.")
train = dg.define_asset_job("train", TABLES | TRAINING, description="Tables from all drops, then SFT and DPO.")
evaluate = dg.define_asset_job(
    "evaluate", EVALUATION, description="Compare the newest checkpoint on held-out data; promote it if better."
)
everything = dg.define_asset_job(
    "everything", TABLES | TRAINING | EVALUATION | RELEASE, description="From all drops taken in to the release."
)
JOBS = [ingest, train, evaluate, everything]


@dg.schedule(job=everything, cron_schedule=RETRAINING_CRON, description="Trains again, if the drops changed since.")
def retraining(home: ArtifactHome) -> dg.RunRequest | dg.SkipReason:
    """Request `everything` unless the newest DPO checkpoint already rests on the newest judgments of every drop."""
    current = home.home
    drops = {f"judgments/{drop}": current.latest("judgments", drop).digest for drop in current.partitions("judgments")}
    if not drops:
        return dg.SkipReason("no drop has been taken in yet")
    if current.latest_line("dpo_checkpoint") is None:
        return dg.RunRequest(run_key=None)
    pairs = next(p for p in current.latest("dpo_checkpoint").parents if p.kind == "preference_pairs")
    used = {p.role: p.digest for p in current.store.get(pairs.kind, pairs.digest).parents if p.kind == "judgments"}
    if used == drops:
        return dg.SkipReason(f"the newest checkpoint already rests on all {len(drops)} drops")
    return dg.RunRequest(run_key=None)
