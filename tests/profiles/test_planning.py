"""The plan of a whole profile: steps, time and every fault, before anything is loaded."""

import json

import pytest
from click.testing import CliRunner
from worlds import tokenizer

from dpo_pipeline.cli import commands
from dpo_pipeline.core.artifacts import Outcome, Recipe
from dpo_pipeline.core.home import Home
from dpo_pipeline.modeling.duration import StepShape, seconds_per_step
from dpo_pipeline.modeling.settings import (
    AdapterSettings,
    ComputeSettings,
    ModelSettings,
    OptimizerSettings,
    ScratchModel,
)
from dpo_pipeline.profiles import load_profile
from dpo_pipeline.profiles.planning import _other_tokenizer, _tokens, plan_profile


def test_steps_are_examples_over_batches_times_epochs(tmp_path):
    """The demo: 2 epochs of 1,000 pairs, 16 a step, are 2 x 63; 256 tokens each are 4,096 a step, 4 passes of 1,024."""
    plan = plan_profile(load_profile("demo"), Home(tmp_path), name="demo", pairs=1_000)
    assert plan.faults == ()
    assert "about 126 steps of 4,096 tokens, in 4 forward passes of at most 1,024; about " in plan.text
    assert "this home has no demonstrations yet; --demonstrations N" in plan.text


def test_each_stage_is_planned_with_its_own_optimizer_and_all_faults_come_together(tmp_path):
    changes = {
        "dpo": {"optimizer": {"kind": "adamw_8bit", "learning_rate": 1e-4}},
        "model": {"scratch": {"vocabulary_size": 200_000, "hidden_size": 65_536, "head_count": 8, "layer_count": 99}},
        "compute": {"device": "cpu"},
    }
    plan = plan_profile(load_profile("demo", overrides=changes), Home(tmp_path), name="demo")
    assert "SFT with adamw:" in plan.text
    assert "DPO with adamw_8bit:" in plan.text
    memory, disk, package = plan.faults
    assert memory.startswith("memory: lower compute.batch_tokens")
    assert disk.startswith("disk: ")
    assert package.startswith("dpo.optimizer.kind adamw_8bit needs bitsandbytes")


def test_the_command_prints_it_and_fails_where_something_is_in_the_way(tmp_path, monkeypatch):
    monkeypatch.setenv("DPO_PIPELINE_HOME", str(tmp_path))
    told = CliRunner().invoke(commands, ["plan", "--pairs", "100", "--demonstrations", "100"])
    assert told.exit_code == 0
    assert "SFT: 100 demonstrations (supposing 256 tokens each, half of max_length), 8 a step" in told.output


def test_a_checkpoint_with_another_tokenizer_than_the_base_is_a_fault(tmp_path, monkeypatch):
    def tokenizer(folder, vocabulary):
        folder.mkdir(parents=True)
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))

    tokenizer(tmp_path / "base", {"a": 0, "b": 1, "c": 2})
    tokenizer(tmp_path / "made" / "model", {"a": 0, "b": 2, "c": 1, "d": 3})
    home = Home(tmp_path / "home")
    made = type("Made", (), {"path": tmp_path / "made"})
    monkeypatch.setattr(home, "latest", lambda _asset: made)
    model = load_profile("demo").model.model_copy(update={"scratch": None, "path": str(tmp_path / "base")})
    [fault] = _other_tokenizer(home, model)
    assert fault.startswith("2 tokens of ")
    monkeypatch.setattr(made, "path", tmp_path / "same")
    tokenizer(tmp_path / "same" / "model", {"a": 0, "b": 1, "c": 2, "<|im_start|>": 3})
    assert list(_other_tokenizer(home, model)) == []


def test_a_checkpoint_of_another_profiles_model_is_a_fault_that_names_both(tmp_path):
    home, demo = Home(tmp_path / "home"), load_profile("demo")
    with home.store.staging() as folder:
        (folder / "weights").write_text("w")
        recipe = Recipe("sft_checkpoint", "1", {"model": demo.model.model_dump(mode="json")}, ())
        made = home.store.publish(folder, recipe, Outcome())
    home.ledger.append("started", attempt="a", asset="sft_checkpoint", partition=None, profile="demo")
    home.ledger.append("finished", attempt="a", asset="sft_checkpoint", partition=None, artifact=made.digest)
    assert plan_profile(demo, home, name="demo").faults == ()
    other = load_profile("demo", overrides={"model": {"max_length": 111}})
    [fault] = plan_profile(other, home, name="mine.yaml").faults
    assert f"sft_checkpoint {made.digest[:12]} was made under the profile demo, this run's is mine" in fault
    assert "model.max_length (512 there, 111 here)" in fault


def test_a_step_is_measured_on_layers_like_the_models_own_and_more_layers_take_longer():
    """The times themselves are the machine's; that they grow with layers and with passes is the contract."""
    compute = ComputeSettings(device="cpu", threads=1)
    adamw = OptimizerSettings(learning_rate=1e-4)

    def seconds(layers, examples=4, **changes):
        scratch = ScratchModel(vocabulary_size=320, hidden_size=128, intermediate_size=256, layer_count=layers)
        model = ModelSettings(scratch=scratch, max_length=256, **changes)
        return seconds_per_step(model, compute, optimizer=adamw, step=StepShape(examples, 100, (40, 40)))

    few, many = seconds(2), seconds(40)
    assert 0 < few < many
    assert seconds(2, examples=60) > few  # ten passes of 1,024 tokens instead of one
    assert seconds(2, adapter=AdapterSettings(rank=4)) > 0


def test_tokens_are_counted_with_the_bases_own_tokenizer_where_it_is_here(tmp_path):
    base = tmp_path / "base"
    tokenizer().save_pretrained(base)
    model = ModelSettings(path=str(base))
    texts = [["Order 1: my lamp is broken. Help me! Ann"] * 3, ["Dear Ann, I am sorry that your lamp is broken."]]
    sizes, source = _tokens(Home(tmp_path), model, *texts)
    exact = [sum(len(tokenizer()(text)["input_ids"]) for text in each) for each in texts]
    assert "by the tokenizer in base" in source
    for size, count, each in zip(sizes, exact, texts, strict=True):
        assert size == pytest.approx(count + 6 * len(each), abs=5)  # six for what the template puts around each
