"""Jobs by name, the sensor that takes in new drops, the schedule that retrains; the last two off until switched on."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from assets.tracked import DROPS
from dpo_pipeline.core.digests import digest_of_json
from dpo_pipeline.core.home import DROP_NAME
from resources.artifact_store import ArtifactHome

COMPLETE_MARKER = "_COMPLETE"
QUIET_SECONDS = 60.0
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


@dg.sensor(job=ingest, minimum_interval_seconds=30, description="Takes in each complete drop of the inbox, once.")
def new_drops(context: dg.SensorEvaluationContext, home: ArtifactHome) -> dg.SensorResult | dg.SkipReason:
    """Request `ingest` for every drop that is complete and was not seen in this state before."""
    seen: dict[str, str] = json.loads(context.cursor or "{}")
    found = {folder.name: fingerprint for folder, fingerprint in complete_drops(home.home.inbox)}
    new = {name: fingerprint for name, fingerprint in found.items() if seen.get(name) != fingerprint}
    if not new:
        return dg.SkipReason(f"nothing new in {home.home.inbox}; a drop is a folder with {COMPLETE_MARKER}, or at rest")
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(partition_key=name, run_key=f"{name}:{fingerprint}") for name, fingerprint in new.items()
        ],
        dynamic_partitions_requests=[DROPS.build_add_request(sorted(new))],
        cursor=json.dumps({**seen, **new}, sort_keys=True),
    )


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


def complete_drops(inbox: Path) -> Iterator[tuple[Path, str]]:
    """Complete drop folders and a fingerprint of names, sizes and times that changes when any file does."""
    if not inbox.is_dir():
        return
    for folder in sorted(inbox.iterdir()):
        if folder.is_symlink() or not folder.is_dir() or not DROP_NAME.fullmatch(folder.name):
            continue
        files = {path: path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
        if not files:
            continue
        at_rest = time.time() - max(max(stat.st_mtime, stat.st_ctime) for stat in files.values()) > QUIET_SECONDS
        if at_rest or (folder / COMPLETE_MARKER).exists():
            state = [
                [path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns] for path, stat in files.items()
            ]
            yield folder, digest_of_json(state)[:16]
