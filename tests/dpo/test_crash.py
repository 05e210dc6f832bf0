"""kill -9 at named moments and at moments nobody chose: in the end all is what an undisturbed run gives, to the bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from worlds import SCRATCH, World, same_bytes

TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from worlds import COMPUTE, DPO, SCRATCH, Notes
from dpo_pipeline.dpo.train import train_dpo
root, out = Path(sys.argv[2]), Path(sys.argv[3])
out.mkdir(exist_ok=True)
dpo = DPO.model_copy(update={"checkpoint_minutes": 1e-9, "epochs": 12.0})
train_dpo(root / "pairs", root / "reference", root / "sft", out, work=root / sys.argv[4], dpo=dpo, model=SCRATCH,
          compute=COMPUTE, reporter=Notes())
"""

AT_NAMED_MOMENTS = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from worlds import COMPUTE, DPO, SCRATCH, Notes
from dpo_pipeline.dpo.train import train_dpo
from dpo_pipeline.modeling import checkpoints, session

torch.set_num_threads(1)  # nothing is forked that has threads
root = Path(sys.argv[2])
MOMENTS = {
    "writing a checkpoint": (checkpoints, "_random_states", 3),
    "before the manifest": (checkpoints, "sha256_of_file", 9),
    "before the rename": (checkpoints, "_free_name", 3),
    "before the pruning": (checkpoints, "_prune", 3),
    "while pruning": (checkpoints.os, "unlink", 3),
    "before the optimizer's step": (session, "set_learning_rate", 4),
    "after the optimizer's step": (session, "append_metrics", 4),
    "publishing": (session, "draw_curves", 1),
}


def train(name, work):
    out = root / name
    out.mkdir()
    dpo = DPO.model_copy(update={"checkpoint_minutes": 1e-9})
    train_dpo(root / "pairs", root / "reference", root / "sft", out, work=root / work, dpo=dpo, model=SCRATCH,
              compute=COMPUTE, reporter=Notes())


def die_at(call, real):
    calls = 0
    def called(*args, **named):
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **named)
    return called


def in_a_fork(name, work, *moment):
    pid = os.fork()
    if pid == 0:
        if moment:
            place, function, call = moment
            setattr(place, function, die_at(call, getattr(place, function)))
        train(name, work)
        sys.exit()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


assert in_a_fork("straight", "work straight") == 0
for name, moment in MOMENTS.items():
    assert in_a_fork(f"killed {name}", f"work {name}", *moment) == -signal.SIGKILL, name
    assert in_a_fork(f"resumed {name}", f"work {name}") == 0, name
print(*MOMENTS, sep="\\n")
"""


@pytest.mark.slow
def test_killed_at_a_named_moment_and_resumed_is_straight(tmp_path):
    """Weights and numbers as published; weights, moments, random states and step of the last two checkpoints."""
    World(tmp_path, SCRATCH)
    rooms = str(Path(__file__).parent.parent / "modeling")
    done = subprocess.run(
        [sys.executable, "-c", AT_NAMED_MOMENTS, rooms, str(tmp_path)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    moments = done.stdout.splitlines()
    assert len(moments) == 8
    for moment in moments:
        assert same_bytes(tmp_path / "straight", tmp_path / f"resumed {moment}") == [], moment
        kept = tmp_path / f"work {moment}" / "checkpoints"
        assert same_bytes(tmp_path / "work straight" / "checkpoints", kept) == [], moment


def start(root, out, work):
    command = [sys.executable, "-c", TRAIN, str(Path(__file__).parent.parent / "modeling"), str(root), str(out), work]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def progress(work):
    history = work / "history.jsonl"
    return history.read_text().count("\n") if history.exists() else 0


@pytest.mark.slow
def test_killed_again_and_again_and_resumed_is_straight(tmp_path):
    world = World(tmp_path, SCRATCH)
    assert start(tmp_path, tmp_path / "straight", "work straight").wait() == 0
    for number, steps in enumerate((3, 7, 8, 19)):
        process = start(tmp_path, tmp_path / f"killed {number}", "work killed")
        while progress(tmp_path / "work killed") < steps and process.poll() is None:
            time.sleep(0.003)
        process.send_signal(signal.SIGKILL)
        process.wait()
    newest = max((tmp_path / "work killed" / "checkpoints").glob("step-*"))
    moments = newest / "moments.safetensors"
    moments.write_bytes(moments.read_bytes()[:-100])  # and the newest checkpoint is poisoned as well
    assert start(tmp_path, tmp_path / "resumed", "work killed").wait() == 0
    assert progress(tmp_path / "work killed") == 36 == progress(tmp_path / "work straight")
    assert same_bytes(tmp_path / "straight", tmp_path / "resumed") == []
    assert world.outcome.counts["pairs"] == 30
