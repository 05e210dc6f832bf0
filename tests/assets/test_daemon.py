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
import uuid

import dagster as dg
import pytest
import yaml

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


def until(what, seconds=60):
    """Wait until `what` gives something, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.25)
    return found


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """An instance as `make ui` prepares it, its daemon at work; a function that launches a job from a terminal."""
    from dpo_pipeline.core.home import Home

    root = tmp_path_factory.mktemp("daemon")
    (root / "stand_ins.py").write_text(textwrap.dedent(JOBS))
    where = {"python_file": {"relative_path": "stand_ins.py", "location_name": "stand-ins"}}
    (root / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [where]}))
    os.environ.pop("DAGSTER_HOME", None)
    environment = {**os.environ, **prepare_instance(Home(root / "home"))}
    create_storage()
    command = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(root / "workspace.yaml")]
    process = subprocess.Popen(command, env=environment, start_new_session=True)

    def launch(*jobs):
        """Queue a run of each job, as the UI's button does; their ids."""
        command = [sys.executable, "-m", "dagster", "job", "launch", "-w", str(root / "workspace.yaml")]
        runs = [str(uuid.uuid4()) for _ in jobs]
        launching = [
            subprocess.Popen([*command, "-j", job, "--run-id", run], env=environment, stderr=subprocess.DEVNULL)
            for job, run in zip(jobs, runs, strict=True)
        ]
        assert [each.wait(timeout=90) for each in launching] == [0] * len(jobs)
        return runs

    try:
        with dg.DagsterInstance.get() as instance:  # it passes over what failed before its first look
            until(lambda: instance.get_daemon_statuses()["EVENT_LOG_CONSUMER"].last_heartbeat)
        yield launch, root / "go"
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


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
