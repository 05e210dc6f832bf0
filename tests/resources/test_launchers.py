"""Heavy work in a child: its words reach the log, its errors are sentences, and it dies with its parent."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import dagster as dg
import pytest

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.errors import TrainingError
from dpo_pipeline.dpo.settings import DpoSettings
from resources import launchers, warm
from resources.gpu import Gpu
from resources.warm import Line


def weigh(pairs: Path, out: Path, *, dpo: DpoSettings, reporter) -> Outcome:
    """A stand-in for a training: checks that plain values came back as the annotated types."""
    reporter.say(f"weighing {pairs.name}")
    reporter.metrics(1, {"loss": dpo.beta})
    (out / "weights.txt").write_text("w")
    return Outcome(counts={"rows": 1}, facts={"beta": dpo.beta}, remarks={"pid": os.getpid()})


def fail(out: Path, *, reporter) -> Outcome:
    raise TrainingError("loss is not finite at step 7", expected="a number", do="Lower the learning rate")


def crash(out: Path, *, reporter) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    return Outcome()


def stumble(out: Path, *, reporter) -> Outcome:
    return Outcome(counts={"rows": {}["no such row"]})


def leave(out: Path, *, reporter) -> Outcome:
    os._exit(3)


def swallow_interrupts(out: Path, *, reporter) -> Outcome:
    """Deaf to Python's way of stopping, as a long call into C is; a second attempt has nothing to do."""
    if (out / "pid").exists():
        return Outcome()
    (out / "pid.aside").write_text(str(os.getpid()))
    (out / "pid.aside").rename(out / "pid")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(0.1)
    return Outcome()


CHILDREN = ["child", pytest.param("forked", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux only"))]
children = pytest.mark.parametrize("launcher", CHILDREN)


def perform(tmp_path, launcher, function, **arguments):
    """Run `function` of this file through the GPU resource inside a real asset."""
    answers = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
    def training(context: dg.AssetExecutionContext, gpu: Gpu) -> dg.MaterializeResult:
        place = f"{Path(__file__).stem}:{function}"
        answers.append(gpu.perform(context, place, metrics=tmp_path / "progress.jsonl", out=tmp_path, **arguments))
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [training], instance=instance, resources={"gpu": Gpu(launcher=launcher)}, raise_on_error=False
        )
        said = [e.message for e in instance.all_logs(result.run_id) if e.dagster_event is None]
    return result, answers, said


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.mark.parametrize("launcher", ["inline", *CHILDREN])
def test_both_launchers_do_the_same_work(tmp_path, launcher):
    result, [outcome], said = perform(
        tmp_path, launcher, "weigh", pairs=Path("pairs.parquet"), dpo=DpoSettings(beta=0.3)
    )
    assert result.success
    assert (outcome.counts, outcome.facts) == ({"rows": 1}, {"beta": 0.3})
    assert (tmp_path / "weights.txt").exists()
    assert json.loads((tmp_path / "progress.jsonl").read_text())["loss"] == 0.3
    assert any("weighing pairs.parquet" in sentence for sentence in said)
    assert (outcome.remarks["pid"] == os.getpid()) == (launcher == "inline")


@children
def test_an_error_in_the_child_arrives_as_its_sentence_and_is_not_retried(tmp_path, launcher):
    result, _, _ = perform(tmp_path, launcher, "fail")
    failure = result.failure_data_for_node("training").user_failure_data
    assert failure.description == "loss is not finite at step 7. Expected: a number. Lower the learning rate."
    assert result.retry_attempts_for_node("training") == 0


@children
def test_a_child_killed_for_memory_says_what_to_change_and_may_be_retried(tmp_path, launcher):
    result, _, _ = perform(tmp_path, launcher, "crash")
    failure = result.failure_data_for_node("training").user_failure_data
    assert "Lower compute.batch_tokens" in failure.description
    assert result.retry_attempts_for_node("training") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="children are forked on Linux without a card")
def test_where_what_children_are_forked_from_was_killed_while_idle_another_is_started(tmp_path, monkeypatch):
    """As the system does it that is short of memory: the largest process with nothing to do goes first."""
    started, real = [], launchers._start_warm

    def start():
        started.append(real())
        if len(started) == 1:
            started[0][0].kill()
            started[0][0].wait()
        return started[-1]

    monkeypatch.setattr(launchers, "_start_warm", start)
    result, [outcome], _ = perform(tmp_path, "forked", "weigh", pairs=Path("pairs.parquet"), dpo=DpoSettings())
    assert result.success
    assert outcome.counts == {"rows": 1}
    assert result.retry_attempts_for_node("training") == 0
    assert len(started) == 2


def test_an_unforeseen_error_is_described_as_what_it_was_and_may_be_retried(tmp_path):
    result, _, _ = perform(tmp_path, "child", "stumble")
    failure = result.failure_data_for_node("training").user_failure_data
    assert "KeyError: 'no such row'" in failure.description
    assert "memory" not in failure.description
    assert result.retry_attempts_for_node("training") == 1


