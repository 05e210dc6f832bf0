"""kill -9 at moments nobody chose: what comes out at last is what an undisturbed run gives, to the bit."""

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
