"""How heavy work is started: in a child process that dies with its parent, or in this process for small tests."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import dagster as dg

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.books import Books
from resources.child import perform
from resources.warm import Line

STOP_SECONDS = 10
STREAMS = (1, 2)
"""Stdout and stderr of this process: Dagster points them at a run's own log while the run goes on."""
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What Linux shows where a driver of NVIDIA, AMD or WSL is loaded."""


class Launcher(Protocol):
    """Something that performs a library call elsewhere and brings its outcome back."""

    def launch(self, context: dg.AssetExecutionContext, work: "Work") -> Outcome:
        """Perform the work, stream its progress to the context's log and return its outcome."""
        ...

    def close(self) -> None:
        """Let go of what it keeps between two pieces of work."""
        ...


class Work(dict[str, Any]):
    """A library call in plain values: `function` ("dpo_pipeline.dpo.train:train_dpo"), `arguments`, `metrics`."""


class ChildProcess:
    """Runs the call in a fresh Python process over Dagster Pipes.

    The child holds the accelerator's memory and gives all of it back when it ends; it is terminated with the run and
    dies with its parent.
    """

    def launch(self, context: dg.AssetExecutionContext, work: Work) -> Outcome:
        """Start the child, forward its messages, and return what it wrote as its answer."""
        with tempfile.TemporaryDirectory(prefix="dpo-pipeline-") as folder:
            answer = Path(folder) / "answer.json"
            with dg.open_pipes_session(
                context=context.op_execution_context,
                context_injector=dg.PipesEnvContextInjector(),
                message_reader=dg.PipesTempFileMessageReader(),
                extras={**work, "answer": str(answer)},
            ) as session:
                code = self._run({**os.environ, **session.get_bootstrap_env_vars()})
            if not answer.exists():
                raise _crash(code)
            return _outcome(json.loads(answer.read_text(encoding="utf-8")))

    def close(self) -> None:
        """Nothing is kept."""

    def _run(self, environment: Mapping[str, str]) -> int:
        """The exit code of a child with this environment; negative where a signal ended it."""
        command = [sys.executable, "-m", "resources.child", str(os.getpid())]
        process = subprocess.Popen(command, env=environment)  # noqa: S603
        try:
            return process.wait()
        except BaseException:  # Dagster's word to stop, or a person's
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise


class ForkedChild(ChildProcess):
    """The same, but the child is forked from a process that has imported everything already; see `resources.warm`."""

    def __init__(self) -> None:
        self._warm: tuple[subprocess.Popen[bytes], Line] | None = None

    def close(self) -> None:
        """End the process that children are forked from; a child still at work ends with it."""
        if self._warm is not None:
            process, line = self._warm
            self._warm = None
            line.end.close()
            process.kill()
            process.wait()

    def _run(self, environment: Mapping[str, str]) -> int:
        code, is_begun = self._run_once(environment)
        if not is_begun:  # what it is forked from was killed while it had nothing to do
            code, _ = self._run_once(environment)
        return code

    def _run_once(self, environment: Mapping[str, str]) -> tuple[int, bool]:
        """The child's exit code, and whether there was a child at all."""
        if self._warm is None:
            self._warm = _start_warm()
        process, line = self._warm
        child = None
        try:
            line.send(dict(environment), STREAMS)
            if (answer := line.receive()) is not None:
                child = answer[0]
                answer = line.receive()
        except (BrokenPipeError, ConnectionResetError):
            answer = None
        except BaseException:  # Dagster's word to stop, or a person's
            if child is not None:
                _end(child, line)
            self.close()
            raise
        if answer is None:  # the process it is forked from ended, and the child with it
            code = process.wait()
            self.close()
            return code, child is not None
        return answer[0], True


class InThisProcess:
    """Runs the call right here: no isolation, no start-up cost. The double for tests."""

    def launch(self, context: dg.AssetExecutionContext, work: Work) -> Outcome:
        """Perform the call and return its outcome; its errors reach the caller as they are."""
        return perform(work, say=context.log.info)

    def close(self) -> None:
        """Nothing is kept."""


def can_fork() -> bool:
    """Whether children may be forked here: Linux, and no accelerator whose driver a fork would break."""
    return sys.platform == "linux" and not any(Path(driver).exists() for driver in DRIVERS)


def _start_warm() -> tuple["subprocess.Popen[bytes]", Line]:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "resources.warm", str(os.getpid()), str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603
    return process, Line(ours)


def _end(child: int, line: Line) -> None:
    """Ask a forked child to stop, and wait until it has: it may be writing where its parent clears up next."""
    line.end.settimeout(STOP_SECONDS)
    for word in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # it may have ended just as it was to be stopped
            os.kill(child, word)
        with contextlib.suppress(TimeoutError):
            line.receive()
            return


def _crash(code: int) -> dg.Failure:
    # Of a child of its own a shell reports SIGKILL as 137.
    killed = code in {-signal.SIGKILL, 137}
    how = "it was killed, most often for memory" if killed else f"it left with code {code}"
    change = "Lower compute.batch_tokens or switch on compute.gradient_checkpointing; a retry" if killed else "A retry"
    return dg.Failure(
        description=(
            f"The child process ended without an answer: {how}. "
            f"Its log is above under stdout/stderr. {change} resumes from the last checkpoint."
        )
    )


def _outcome(answer: Mapping[str, Any]) -> Outcome:
    if "error" in answer:
        raise dg.Failure(
            description=answer["error"], metadata={"kind": answer["kind"]}, allow_retries=not answer["foreseen"]
        )
    books = answer["books"]
    return Outcome(
        counts=answer["counts"],
        facts=answer["facts"],
        books=None if books is None else Books.from_dict(books),
        remarks=answer["remarks"],
    )
