"""After a killed process: its attempts are booked as killed, its staging folders and place in the pool freed."""

import subprocess
import sys

import dagster as dg

from assets.abandoned import close_abandoned
from resources.processes import is_alive, this_process

ATTEMPT = {"asset": "sft_checkpoint", "partition": None, "recipe": "r"}


def gone():
    """The facts of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return this_process() | {"pid": process.pid}


def test_attempts_of_dead_processes_are_booked_as_killed_once_and_living_ones_left_alone(home):
    home.ledger.append("started", attempt="a", dagster_run="dead", process=gone(), **ATTEMPT)
    home.ledger.append("started", attempt="b", dagster_run="live", process=this_process(), **ATTEMPT)
    home.ledger.append("started", attempt="c", dagster_run="done", process=gone(), **ATTEMPT)
    home.ledger.append("finished", attempt="c", artifact="x", **ATTEMPT)
    with dg.DagsterInstance.ephemeral() as instance:
        assert close_abandoned(home, instance) == ["a"]
        assert close_abandoned(home, instance) == []
    assert [line["attempt"] for line in home.ledger.lines() if line["event"] == "killed"] == ["a"]
    assert home.ledger.verify() == []


def test_an_attempt_that_ends_properly_while_one_looks_is_not_booked_as_killed(home, monkeypatch):
    home.ledger.append("started", attempt="a", dagster_run="r", process=gone(), **ATTEMPT)

    def finishes_then_ends(_process):
        home.ledger.append("finished", attempt="a", artifact="x", **ATTEMPT)
        return False

    monkeypatch.setattr("assets.abandoned.is_alive", finishes_then_ends)
    with dg.DagsterInstance.ephemeral() as instance:
        assert close_abandoned(home, instance) == []
    assert [line["event"] for line in home.ledger.lines()] == ["started", "finished"]


def test_the_run_fails_and_its_place_in_the_pool_is_free_again(home):
    with dg.instance_for_test() as instance:
        run = instance.create_run_for_job(dg.job(name="train")(lambda: None), status=dg.DagsterRunStatus.STARTED)
        storage = instance.event_log_storage
        storage.set_concurrency_slots("gpu", 1)
        storage.claim_concurrency_slot("gpu", run.run_id, "sft_checkpoint")
        home.ledger.append("started", attempt="a", dagster_run=run.run_id, process=gone(), **ATTEMPT)
        close_abandoned(home, instance)
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
        assert storage.get_concurrency_info("gpu").active_slot_count == 0


def test_staging_folders_of_dead_processes_are_removed_and_others_kept(home):
    staging = home.store.root / ".staging"
    for name in (f"{gone()['pid']}-x", f"{this_process()['pid']}-y"):
        (staging / name).mkdir(parents=True)
    with dg.DagsterInstance.ephemeral() as instance:
        close_abandoned(home, instance)
    assert [folder.name.partition("-")[2] for folder in staging.iterdir()] == ["y"]


def test_a_recycled_pid_is_not_the_process_that_was():
    assert is_alive(this_process())
    assert not is_alive(this_process() | {"started": 1.0})
