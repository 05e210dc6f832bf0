"""Whether a drop whose run failed is asked for again, and when: a full disk or a store that was away passes.

A delivery that cannot be used fails no run, so what fails has a cause outside of it. It is asked for again three times
with growing pauses; then a person has to look. Only what the sensor asked for itself is counted: who terminates a run,
or materializes the drop by hand, has decided for themselves.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

PAUSES_SECONDS = (300, 1_800, 7_200)
LOOKED_BACK_SECONDS = 7 * 86_400
JOB, PARTITION, STATE = "ingest", "dagster/partition", "drop/state"


@dataclass(frozen=True, slots=True)
class Trouble:
    """A drop the newest run of which failed.

    Attributes:
        run: The id of that run.
        failures: How many runs of this state failed one after another.
        seconds_left: How long to wait before it is asked for again; 0 where that is now, None where never.
    """

    run: str
    failures: int
    seconds_left: float | None

    def of(self, drop: str) -> str:
        """A clause for a person."""
        times = "once" if self.failures == 1 else f"{self.failures} times"
        failed = f"{drop!r} failed {times} as it is, see run {self.run[:8]}"
        if self.seconds_left is None:
            return f"{failed}; it is not asked for again: mend the cause, then start the job {JOB} for it by hand"
        return f"{failed}; it is asked for again in {self.seconds_left / 60:.0f} min"


def troubles(instance: dg.DagsterInstance, states: Mapping[str, str]) -> dict[str, Trouble]:
    """The drops in trouble, by name.

    Args:
        instance: Whose runs.
        states: The state of each drop that lies in the inbox.
    """
    since = datetime.fromtimestamp(time.time() - LOOKED_BACK_SECONDS, UTC)
    failed = dg.RunsFilter(job_name=JOB, statuses=[dg.DagsterRunStatus.FAILURE], created_after=since)
    drops = {run.tags.get(PARTITION, "") for run in instance.get_runs(failed)}
    found = {drop: _trouble(instance, drop, states[drop]) for drop in sorted(drops & states.keys())}
    return {drop: trouble for drop, trouble in found.items() if trouble is not None}


def _trouble(instance: dg.DagsterInstance, drop: str, state: str) -> Trouble | None:
    # Of any job: "Materialize" on an asset's page starts another one than the sensor does.
    of_drop = dg.RunsFilter(tags={PARTITION: drop})
    records = instance.get_run_records(of_drop, limit=len(PAUSES_SECONDS) + 1)
    failures = 0
    for record in records:
        run = record.dagster_run
        if run.status is not dg.DagsterRunStatus.FAILURE or run.tags.get(STATE) != state:
            break
        failures += 1
    if not failures:
        return None
    ended = records[0].end_time or records[0].update_timestamp.timestamp()
    left = PAUSES_SECONDS[failures - 1] - (time.time() - ended) if failures <= len(PAUSES_SECONDS) else None
    return Trouble(records[0].dagster_run.run_id, failures, None if left is None else max(0.0, left))
