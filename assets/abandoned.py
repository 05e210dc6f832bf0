"""Close what a killed process left open: ledger attempts, staging folders, Dagster runs and their place in the pool."""

import shutil
from collections.abc import Mapping
from typing import Any

import dagster as dg
import psutil

from assets.processes import is_alive
from dpo_pipeline.core.home import Home

UNFINISHED = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]


def close_abandoned(home: Home, instance: dg.DagsterInstance) -> list[str]:
    """Book every attempt whose process is dead as killed and free what it held; the attempts closed."""
    started: dict[str, Mapping[str, Any]] = {}
    for line in home.ledger.lines():
        if line["event"] == "started":
            started[line["attempt"]] = line
        elif line["event"] in {"finished", "failed", "killed"}:
            started.pop(line["attempt"], None)
    dead = [line for line in started.values() if not is_alive(line["process"])]
    for line in dead:
        same = {name: line[name] for name in ("attempt", "asset", "partition", "recipe")}
        home.ledger.append("killed", **same, reason="its process ended without a word", tracking=None)
    for run_id in dict.fromkeys(line["dagster_run"] for line in dead):
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status in UNFINISHED:
            instance.report_run_failed(run, "The process that performed this run was killed.")
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    for folder in (home.store.root / ".staging").glob("*"):
        if not psutil.pid_exists(int(folder.name.partition("-")[0])):
            shutil.rmtree(folder, ignore_errors=True)
    return [line["attempt"] for line in dead]
