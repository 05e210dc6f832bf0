"""Checkpoints: whole or not there, of this training or not touched, and everything that changes is in them."""

import json
import shutil
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import Notes, random_groups, small_model

from dpo_pipeline.modeling import checkpoints
from dpo_pipeline.modeling.batches import pack
from dpo_pipeline.modeling.checkpoints import resume, save_checkpoint
from dpo_pipeline.modeling.optimizer import make_optimizer
from dpo_pipeline.modeling.settings import OptimizerSettings

SETTINGS = OptimizerSettings(learning_rate=1e-2, weight_decay=0.1)
FILES = ["chance.safetensors", "manifest.json", "moments.safetensors", "state.json", "weights.safetensors"]


def fresh(seed=0):
    model = small_model("llama, grouped queries, tied", seed=seed)
    return model, make_optimizer(model, SETTINGS)


def step(model, optimizer, number):
    ids = pack(random_groups(number, [(5, (6,))])).input_ids
    noise = torch.rand(()) + 0.5  # uses chance, as dropout would
    (model(input_ids=ids).logits.logsumexp(-1).mean() * noise).backward()
    optimizer.step()
    optimizer.zero_grad()


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


class Wrapping(torch.optim.AdamW):
    """As bitsandbytes' 8-bit optimizers do: some of a parameter's state lies in a field within a field."""

    def state_dict(self):
        whole = super().state_dict()
        whole["state"] = {index: dict(fields) for index, fields in whole["state"].items()}
        for fields in whole["state"].values():
            fields["inner"] = {"exp_avg": fields.pop("exp_avg"), "count": 7}
        return whole

    def load_state_dict(self, whole):
        for fields in whole["state"].values():
            inner = fields.pop("inner")
            assert inner.pop("count") == 7
            fields.update(inner)
        super().load_state_dict(whole)


def test_state_within_state_comes_back(tmp_path):
    model, _ = fresh()
    optimizer = Wrapping(model.parameters(), lr=1e-2)
    step(model, optimizer, 0)
    save_checkpoint(tmp_path, model, optimizer, step=1, key="k")
    again, _ = fresh(seed=5)
    its_optimizer = Wrapping(again.parameters(), lr=1e-2)
    assert resume(tmp_path, again, its_optimizer, key="k", reporter=Notes()) == 1
    for parameter, its_parameter in zip(model.parameters(), again.parameters(), strict=True):
        one, other = optimizer.state[parameter], its_optimizer.state[its_parameter]
        assert one.keys() == other.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_resumed_is_straight_to_the_bit(tmp_path):
    torch.manual_seed(1)
    model, optimizer = fresh()
    for number in range(3):
        step(model, optimizer, number)
    save_checkpoint(tmp_path, model, optimizer, step=3, key="k")
    for number in range(3, 6):
        step(model, optimizer, number)
    torch.manual_seed(99)
    again, its_optimizer = fresh(seed=5)
    assert resume(tmp_path, again, its_optimizer, key="k", reporter=Notes()) == 3
    for number in range(3, 6):
        step(again, its_optimizer, number)
    assert all(torch.equal(value, state(again)[name]) for name, value in state(model).items())


def test_the_newest_two_are_kept(tmp_path):
    model, optimizer = fresh()
    for number in range(1, 5):
        step(model, optimizer, number)
        save_checkpoint(tmp_path, model, optimizer, step=number, key="k")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000003", "step-000000004"]
    assert sorted(path.name for path in (tmp_path / "step-000000004").iterdir()) == FILES


def test_the_best_is_put_back_without_holding_the_moments_of_two_steps_at_once(tmp_path, monkeypatch):
    """A training that fitted must not run out of memory when it is over."""
    model, optimizer = fresh()
    step(model, optimizer, 0)
    save_checkpoint(tmp_path, model, optimizer, step=1, key="k", best=[1])
    best = state(model)
    moments = {p: {name: value.clone() for name, value in its.items()} for p, its in optimizer.state.items()}
    step(model, optimizer, 1)
    held = [weakref.ref(fields["exp_avg"]) for fields in optimizer.state.values()]
    real = checkpoints.load_file

    def load_file(path):
        if path.name == checkpoints.MOMENTS:
            assert [ref for ref in held if ref() is not None] == []
        return real(path)

    monkeypatch.setattr(checkpoints, "load_file", load_file)
    checkpoints.restore_step(tmp_path, model, optimizer, step=1, key="k")
    assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())
    assert optimizer.state.keys() == moments.keys()
    for parameter, wanted in moments.items():
        assert all(torch.equal(optimizer.state[parameter][name], value) for name, value in wanted.items())