@children
def test_a_child_that_leaves_with_a_code_of_its_own_is_not_said_to_be_killed(tmp_path, launcher):
    result, _, _ = perform(tmp_path, launcher, "leave")
    failure = result.failure_data_for_node("training").user_failure_data
    assert "code 3" in failure.description
    assert "memory" not in failure.description


@children
def test_a_child_asked_to_stop_ends_at_once_whatever_it_is_doing(tmp_path, launcher):
    def ask():
        while not (tmp_path / "pid").exists():
            time.sleep(0.05)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGINT)

    threading.Thread(target=ask, daemon=True).start()
    result, _, _ = perform(tmp_path, launcher, "swallow_interrupts")
    assert result.success
    assert result.retry_attempts_for_node("training") == 1  # the first attempt did not live to give an answer


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for a signal on the parent's death")
def test_the_child_dies_with_its_parent():
    child = textwrap.dedent("""
        import sys, time
        from dpo_pipeline.core.parenthood import die_with_parent
        die_with_parent(int(sys.argv[1]))
        print("", flush=True)
        time.sleep(60)
    """)
    parent = textwrap.dedent(f"""
        import os, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", {child!r}, str(os.getpid())], stdout=subprocess.PIPE)
        child.stdout.readline()
        print(child.pid, flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


def describe(out: Path, *, reporter) -> Outcome:
    """Who does the work, and how it sees the world; a stand-in for a stage."""
    print(f"to stdout, from {os.getpid()}", flush=True)
    facts = {"pid": os.getpid(), "parent": os.getppid(), "torch": "torch" in sys.modules, "word": os.environ["WORD"]}
    return Outcome(facts=facts)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_children_of_one_run_are_forked_from_one_process_that_ends_with_the_run(tmp_path, monkeypatch, capfd):
    answers = []

    @dg.op(out=dg.Out(dg.Nothing))
    def first(context, gpu: Gpu):
        monkeypatch.setenv("WORD", "first")
        answers.append(gpu.perform(context, "test_launchers:describe", metrics=tmp_path / "m", out=tmp_path))

    @dg.op(ins={"first": dg.In(dg.Nothing)})
    def second(context, gpu: Gpu):
        monkeypatch.setenv("WORD", "second")
        answers.append(gpu.perform(context, "test_launchers:describe", metrics=tmp_path / "m", out=tmp_path))

    @dg.job(resource_defs={"gpu": Gpu(launcher="forked")})
    def run():
        second(first())

    assert run.execute_in_process().success
    one, other = (answer.facts for answer in answers)
    assert (one["word"], other["word"]) == ("first", "second")
    assert (one["torch"], other["torch"]) == (True, True), "it was imported before the fork"
    assert one["pid"] != other["pid"]
    assert one["parent"] == other["parent"] != os.getpid()
    assert not Path(f"/proc/{one['parent']}").exists()
    assert f"to stdout, from {one['pid']}" in capfd.readouterr().out


def kill_parent(out: Path, *, reporter) -> Outcome:
    """The process it was forked from is killed, as by the kernel for memory; a second attempt has nothing to do."""
    if not (out / "once").exists():
        (out / "once").touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(20)
    return Outcome()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_where_the_process_it_was_forked_from_is_killed_the_child_ends_and_a_retry_starts_anew(tmp_path):
    result, _, _ = perform(tmp_path, "forked", "kill_parent")
    assert result.success
    assert result.retry_attempts_for_node("training") == 1


def test_a_child_that_ended_just_as_it_was_to_be_stopped_is_no_error():
    """Otherwise the error would hide that somebody asked to stop, and the step would be tried again."""
    ours, theirs = socket.socketpair()
    with ours, theirs, subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
        Line(theirs).send(0)
        launchers._end(child.pid, Line(ours))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_a_child_deaf_to_being_asked_is_killed_and_waited_for(monkeypatch):
    """As it is in the moment after the fork, while it still ignores the signal as the process it comes from does."""
    monkeypatch.setattr(launchers, "STOP_SECONDS", 0.5)
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('', flush=True); time.sleep(60)"
    ours, theirs = socket.socketpair()
    with ours, theirs, subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        threading.Thread(target=lambda: Line(theirs).send(child.wait())).start()
        launchers._end(child.pid, Line(ours))
        assert child.returncode == -signal.SIGKILL


def test_a_fork_is_chosen_only_where_no_accelerator_is(monkeypatch, tmp_path):
    monkeypatch.setattr(launchers.sys, "platform", "linux")
    monkeypatch.setattr(launchers, "DRIVERS", (str(tmp_path / "nvidiactl"),))
    assert launchers.can_fork()
    (tmp_path / "nvidiactl").touch()
    assert not launchers.can_fork()
    assert type(Gpu()._choose()).__name__ == "ChildProcess"
    assert type(Gpu(launcher="forked")._choose()).__name__ == "ForkedChild"


def test_what_cannot_be_imported_ahead_is_left_to_the_child_that_needs_it(monkeypatch):
    monkeypatch.setattr(warm, "IMPORTED", ("no_such_module_anywhere",))
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        warm.serve(warm.Line(theirs))  # ends, for no order will come; and did not end before it could take one
