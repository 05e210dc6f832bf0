"""The sensor that reads a drop again once somebody's work in it is taken back; off until switched on in the UI."""

from collections.abc import Iterator

import dagster as dg

from assets.arrivals import READ_AGAIN
from assets.automation import ingest
from resources.artifact_store import ArtifactHome


@dg.sensor(
    job=ingest,
    minimum_interval_seconds=60,
    description="Reads a drop again whose tables still hold what a tombstone (`lineage forget`) took back.",
)
def forgotten(home: ArtifactHome) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request the tables of every such drop, once per tombstone."""
    from dpo_pipeline.annotations.tombstones import drops_to_read_again, tombstones

    drops = drops_to_read_again(home.home)
    if not drops:
        yield dg.SkipReason("no table in use holds anything that a tombstone took back")
    for drop in drops:
        yield dg.RunRequest(
            partition_key=drop,
            run_key=f"{drop}:{tombstones(home.home)[-1].number}",
            asset_selection=[dg.AssetKey(asset) for asset in READ_AGAIN],
            tags={"drop": drop},
        )
