"""The sensor that takes in what arrives in the inbox, each state of each drop once; off until switched on in the UI."""

import json
from collections.abc import Sequence

import dagster as dg

from assets.asking_again import Trouble, troubles
from assets.automation import ingest
from assets.tracked import DEFINITIONS, DROPS
from dpo_pipeline.annotations.arrivals import open_inbox, states_taken_in
from dpo_pipeline.annotations.deliveries import Delivery
from dpo_pipeline.core.artifacts import Recipe
from dpo_pipeline.core.home import Home
from resources.artifact_store import ArtifactHome
from resources.settings import PipelineSettings

SHOWN = 20
READ_AGAIN = ("judgments", "rejected_records", "demonstrations", "pair_sketches")


@dg.sensor(
    job=ingest,
    minimum_interval_seconds=30,
    description="Takes in each complete drop of the inbox, once; says why others wait or are passed over.",
)
def new_drops(
    context: dg.SensorEvaluationContext, home: ArtifactHome, settings: PipelineSettings
) -> dg.SensorResult | dg.SkipReason:
    """Request `ingest` for every drop that is complete and was not taken in, nor asked for, in this state before.

    One whose run failed is asked for again a few times; see `asking_again`.
    """
    asked: dict[str, str] = json.loads(context.cursor or "{}")
    deliveries = look(home.home, settings)
    taken_in = states_taken_in(home.home)
    complete = [delivery for delivery in deliveries if delivery.hindrance is None]
    failed = troubles(context.instance, {delivery.name: delivery.state for delivery in complete})
    known = {(name, state) for states in (asked, taken_in) for name, state in states.items()}
    due = {drop for drop, trouble in failed.items() if trouble.seconds_left == 0}
    unknown = {each.name for each in complete if (each.name, each.state) not in known} - failed.keys()
    new = [delivery for delivery in complete if delivery.name in unknown | due]
    held_up = in_words(deliveries) + [trouble.of(drop) for drop, trouble in failed.items() if drop not in due]
    if not new:
        return dg.SkipReason("; ".join([f"nothing new in {home.home.inbox_url}", *held_up]))
    for sentence in held_up:
        context.log.warning(sentence)
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                partition_key=delivery.name,
                run_key=_run_key(home.home, delivery, failed.get(delivery.name)),
                tags={"drop": delivery.name, "drop/state": delivery.state},
            )
            for delivery in new
        ],
        dynamic_partitions_requests=[DROPS.build_add_request([delivery.name for delivery in new])],
        cursor=json.dumps({**asked, **{delivery.name: delivery.state for delivery in new}}, sort_keys=True),
    )


def _run_key(home: Home, delivery: Delivery, failed: Trouble | None) -> str:
    """A state that comes back after another was taken in, or whose run failed, is a new request.

    Dagster passes over a key it had before.
    """
    if failed is not None:
        return f"{delivery.name}:{delivery.state}:after {failed.run}"
    line = home.latest_line("raw_annotations", delivery.name)
    return f"{delivery.name}:{delivery.state}:{line['seq'] if line else 'new'}"


def look(home: Home, settings: PipelineSettings) -> list[Delivery]:
    """What lies in the inbox of a home."""
    return open_inbox(home.inbox_url, rest_seconds=settings.values.operation.inbox_rest_seconds).look()


def is_read(home: Home, drop: str, settings: PipelineSettings) -> bool:
    """Whether the tables of a drop that was taken in are those of its newest files, today's readers and settings."""
    for asset in READ_AGAIN:
        line, definition = home.latest_line(asset, drop), DEFINITIONS[asset]
        if line is None or not home.store.path_of(asset, line["artifact"]).is_dir():
            return False
        made = home.latest(asset, drop)
        used = {name: getattr(settings.values, name).model_dump(mode="json") for name in definition.settings}
        reading = Recipe(definition.made[0].name, definition.code_version, {**used, "drop": drop}, made.parents)
        shaped = definition.also_shaped(home, reading) if definition.also_shaped else {}
        newest = {parent.kind: home.latest(parent.kind, drop).digest for parent in made.parents}
        if (
            made.manifest["code_version"] != definition.code_version
            or made.manifest["settings"] != {**reading.settings, **shaped}
            or any(newest[parent.kind] != parent.digest for parent in made.parents)
        ):
            return False
    return True


def in_words(deliveries: Sequence[Delivery]) -> list[str]:
    """A clause for each entry that is not taken in."""
    words = [
        f"{delivery.name!r} {'waits' if delivery.is_waiting else 'is passed over'}: {delivery.hindrance}"
        for delivery in deliveries
        if delivery.hindrance is not None
    ]
    return words[:SHOWN] + ([f"and {len(words) - SHOWN} more"] if len(words) > SHOWN else [])
