"""What `dpo-pipeline champion` and `sweep` ask of Dagster and MLflow; the library reaches it through entry points."""

import os
from collections.abc import Sequence

from assets.champion import ALIAS
from assets.sweeps import POINTS_NAME
from assets.terminal import terminal
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import CHAMPION_KIND, champion_digest
from resources.mlflow_tracking import MlflowTracking


def follow_champion(home: Home) -> list[str]:
    """Point MLflow's alias at the ledger's champion, or take it away, from a terminal; what could not be done."""
    said: list[str] = []
    tracking = MlflowTracking(uri=os.environ.get("MLFLOW_TRACKING_URI") or "")
    tracking.move_alias(CHAMPION_KIND, ALIAS, champion_digest(home), home=home, warn=said.append)
    return said


def promote_by_hand(home: Home, profile: str, *, reason: str, person: str) -> bool:
    """Materialize `champion` from a terminal with a person's word; whether the run went through."""
    word = {"promote": True, "reason": reason, "person": person}
    with terminal(home, profile) as (_, run):
        return run("decide", config={"ops": {"champion": {"config": word}}})


def run_sweep(home: Home, profile: str, points: Sequence[str]) -> list[str]:
    """Make every point and the report from a terminal; a point made before is taken over. What was done, in sentences.

    A point that fails stops no other one; one that a person ends (Ctrl-C) ends the sweep.
    """
    said = []
    with terminal(home, profile) as (instance, run):
        instance.add_dynamic_partitions(POINTS_NAME, list(points))
        for number, point in enumerate(points, start=1):
            done = run("sweep", point)
            if not done and _was_ended(home, point):
                return [*said, f"STOPPED at {number} of {len(points)}, {point}. The same command goes on from here."]
            said.append(f"{number} of {len(points)}, {point}: {'done' if done else 'FAILED, the log above says why'}.")
        is_drawn = run("frontier")
    if not is_drawn:
        return [*said, "FAILED: the points could not be held up against each other, the log above says why."]
    return [*said, f"The frontier: {home.latest('sweep_report').path / 'report.html'}"]


def _was_ended(home: Home, point: str) -> bool:
    """Whether the newest line about the point says that it was killed, not that it failed."""
    events = [line["event"] for line in home.ledger.lines() if line.get("partition") == point]
    return events[-1:] == ["killed"]
