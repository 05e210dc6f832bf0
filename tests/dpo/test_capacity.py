"""A full disk and too little memory end with a sentence that says what to change, and a later attempt goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from worlds import DPO, SCRATCH, Notes, World, same_bytes

from dpo_pipeline.core.errors import CapacityError
from dpo_pipeline.modeling.device import capacity_in_words

EVERY_STEP = DPO.model_copy(update={"checkpoint_minutes": 1e-9})
OUT_OF_ADDRESSES = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import psutil
from worlds import COMPUTE, DPO, SCRATCH, Notes
from dpo_pipeline.core.errors import CapacityError
from dpo_pipeline.dpo import train
root = Path(sys.argv[2])

def starved(*args, **named):
    allowed = psutil.Process().memory_info().vms + 2**20
    resource.setrlimit(resource.RLIMIT_AS, (allowed, resource.RLIM_INFINITY))
    import torch
    return torch.zeros(2**28)

setattr(train, sys.argv[3], starved)
(root / "out").mkdir()
try:
    train.train_dpo(root / "pairs", root / "reference", root / "sft", root / "out", work=root / "work", dpo=DPO,
                    model=SCRATCH, compute=COMPUTE, reporter=Notes())
except CapacityError as error:
    print(error)
"""


@pytest.fixture
def disk(tmp_path):
    """A folder that is a disk of its own, and a function to set its size; only where mounting is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def resize(size, *flags):
        command = ["mount", "-t", "tmpfs", "-o", ",".join([*flags, f"size={size}"]), "tmpfs", str(folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    if not resize("16m"):
        pytest.skip("mounting is not allowed here")
    yield folder, resize
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_under_a_checkpoint_leaves_the_ones_before_and_a_retry_goes_on(tmp_path, disk):
    """A checkpoint is 0.37 MB: two have room in 1 MiB, the third, written before the first is removed, does not."""
    folder, resize = disk
    world = World(tmp_path, SCRATCH)
    straight, _ = world.train("straight", dpo=EVERY_STEP)

    class Shrinking(Notes):
        """Lets the plan find room enough; then somebody else's files take it."""

        def metrics(self, step, values):
            super().metrics(step, values)
            if step == 1:
                assert resize("1m", "remount")

    with pytest.raises(CapacityError, match=r"the disk filled up while training\. Free some space and run again"):
        world.train("first", dpo=EVERY_STEP, work=folder / "work", reporter=Shrinking())
    names = sorted(path.name for path in (folder / "work" / "checkpoints").iterdir())
    assert names == ["step-000000001", "step-000000002"]
    assert resize("16m", "remount")
    notes = Notes()
    second, _ = world.train("second", dpo=EVERY_STEP, work=folder / "work", reporter=notes)
    assert "Resumed from step-000000002: 2 steps are done." in notes.sentences
    assert same_bytes(straight, second) == []


def test_a_disk_that_fills_up_under_the_published_weights_costs_no_training(tmp_path, disk):
    folder, resize = disk
    world = World(tmp_path, SCRATCH)
    straight, _ = world.train("straight", dpo=EVERY_STEP)
    assert resize("64k", "remount")
    world.root, root = folder, world.root
    with pytest.raises(CapacityError, match="the disk filled up while training"):
        world.train("first", dpo=EVERY_STEP, work=tmp_path / "work")
    world.root, notes = root, Notes()
    second, _ = world.train("second", dpo=EVERY_STEP, work=tmp_path / "work", reporter=notes)
    assert "Resumed from step-000000005: 5 steps are done." in notes.sentences
    assert same_bytes(straight, second) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits addresses as Linux does")
@pytest.mark.parametrize(
    "moment",
    ["losses_and_sums", *(pytest.param(m, marks=pytest.mark.slow) for m in ("read_training_pairs", "make_scorer"))],
)
def test_memory_that_runs_out_in_a_training_names_the_three_ways_out(tmp_path, moment):
    """While reading, at the first forward pass of the start-up probe, and in a step; torch's own error each time."""
    World(tmp_path, SCRATCH)
    rooms = str(Path(__file__).parent.parent / "modeling")
    command = [sys.executable, "-c", OUT_OF_ADDRESSES, rooms, str(tmp_path), moment]
    said = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert said.stdout.startswith("memory ran out while training. ")
    for way_out in ("compute.batch_tokens", "compute.gradient_checkpointing", "model.adapter", "a retry resumes"):
        assert way_out in said.stdout


def test_a_card_out_of_memory_names_them_too_and_other_errors_stay_what_they_are():
    words = r"memory ran out while training\. Lower compute\.batch_tokens"
    with pytest.raises(CapacityError, match=words), capacity_in_words("training"):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    for other in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), OSError(13, "Permission denied")):
        with pytest.raises(type(other)), capacity_in_words("training"):
            raise other
