"""A stage done by several processes of this machine at once: how they are started, meet, and end together."""

import functools
import importlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist

from dpo_pipeline.core.errors import ProcessLostError
from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.core.parenthood import die_with_parent
from dpo_pipeline.modeling import processes
from dpo_pipeline.modeling.device import is_out_of_memory
from dpo_pipeline.modeling.settings import ComputeSettings

P = ParamSpec("P")
R = TypeVar("R")

LONGEST_WAIT = timedelta(minutes=30)
"""How long a process waits for the others: longer than writing a checkpoint takes."""
SECONDS_FOR_LAST_WORDS = 5.0
SECONDS_TO_NOTICE = 5.0
"""How long the first process has to notice by itself that another one is lost, before its exchanges are called off.

gloo notices at once. nccl does not: it would wait for LONGEST_WAIT where the loss falls into an exchange of gradients.
"""


def in_processes(function: Callable[P, R]) -> Callable[P, R]:
    """Have the function, which takes `compute` and `reporter` by name, done by `compute.processes` processes at once.

    This process is the first; the others are started here, do the same call, and end with it, however it ends.

    Raises:
        ProcessLostError: If one of the others ends before the work is done.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        compute = kwargs["compute"]
        assert isinstance(compute, ComputeSettings)
        if compute.processes == 1 or dist.is_initialized():
            return function(*args, **kwargs)
        with _Others((function.__module__, function.__qualname__), args, kwargs, compute) as others:
            try:
                return function(*args, **kwargs)
            except RuntimeError as error:
                if not is_out_of_memory(error) and (lost := others.lost()):
                    raise lost from error
                raise

    return call


class _Others:
    """The processes beside the first, from their start to their end."""

    def __init__(
        self, name: tuple[str, str], args: tuple[Any, ...], kwargs: Mapping[str, Any], compute: ComputeSettings
    ) -> None:
        self._call = (name, args, {**kwargs, "reporter": Quiet()})
        self._compute = compute
        self._is_over, self._asking = Event(), Lock()
        self._watch = Thread(target=self._watch_over, daemon=True)

    def __enter__(self) -> "_Others":
        self._folder = tempfile.TemporaryDirectory(prefix="dpo-pipeline-")
        meeting = str(Path(self._folder.name) / "meeting")
        context = multiprocessing.get_context("spawn")
        self._lines: list[Connection] = []
        self._processes: list[Any] = []
        for number in range(1, self._compute.processes):
            line, other_end = context.Pipe()
            process = context.Process(
                target=_work_along, args=(number, meeting, os.getpid(), other_end, *self._call), daemon=True
            )
            process.start()
            other_end.close()
            self._lines.append(line)
            self._processes.append(process)
        try:
            self._wait_until_all_are_there()
            _join(0, self._compute, meeting)
            processes.begin()
            self._watch.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def lost(self) -> ProcessLostError | None:
        """The end of one of the others, in words, if one of them has ended or ends within seconds."""
        ended = wait([process.sentinel for process in self._processes], timeout=SECONDS_FOR_LAST_WORDS)
        for number, (process, line) in enumerate(zip(self._processes, self._lines, strict=True), start=1):
            if process.sentinel not in ended:
                continue
            with self._asking:
                process.join()  # its pipe closes a moment before its exit code can be had
            words = _last_words(line) or f"it was killed by signal {-process.exitcode}, most often for memory"
            return ProcessLostError(
                f"process {number + 1} of {self._compute.processes} ended: {words}",
                do="A retry resumes from the last checkpoint; lower compute.batch_tokens if memory ran out",
            )
        return None

    def _wait_until_all_are_there(self) -> None:
        for process, line in zip(self._processes, self._lines, strict=True):
            wait([line, process.sentinel])
            if not line.poll() or line.recv() != "here":
                raise self.lost() or ProcessLostError("a process of this training ended as it began")

    def _watch_over(self) -> None:
        """Call the exchanges off if another process ends badly and this one has not noticed after a while."""
        while not self._is_over.wait(1.0):
            with self._asking:
                is_lost = any(process.exitcode for process in self._processes)
            if is_lost and not self._is_over.wait(SECONDS_TO_NOTICE):
                processes.call_off()
                return

    def _end(self) -> None:
        self._is_over.set()
        if self._watch.ident is not None:
            self._watch.join()
        for process in self._processes:
            process.kill()
        for process, line in zip(self._processes, self._lines, strict=True):
            process.join()
            line.close()
        if dist.is_initialized():
            dist.destroy_process_group()
        self._folder.cleanup()


def _work_along(
    number: int,
    meeting: str,
    parent: int,
    line: Connection,
    name: tuple[str, str],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> None:
    """The life of a process that is not the first: the same call, without a word."""
    die_with_parent(parent)
    try:
        function = getattr(importlib.import_module(name[0]), name[1])
        line.send("here")
        _join(number, kwargs["compute"], meeting)
        function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  told to the first process, whatever it is
        line.send(f"{type(error).__name__}: {error}")
        sys.exit(1)


def _join(number: int, compute: ComputeSettings, meeting: str) -> None:
    if sys.platform == "linux":
        # gloo would ask the host's name for an address; these processes are on one machine.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    on_cards = compute.device == "cuda" or (compute.device == "auto" and torch.cuda.is_available())
    if on_cards and torch.cuda.device_count() > number:
        torch.cuda.set_device(number)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_cards and torch.cuda.is_available() else "gloo",
        init_method=Path(meeting).as_uri(),
        rank=number,
        world_size=compute.processes,
        timeout=LONGEST_WAIT,
    )


def _last_words(line: Connection) -> str:
    words = ""
    try:
        while line.poll():
            words = line.recv()
    except EOFError:
        pass
    return "" if words == "here" else words
