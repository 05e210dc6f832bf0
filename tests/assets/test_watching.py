"""Runs whose process is dead are reported failed, living ones are not; every failure is told with its reason."""

import os
import subprocess
import sys
import time

import dagster as dg
import pytest
from dagster._core.events import EngineEventData

from assets.dead_runs import LOST_SECONDS, dead_runs, fail_dead_runs, lost_runs
from assets.watching import failure_alerts, killed_runs
from resources.alerts import Alerts, Failed
from resources.artifact_store import ArtifactHome


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def gone():
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def run_by(instance, *pids, status=dg.DagsterRunStatus.STARTED):
    run = instance.create_run_for_job(dg.job(name="train")(lambda: None), status=status)
    for pid in pids:
        instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
    return run


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
def test_a_run_whose_process_is_gone_is_reported_failed_once_and_its_place_is_free(instance, gone, status):
    run = run_by(instance, gone, status=status)
    storage = instance.event_log_storage
    storage.set_concurrency_slots("gpu", 1)
    storage.claim_concurrency_slot("gpu", run.run_id, "sft_checkpoint")
    assert fail_dead_runs(instance) == [f"run {run.run_id} of train was reported failed: its process {gone} is gone"]
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    assert storage.get_concurrency_info("gpu").active_slot_count == 0
    assert fail_dead_runs(instance) == []


def test_a_run_whose_process_lives_or_that_never_named_one_or_has_ended_is_left_alone(instance, gone):
    run_by(instance, os.getpid())
    run_by(instance, gone, os.getpid())  # resumed by another process
    run_by(instance)
    run_by(instance, gone, status=dg.DagsterRunStatus.SUCCESS)
    assert list(dead_runs(instance)) == []


def test_a_process_younger_than_the_word_of_the_run_is_another_one(instance, monkeypatch):
    run = run_by(instance, os.getpid())
    monkeypatch.setattr("psutil.Process.create_time", lambda self: 4e9)
    assert [found.run_id for found, _ in dead_runs(instance)] == [run.run_id]


def test_a_run_that_was_written_down_and_never_started_is_nobodys_after_a_while(instance, monkeypatch):
    run = run_by(instance, status=dg.DagsterRunStatus.NOT_STARTED)
    assert lost_runs(instance) == []
    now = time.time()
    monkeypatch.setattr("assets.dead_runs.time.time", lambda: now + LOST_SECONDS + 1)
    assert fail_dead_runs(instance) == [f"run {run.run_id} of train was reported failed: it was never started"]
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    assert fail_dead_runs(instance) == []


def test_a_zombie_is_not_alive(instance):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        run_by(instance, process.pid)
        assert len(list(dead_runs(instance))) == 1


def test_nothing_is_said_of_runs_on_other_machines(instance, gone, monkeypatch):
    run_by(instance, gone)

    class K8sRunLauncher:
        pass

    monkeypatch.setattr(type(instance), "run_launcher", K8sRunLauncher())
    assert list(dead_runs(instance)) == []


def test_the_sensor_says_what_it_did_and_is_on_from_the_start(instance, home, gone):
    assert killed_runs.default_status == failure_alerts.default_status == dg.DefaultSensorStatus.RUNNING
    resources = {"home": ArtifactHome(folder=str(home.root))}
    with dg.build_sensor_context(instance=instance, resources=resources) as context:
        quiet = killed_runs(context)
    assert quiet.skip_message == "every run in progress has a living process"
    run = run_by(instance, gone)
    with dg.build_sensor_context(instance=instance, resources=resources) as context:
        said = killed_runs(context).skip_message
    assert said == f"run {run.run_id} of train was reported failed: its process {gone} is gone"


class Remembered(Alerts):
    """A channel that keeps what it was told."""

    def send(self, failed):
        TOLD.append(failed)
        return "the channel is away"


TOLD: list[Failed] = []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            dg.Failure(description="no memory left. Lower compute.batch_tokens."),
            "no memory left. Lower compute.batch_tokens.",
        ),
        (ValueError("unforeseen"), "ValueError: unforeseen"),
    ],
)
def test_a_failure_is_told_with_its_reason_and_a_channel_that_is_away_breaks_nothing(instance, error, reason):
    TOLD.clear()

    @dg.op
    def sft():
        raise error

    @dg.job(tags={"dagster/partition": "may"})
    def train():
        sft()

    result = train.execute_in_process(instance=instance, raise_on_error=False)
    context = dg.build_run_status_sensor_context(
        sensor_name="failure_alerts",
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        dagster_event=result.get_run_failure_event(),
        resources={"alerts": Remembered()},
    ).for_run_failure()
    failure_alerts(context)
    assert [Failed(result.run_id, "train", "may", "a person", [f"sft: {reason}"])] == TOLD
