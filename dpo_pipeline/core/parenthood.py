"""Processes that end with the one that started them."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies; elsewhere the parent's own clearing up has to do.

    Args:
        parent: The parent's process id, as the parent itself told it: if it died before this call, so does this one.
    """
    if sys.platform == "linux":
        # A kill at any moment loses nothing here, and a process deep in native code hears nothing gentler.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the parent process ended before the work began")
