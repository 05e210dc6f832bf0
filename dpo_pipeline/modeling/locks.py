"""One trainer per work folder: a lock that a dead owner never keeps."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpo_pipeline.core.errors import TrainingError

LOCK = "lock"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the kernel lets go of it when the process ends, however it ends.

    The lock file also names its owner (boot, process, start time), for file systems on which locks do not reach other
    machines' processes and for people.

    Raises:
        TrainingError: If another living process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _held(folder, _owner(stream)) from error
        if (owner := _owner(stream)) and owner != _identity(os.getpid()) and _lives(owner):
            raise _held(folder, owner)
        _write(stream, _identity(os.getpid()))
        try:
            yield
        finally:
            _write(stream, {})


def _identity(pid: int) -> dict[str, Any]:
    """Boot, process id and start time in clock ticks: together they name a process for good."""
    return {"boot_id": _boot_id(), "pid": pid, "started_ticks": _start_ticks(pid)}


def _lives(owner: Mapping[str, Any]) -> bool:
    return owner == _identity(owner["pid"]) and owner["started_ticks"] is not None


def _boot_id() -> str | None:
    return BOOT_ID.read_text(encoding="ascii").strip() if BOOT_ID.exists() else None


def _start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/<pid>/stat; the name in field 2 may hold spaces and parentheses. None where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])


def _owner(stream: Any) -> dict[str, Any]:
    stream.seek(0)
    try:
        return json.loads(stream.read() or "{}")
    except ValueError:
        return {}


def _write(stream: Any, identity: Mapping[str, Any]) -> None:
    stream.seek(0)
    stream.truncate()
    stream.write(json.dumps(identity))
    stream.flush()
    os.fsync(stream.fileno())


def _held(folder: Path, owner: Mapping[str, Any]) -> TrainingError:
    return TrainingError(
        f"another training, process {owner.get('pid', 'unknown')}, is at work in {folder}",
        expected="one training per work folder",
        do="Wait for it to end, or stop it; its checkpoints will be found",
    )
