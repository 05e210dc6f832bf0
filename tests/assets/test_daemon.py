"""The shipped dagster.yaml under a real daemon: trainings one at a time, a killed one started once more.

The jobs here are stand-ins of seconds that bear the tags of `train` and `everything`; daemon, queue, launcher and code
server are the real ones.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time

import dagster as dg
import pytest
import yaml
from dagster._cli.job import _create_run
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from assets.automation import TRAINS, everything, train
from resources.instance import create_storage, prepare_instance

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads starts from /proc")]

JOBS = f"""
    import os, signal, time
    from pathlib import Path
    import dagster as dg

    HERE = Path(__file__).parent

    @dg.op
    def lasts():
        deadline = time.monotonic() + 60
        while not (HERE / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.1)

    @dg.op
    def is_short():
        pass

    @dg.op
    def is_killed_the_first_time():
        if not (HERE / "killed").exists():
            (HERE / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    @dg.op
    def fails_with_a_reason():
        raise dg.Failure("no drop has been taken in yet")

    @dg.job(tags={TRAINS!r}, executor_def=dg.in_process_executor)
    def trains():
        lasts()

    @dg.job(executor_def=dg.in_process_executor)
    def reads():
        is_short()

    @dg.job(tags={TRAINS!r}, executor_def=dg.in_process_executor)
    def killed():
        is_killed_the_first_time()

    @dg.job(tags={TRAINS!r}, executor_def=dg.in_process_executor)
    def fails():
        fails_with_a_reason()

    defs = dg.Definitions(jobs=[trains, reads, killed, fails])
"""


LOOKS_OFTEN = {
    "run_coordinator": {
        "module": "dagster.core.run_coordinator",
        "class": "QueuedRunCoordinator",
        "config": {"dequeue_interval_seconds": 1},
    }
}
"""The queue is looked at every second instead of every five; its limits are those shipped."""


def until(what, seconds=60):
    """Wait until `what` gives something, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.25)
    return found


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """An instance as `make ui` prepares it, its daemon at work; what queues jobs, and what lets trainings end."""
    from dpo_pipeline.core.home import Home

    root = tmp_path_factory.mktemp("daemon")
    (root / "stand_ins.py").write_text(textwrap.dedent(JOBS))
    where = {"python_file": {"relative_path": "stand_ins.py", "location_name": "stand-ins"}}
    (root / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [where]}))
    os.environ.pop("DAGSTER_HOME", None)
    environment = {**os.environ, **prepare_instance(Home(root / "home"))}
    with (root / "home" / "dagster" / "dagster.yaml").open("a") as file:
        file.write(yaml.safe_dump(LOOKS_OFTEN))
    create_storage()
    command = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(root / "workspace.yaml")]
    process = subprocess.Popen(command, env=environment, start_new_session=True)

    try:
        with (
            dg.DagsterInstance.get() as instance,
            WorkspaceProcessContext(instance, WorkspaceFileTarget([str(root / "workspace.yaml")])) as process_context,
        ):
            # The daemon passes over what failed before its first look.
            until(lambda: instance.get_daemon_statuses()["EVENT_LOG_CONSUMER"].last_heartbeat)
            yield lambda *jobs: launched(process_context.create_request_context(), *jobs), root / "go"
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def launched(workspace, *jobs):
    """Queue a run of each job, as `dagster job launch` does, without a code server for each; their ids."""
    [entry] = workspace.code_locations
    [repository] = entry.get_repositories().values()
    runs = [
        _create_run(
            instance=workspace.instance, code_location=entry, remote_repo=repository, run_id=None, run_config={},
            remote_job=repository.get_full_job(job), tags=None, op_selection=None,
        ) for job in jobs
    ]  # fmt: skip
    return [workspace.instance.submit_run(run.run_id, workspace).run_id for run in runs]


def ended(*runs):
    """The records of runs, once all of them have ended."""
    with dg.DagsterInstance.get() as instance:

        def look():
            records = [instance.get_run_record_by_id(run) for run in runs]
            return records if all(record and record.dagster_run.is_finished for record in records) else None

        return until(look)


def test_the_second_training_waits_until_the_first_has_ended_and_other_runs_do_not_wait(daemon):
    launch, go = daemon
    *trainings, reading = launch("trains", "trains", "reads")
    [read] = ended(reading)
    with dg.DagsterInstance.get() as instance:

        def states():
            return sorted(instance.get_run_by_id(run).status.value for run in trainings)

        until(lambda: "STARTED" in states())
        assert states() == ["QUEUED", "STARTED"]
    go.touch()
    earlier, later = sorted(ended(*trainings), key=lambda record: record.start_time)
    assert {each.dagster_run.status for each in (read, earlier, later)} == {dg.DagsterRunStatus.SUCCESS}
    assert later.start_time >= earlier.end_time


def test_a_killed_training_is_started_once_more_by_itself_and_one_that_failed_with_a_reason_is_not(daemon):
    launch, _ = daemon
    failed, killed = ended(*launch("fails", "killed"))
    assert [each.dagster_run.status.value for each in (failed, killed)] == ["FAILURE"] * 2
    with dg.DagsterInstance.get() as instance:

        def again(record):
            return instance.get_runs(dg.RunsFilter(tags={"dagster/root_run_id": record.dagster_run.run_id}))

        [retry] = until(lambda: again(killed))
        assert ended(retry.run_id)[0].dagster_run.status is dg.DagsterRunStatus.SUCCESS
        assert len(again(killed)) == 1
        assert again(failed) == []


def test_the_jobs_that_train_bear_the_tags_tried_here():
    for job in (train, everything):
        assert TRAINS.items() <= job.tags.items()
