"""The lock on a work folder: one living owner, no dead one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from dpo_pipeline.core.errors import TrainingError
from dpo_pipeline.modeling.locks import LOCK, sole_owner

HOLD = """
import sys, time
from pathlib import Path
from dpo_pipeline.modeling.locks import sole_owner
with sole_owner(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_is_free_again_afterwards(tmp_path):
    for _ in range(2):
        with sole_owner(tmp_path / "work"):
            assert json.loads((tmp_path / "work" / LOCK).read_text())["pid"] == os.getpid()
        assert json.loads((tmp_path / "work" / LOCK).read_text()) == {}


def test_a_living_owner_keeps_it_and_a_killed_one_does_not(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(TrainingError, match=f"process {other.pid}, is at work"), sole_owner(tmp_path):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    other.stdout.close()
    with sole_owner(tmp_path):
        pass


def test_where_locks_reach_no_further_the_named_owner_counts_if_it_lives(tmp_path, monkeypatch):
    """Another machine's lock on a shared disk: the file names an owner that this kernel's locks know nothing of."""
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(TrainingError, match="is at work"), sole_owner(tmp_path):
        pass
    other.kill()
    other.wait()
    other.stdout.close()
    with sole_owner(tmp_path):
        pass


@pytest.mark.parametrize("written", ["", "not json", '{"boot_id": "x", "pid": 1, "started_ticks": 5}'])
def test_an_owner_that_is_no_more_does_not_count(tmp_path, written):
    (tmp_path / LOCK).write_text(written)
    started = time.monotonic()
    with sole_owner(tmp_path):
        pass
    assert time.monotonic() - started < 5
