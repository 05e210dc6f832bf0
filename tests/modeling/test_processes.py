"""Several processes of one machine: they end where one does, share their faults, and none outlives the first."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from worlds import (
    ADAPTED,
    COMPUTE,
    DPO,
    SCRATCH,
    SFT,
    Notes,
    Stop,
    World,
    conversations,
    random_groups,
    texts,
    write_demonstrations,
    write_pairs,
)

from dpo_pipeline.core.errors import CapacityError, ProcessLostError, TrainingError
from dpo_pipeline.core.metrics import read_metrics
from dpo_pipeline.dpo.reference import TABLE, compute_reference
from dpo_pipeline.modeling import processes, spawning
from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.policy import load_policy
from dpo_pipeline.modeling.settings import ComputeSettings
from dpo_pipeline.modeling.spawning import in_processes
from dpo_pipeline.sft.train import train_sft

TWO = COMPUTE.model_copy(update={"processes": 2})
OFTEN = DPO.model_copy(update={"checkpoint_minutes": 1e-9, "validation_share": 0.2, "validations": 3})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("whole"), SCRATCH)


def weights(folder):
    model, _ = load_policy(folder / "model", device="cpu")
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def assert_same_training(one, two):
    """Every number of every step to 1e-4 of its size, and the weights to a thousandth of what a step moves them."""
    lines, others = read_metrics(one / "metrics.jsonl"), read_metrics(two / "metrics.jsonl")
    assert [sorted(line) for line in lines] == [sorted(line) for line in others]
    for line, other in zip(lines, others, strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert float((weights(one) - weights(two)).abs().max()) < 1e-5


def test_every_group_is_in_one_share_and_shares_are_about_equal(monkeypatch):
    groups = random_groups(3, [(5 + number % 7, (3, 4 + number % 11)) for number in range(40)])
    monkeypatch.setattr(processes, "size", lambda: 3)
    shares = []
    for number in range(3):
        monkeypatch.setattr(processes, "rank", lambda number=number: number)
        shares.append(processes.share_of(groups))
    assert sorted(id(group) for share in shares for group in share) == sorted(map(id, groups))
    totals = [sum(group.tokens for group in share) for share in shares]
    assert max(totals) - min(totals) <= max(group.tokens for group in groups)


def no_other_process_is_left():
    return not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_dpo_in_two_processes_is_dpo_in_one(world):
    one, _ = world.train("one", dpo=OFTEN)
    two, outcome = world.train("two", dpo=OFTEN, compute=TWO)
    assert outcome.remarks["processes"] == 2
    assert_same_training(one, two)
    assert no_other_process_is_left()
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_an_adapter_in_three_processes_is_an_adapter_in_one(tmp_path):
    """A last step of one group leaves two processes without any; they still take part."""
    world = World(tmp_path, ADAPTED)
    odd = DPO.model_copy(update={"batch_size": 23, "epochs": 1.0})
    one, _ = world.train("one", dpo=odd)
    three, _ = world.train("three", dpo=odd, compute=COMPUTE.model_copy(update={"processes": 3}))
    assert len(read_metrics(three / "metrics.jsonl")) == 2
    assert_same_training(one, three)


@pytest.mark.slow
def test_a_training_stopped_in_two_processes_goes_on_in_one(world):
    straight, _ = world.train("straight", dpo=OFTEN)
    work = world.root / "work handed over"
    with pytest.raises(KeyboardInterrupt):
        world.train("stopped", dpo=OFTEN, compute=TWO, work=work, reporter=Stop(after=4))
    assert no_other_process_is_left()
    resumed, outcome = world.train("resumed", dpo=OFTEN, work=work)
    assert outcome.remarks["resumed_from_step"] == 3
    assert_same_training(straight, resumed)


@pytest.mark.slow
def test_a_training_stopped_in_one_process_goes_on_in_two(world):
    straight, _ = world.train("straight again", dpo=OFTEN)
    work = world.root / "work taken over"
    with pytest.raises(KeyboardInterrupt):
        world.train("stopped again", dpo=OFTEN, work=work, reporter=Stop(after=4))
    resumed, outcome = world.train("resumed again", dpo=OFTEN, compute=TWO, work=work)
    assert outcome.remarks["resumed_from_step"] == 3
    assert_same_training(straight, resumed)


def sft_alone_and_shared(folder, sft):
    """The same SFT in one process and in two: folder and outcome of each."""
    pairs = write_pairs(folder / "pairs", list(texts(10)))
    demonstrations = write_demonstrations(folder / "demonstrations", conversations(60))

    def train(name, compute):
        out = folder / name
        out.mkdir()
        return out, train_sft(
            [demonstrations], pairs, out, work=folder / f"work {name}", sft=sft, model=SCRATCH, compute=compute,
            reporter=Notes(),
        )  # fmt: skip

    return train("one", COMPUTE), train("two", TWO)


def test_sft_in_two_processes_is_sft_in_one_with_the_same_held_out_loss(tmp_path):
    kept_aside = SFT.model_copy(update={"held_out_share": 0.2})

    (one, alone), (two, shared) = sft_alone_and_shared(tmp_path, kept_aside)
    assert_same_training(one, two)
    assert shared.facts["held_out_nll"] == pytest.approx(alone.facts["held_out_nll"], rel=1e-5)
    assert shared.counts == alone.counts


@pytest.mark.slow
def test_two_processes_publish_the_best_weights_that_one_does(tmp_path):
    """Steps far too long soon make the loss worse; every process goes back to the best step, not the first alone."""
    long = SFT.optimizer.model_copy(update={"learning_rate": 0.1, "schedule": "constant"})
    patient = SFT.model_copy(
        update={"validation_share": 0.2, "validations": 99, "patience": 2, "epochs": 3, "optimizer": long}
    )

    (one, alone), (two, shared) = sft_alone_and_shared(tmp_path, patient)
    assert 1 < alone.counts["published_step"] < alone.counts["steps"]
    assert shared.counts == alone.counts
    assert float((weights(one) - weights(two)).abs().max()) < 1e-3 < float(weights(one).abs().max())


def test_the_reference_table_of_two_processes_is_that_of_one(world):
    out = world.folder("reference of two")
    compute_reference(
        world.pairs, world.checkpoint, out, known=[], model=SCRATCH, compute=TWO, reporter=Notes()
    )  # fmt: skip
    one, two = (pq.read_table(folder / TABLE) for folder in (world.reference, out))
    assert one.drop(["chosen_logp", "rejected_logp"]) == two.drop(["chosen_logp", "rejected_logp"])
    for name in ("chosen_logp", "rejected_logp"):
        assert two[name].to_pylist() == pytest.approx(one[name].to_pylist(), rel=1e-6)


def fails(*, compute, reporter, rank, how):
    """A stage whose process of a given rank fails in some way."""
    with processes.faults_shared() if how != "vanishes" else nullcontext():
        if processes.rank() == rank:
            if how == "vanishes":
                os.kill(os.getpid(), signal.SIGKILL)
            raise TrainingError("a planted fault", do="Look at pair-7") if how == "foreseen" else ValueError("odd")
    processes.summed(torch.zeros(1))
    return processes.rank()


stage = in_processes(fails)
fails = stage  # the others find it by its name


@pytest.mark.parametrize(
    ("rank", "how", "kind", "words"),
    [
        (1, "foreseen", TrainingError, r"^a planted fault\. Look at pair-7\.$"),
        pytest.param(0, "foreseen", TrainingError, r"^a planted fault\. Look at pair-7\.$", marks=pytest.mark.slow),
        pytest.param(1, "unforeseen", ProcessLostError, "ValueError: odd", marks=pytest.mark.slow),
        (1, "vanishes", ProcessLostError, r"process 2 of 2 ended: it was killed by signal 9.* A retry resumes"),
    ],
)
def test_what_goes_wrong_in_one_process_ends_all_with_its_words(rank, how, kind, words):
    with pytest.raises(kind, match=words):
        stage(compute=TWO, reporter=Notes(), rank=rank, how=how)
    assert no_other_process_is_left()


@in_processes
def deaf(*, compute, reporter):
    """A stage whose first process waits for the second as it would on cards: its loss makes no noise.

    The wait ends when it is called off, without an error, as nccl's exchanges do.
    """
    if processes.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    assert processes._somebody_is_lost.wait(60)
    processes.require_nobody_lost()
    return "numbers that mean nothing"


def test_a_loss_that_makes_no_noise_is_noticed_within_seconds(monkeypatch):
    monkeypatch.setattr(spawning, "SECONDS_TO_NOTICE", 0.1)
    with pytest.raises(ProcessLostError, match=r"process 2 of 2 ended: it was killed by signal 9"):
        deaf(compute=TWO, reporter=Notes())
    assert no_other_process_is_left()
    processes.begin()
    processes.require_nobody_lost()


@in_processes
def stays_behind(*, compute, reporter):
    """A stage whose second process has nothing more to do while the first goes on alone, as when it publishes."""
    if processes.rank() == 0:
        time.sleep(2.5)
    processes.require_nobody_lost()
    return "published"


def test_a_process_that_is_done_before_the_first_is_not_taken_for_lost(monkeypatch):
    monkeypatch.setattr(spawning, "SECONDS_TO_NOTICE", 0.1)
    assert stays_behind(compute=TWO, reporter=Notes()) == "published"


def test_a_lost_process_is_worth_a_retry_and_a_foreseen_fault_is_not():
    assert ProcessLostError("x").is_worth_a_retry
    assert not TrainingError("x").is_worth_a_retry


FIRST = """
import os, sys
sys.path.insert(0, sys.argv[1])
import test_processes
if __name__ == "__main__":
    test_processes.lasting(compute=test_processes.TWO, reporter=test_processes.Notes(), folder=sys.argv[2])
