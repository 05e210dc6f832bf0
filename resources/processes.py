"""Which process opened an attempt, told so that a later process can say whether it still lives."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil


def this_process() -> dict[str, Any]:
    """Enough to tell later whether the process that opened an attempt still lives, also after a restart."""
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    return {
        "boot_id": boot_id.read_text(encoding="ascii").strip() if boot_id.exists() else None,
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def is_this(process: Mapping[str, Any]) -> bool:
    """Whether a process is the one that asks."""
    return process["pid"] == os.getpid() and is_alive(process)


def is_alive(process: Mapping[str, Any]) -> bool:
    """Whether the process that opened an attempt still runs: same boot, same pid, same start."""
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    if boot_id.exists() and process["boot_id"] != boot_id.read_text(encoding="ascii").strip():
        return False
    try:
        return abs(psutil.Process(process["pid"]).create_time() - process["started"]) < 1.0
    except psutil.NoSuchProcess:
        return False