def test_nothing_is_pickled(tmp_path):
    model, optimizer = fresh()
    step(model, optimizer, 1)
    folder = save_checkpoint(tmp_path, model, optimizer, step=1, key="k")
    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            header = path.read_bytes()
            assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
        else:
            json.loads(path.read_text())


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    model, optimizer = fresh()
    for number in (1, 2):
        step(model, optimizer, number)
        save_checkpoint(folder, model, optimizer, step=number, key="k")
    return folder


@given(st.sampled_from(FILES), st.sampled_from(["cut", "flipped", "removed", "emptied"]), st.integers(0, 10_000))
def test_an_altered_or_partial_checkpoint_is_skipped_for_the_one_before(tmp_path_factory, two, name, harm, place):
    folder = tmp_path_factory.mktemp("harmed")
    shutil.copytree(two, folder, dirs_exist_ok=True)
    path = folder / "step-000000002" / name
    content = bytearray(path.read_bytes())
    if harm == "removed":
        path.unlink()
    elif harm == "flipped":
        content[place % len(content)] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(content[: 0 if harm == "emptied" else place % len(content)])
    notes = Notes()
    model, optimizer = fresh()
    assert resume(folder, model, optimizer, key="k", reporter=notes) == 1
    assert notes.sentences[0].startswith("Skipped the checkpoint step-000000002: ")
    assert notes.sentences[1] == "Resumed from step-000000001: 1 steps are done."


@pytest.mark.parametrize("name", ["step-000000002-kept", "step-000000002 (copy)", "step-old"])
def test_a_copy_under_another_name_is_neither_resumed_from_nor_removed(two, tmp_path, name):
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    shutil.copytree(two / "step-000000002", tmp_path / name)
    notes, (model, optimizer) = Notes(), fresh()
    assert resume(tmp_path, model, optimizer, key="k", reporter=notes) == 2
    assert notes.sentences == ["Resumed from step-000000002: 2 steps are done."]
    save_checkpoint(tmp_path, model, optimizer, step=3, key="k")
    assert {path.name for path in tmp_path.iterdir()} == {"step-000000002", "step-000000003", name}


def test_what_a_dying_writer_left_is_removed(two, tmp_path):
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    (tmp_path / ".writing-abc").mkdir()
    (tmp_path / ".writing-abc" / "weights.safetensors").write_bytes(b"half")
    model, optimizer = fresh()
    assert resume(tmp_path, model, optimizer, key="k", reporter=Notes()) == 2
    assert not list(tmp_path.glob(".writing-*"))


def test_a_poisoned_checkpoint_is_replaced_only_once_the_new_one_is_in_place(two, tmp_path, monkeypatch):
    """Step 2 is altered, so step 1 is resumed and step 2 done again; a kill right after the rename finds it whole."""
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    (tmp_path / "step-000000002" / "weights.safetensors").write_bytes(b"altered")
    model, optimizer = fresh()
    assert resume(tmp_path, model, optimizer, key="k", reporter=Notes()) == 1
    step(model, optimizer, 2)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("dpo_pipeline.modeling.checkpoints._prune", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, model, optimizer, step=2, key="k")
    monkeypatch.undo()
    assert resume(tmp_path, *fresh(), key="k", reporter=Notes()) == 2
    step(model, optimizer, 3)
    save_checkpoint(tmp_path, model, optimizer, step=3, key="k")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000000002.1", "step-000000003"]


def test_later_checkpoints_that_were_passed_over_do_not_crowd_out_the_good_ones(two, tmp_path):
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    for later in ("step-000000008", "step-000000009"):
        (tmp_path / later).mkdir()
    model, optimizer = fresh()
    step(model, optimizer, 3)
    save_checkpoint(tmp_path, model, optimizer, step=3, key="k")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000002", "step-000000003"]


def test_another_trainings_checkpoint_is_left_alone(two, tmp_path):
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    model, optimizer = fresh()
    before = state(model)
    assert resume(tmp_path, model, optimizer, key="other", reporter=Notes()) == 0
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())


def test_a_full_disk_leaves_the_checkpoints_there_were(two, tmp_path, monkeypatch):
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    model, optimizer = fresh()
    step(model, optimizer, 1)

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dpo_pipeline.modeling.checkpoints._sync", no_space)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path, model, optimizer, step=3, key="k")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000001", "step-000000002"]
    monkeypatch.undo()
    assert resume(tmp_path, model, optimizer, key="k", reporter=Notes()) == 2
