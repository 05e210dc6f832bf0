"""Close what a killed process left open: ledger attempts, staging folders, Dagster runs and their place in the pool."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from assets.attempt import end_line
from dpo_pipeline.core.home import Home
from resources.processes import is_alive

UNFINISHED = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]


def close_abandoned(home: Home, instance: dg.DagsterInstance) -> list[str]:
    """Book every attempt whose process is dead as killed and free what it held; the attempts closed."""
    with home.alone("abandoned"):  # sensors and terminals look at once; each attempt ends once
        silent = [key for key, line in _open_attempts(home).items() if not is_alive(line["process"])]
        # Read once more: one may have ended properly between the first reading and the look at its process.
        still_open = _open_attempts(home) if silent else {}
        dead = [still_open[key] for key in silent if key in still_open]
        for line in dead:
            end_line(home, line, "killed", reason="its process ended without a word", tracking=None)
    for run_id in dict.fromkeys(line["dagster_run"] for line in dead):
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status in UNFINISHED:
            instance.report_run_failed(run, "The process that performed this run was killed.")
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    for folder in (home.store.root / ".staging").glob("*"):
        if _is_ownerless(folder):
            shutil.rmtree(folder, ignore_errors=True)
    return [line["attempt"] for line in dead]


def _open_attempts(home: Home) -> dict[str, Mapping[str, Any]]:
    """The `started` line of each attempt without an end, by its key."""
    started: dict[str, Mapping[str, Any]] = {}
    for line in home.ledger.lines():
        if line["event"] == "started":
            started[line["attempt"]] = line
        elif line["event"] in {"finished", "failed", "killed"}:
            started.pop(line["attempt"], None)
    return started


def _is_ownerless(folder: Path) -> bool:
    """Whether the process whose id a staging folder bears is gone, or is another that got the same id later."""
    try:
        owner = psutil.Process(int(folder.name.partition("-")[0]))
        return owner.create_time() > folder.stat().st_ctime + 1.0
    except psutil.NoSuchProcess:
        return True
    except (ValueError, FileNotFoundError, psutil.AccessDenied):
        return False
