"""Runs that Dagster still shows as going on though their process is dead; found by looking at the process itself.

Dagster's run monitoring asks its launcher, and the launcher of a single machine answers nothing; only a code server
that still lives tells of a crash. After a power cut, or when both were killed, such a run stays STARTED for ever. And a
run whose maker was killed between writing it down and handing it on stays NOT_STARTED: no process, and nobody's.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import psutil
from dagster import DagsterEventType

LOST_SECONDS = 600
"""After so long a run that was never handed on will not be: launching takes seconds, also on a busy machine."""

IN_PROGRESS = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def dead_runs(instance: dg.DagsterInstance) -> Iterator[tuple[dg.DagsterRun, int]]:
    """Runs in progress whose process does not live, and that process's id.

    Only of a launcher that starts processes on this machine: of others nothing can be said from here.
    """
    if type(instance.run_launcher).__name__ not in {"DefaultRunLauncher", "SyncInMemoryRunLauncher"}:
        return
    for run in instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS)):
        said = _last_process_of(instance, run.run_id)
        if said is None or _lives(*said):
            continue
        now = instance.get_run_by_id(run.run_id)  # it may have ended properly between the two looks
        if now is not None and now.status in IN_PROGRESS:
            yield now, said[0]


def lost_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Runs that were written down a good while ago and never handed on to be started."""
    before = datetime.fromtimestamp(time.time() - LOST_SECONDS, UTC)
    lost = dg.RunsFilter(statuses=[dg.DagsterRunStatus.NOT_STARTED], created_before=before)
    return list(instance.get_runs(lost))


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report dead and lost runs as failed and free their places in the pools; a sentence for each."""
    said = []
    for run in lost_runs(instance):
        instance.report_run_failed(run, "This run was written down and never started. Start it again if it is wanted.")
        said.append(f"run {run.run_id} of {run.job_name} was reported failed: it was never started")
    for run, pid in dead_runs(instance):
        sentence = f"The process of this run ({pid}) is gone: killed, out of memory, or the machine went down."
        instance.report_run_failed(run, f"{sentence} Start it again; a training goes on from its last checkpoint.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        said.append(f"run {run.run_id} of {run.job_name} was reported failed: its process {pid} is gone")
    return said


def _last_process_of(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float] | None:
    """Id of the process that last said it performs the run, and when it said so."""
    for entry in reversed(instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT)):
        event = entry.dagster_event
        pid = event.engine_event_data.metadata.get("pid") if event is not None else None
        if pid is not None and str(pid.value).isdigit():
            return int(str(pid.value)), entry.timestamp
    return None


def _lives(pid: int, said_at: float) -> bool:
    """Whether the process is there, is no zombie, and is older than its word (ids are used again)."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= said_at + 1.0
    except psutil.NoSuchProcess:
        return False