"""


@in_processes
def lasting(*, compute, reporter, folder):
    """A stage that tells its process's number and never ends."""
    (Path(folder) / str(os.getpid())).touch()
    while True:
        processes.summed(torch.zeros(1))
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for a signal on the parent's death")
def test_the_others_die_with_the_first_even_if_it_is_killed(tmp_path):
    script = tmp_path / "first.py"
    script.write_text(FIRST)
    told = tmp_path / "told"
    told.mkdir()
    with subprocess.Popen([sys.executable, str(script), str(Path(__file__).parent), str(told)]) as first:
        try:
            patiently(lambda: len(list(told.iterdir())) == 2 or first.poll() is not None)
            family = [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]
        finally:
            first.kill()  # it never ends by itself, and leaving the block waits for it
    assert len(family) >= 3  # the first, the other one, and multiprocessing's tracker of resources
    patiently(lambda: not [process for process in family if is_running(process)])


def is_running(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def patiently(is_so):
    deadline = time.monotonic() + 300  # two processes that import torch, on a machine with other work
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_trainings_never_share_a_work_folder_however_many_processes_they_have(world):
    work = world.root / "work held"
    with sole_owner_elsewhere(work), pytest.raises(TrainingError, match="another training, process"):
        world.train("second", dpo=OFTEN, compute=TWO, work=work)
    assert no_other_process_is_left()


@contextmanager
def sole_owner_elsewhere(folder):
    hold = (
        "import sys, time; from pathlib import Path; from dpo_pipeline.modeling.locks import sole_owner\n"
        "with sole_owner(Path(sys.argv[1])):\n    print(flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(folder)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without cards lacks")
def test_more_processes_than_devices_are_refused_except_on_a_cpu(monkeypatch):
    assert choose_device(ComputeSettings(device="cpu", processes=9, threads=1)).kind == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(CapacityError, match=r"compute\.processes is 2, and this machine has 1 mps device"):
        choose_device(ComputeSettings(device="mps", processes=2))
