"""The plan of a whole profile: steps, time and every fault, before anything is loaded."""

import json

import numpy as np
from click.testing import CliRunner
from worlds import (
    COMPUTE,
    DPO,
    SCRATCH,
    SFT,
    World,
    conversations,
    filled,
    random_groups,
    texts,
    write_demonstrations,
    write_pairs,
)

from dpo_pipeline.annotations.schemas import DEMONSTRATIONS
from dpo_pipeline.annotations.tables import DemonstrationsFile
from dpo_pipeline.cli import commands
from dpo_pipeline.core.artifacts import Outcome, Recipe
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.modeling.batches import Group
from dpo_pipeline.modeling.device import CPU_BATCH_TOKENS
from dpo_pipeline.modeling.duration import measure_steps
from dpo_pipeline.modeling.settings import (
    AdapterSettings,
    ComputeSettings,
    ModelSettings,
    OptimizerSettings,
    ScratchModel,
)
from dpo_pipeline.preferences.schemas import PAIRS
from dpo_pipeline.profiles import learning, load_profile
from dpo_pipeline.profiles.learning import Learning
from dpo_pipeline.profiles.planning import _other_tokenizer, plan_profile


def test_steps_are_examples_over_batches_times_epochs(tmp_path):
    """The demo: 2 epochs of 1,000 pairs, 16 a step, are 2 x 63 of 256,000 tokens in all, 4 passes of 1,024 each."""
    plan = plan_profile(load_profile("demo"), Home(tmp_path), name="demo", pairs=1_000)
    assert plan.faults == ()
    assert "about 126 steps of 4,063 tokens, in 4 forward passes of at most 1,024; about " in plan.text
    assert "SFT: no drop has been read in this home yet; --demonstrations N says" in plan.text


def made(home, asset, partition, file, table):
    with home.store.staging() as folder:
        write_table(folder / file, table)
        artifact = home.store.publish(folder, Recipe(asset, "1", {"drop": partition}, ()), Outcome())
    home.ledger.append("finished", asset=asset, partition=partition, artifact=artifact.digest)


def test_what_there_is_nothing_to_learn_from_is_said_of_each_stage(tmp_path):
    home = Home(tmp_path)
    rows = [{"demonstration_id": "1", "messages": [{"role": "user", "content": "a"}]}]
    made(home, "raw_annotations", "may", "raw.parquet", filled(DEMONSTRATIONS, rows))
    made(home, "demonstrations", "may", "demonstrations.parquet", filled(DEMONSTRATIONS, rows))
    text = plan_profile(load_profile("demo"), home, name="demo").text
    assert "SFT: preference_pairs of the 1 drops read is not made yet, and both stages learn by it; --dem" in text
    assert "DPO: preference_pairs of the 1 drops read is not made yet, and both stages learn by it; --pairs N" in text
    made(home, "preference_pairs", None, "pairs.parquet", filled(PAIRS, []))
    text = plan_profile(load_profile("demo"), home, name="demo", demonstrations=9).text
    assert "DPO: no pairs are left to learn from in this home's 1 drops; --pairs N" in text


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


def test_the_plan_counts_what_the_trainings_then_go_through(tmp_path, monkeypatch):
    """Steps and tokens to the last one where the tokenizer is known; a scratch one is made of the same texts first."""
    world, home = World(tmp_path, SCRATCH), Home(tmp_path / "home")
    said = list(texts(30))
    rankings = [(prompt, good, f"{rude} {n}") for prompt, good, rude in said[:8] for n in range(3)]
    pairs = write_pairs(tmp_path / "ranked", [*said, *rankings, (said[0][0], "word " * 200, "no")])
    reference = world.folder("ranked reference")
    world.refer(reference, pairs=pairs)
    profile = load_profile("demo").model_copy(update={"model": SCRATCH, "sft": SFT, "dpo": DPO, "compute": COMPUTE})
    there = {"demonstrations": tmp_path / "demonstrations", "preference_pairs": world.pairs}
    monkeypatch.setattr(home, "partitions", lambda _kind: ["may"])

    def latest(kind, _drop=None):
        if kind not in there:
            raise ArtifactError(f"no {kind}", do="wait")
        return type("Made", (), {"path": there[kind]})

    monkeypatch.setattr(home, "latest", latest)
    by_sft = Learning(home, profile).by_sft()
    taken = json.loads((world.checkpoint / "training.json").read_text())["counts"]
    assert "by a tokenizer made from a sample of them" in by_sft.source
    steps, tokens = by_sft.steps(batch_size=16, epochs=1, seed=seed_for(SCRATCH.seed, "sft"))
    assert (by_sft.count, steps, round(steps * tokens)) == (taken["conversations"], taken["steps"], taken["tokens"])
    there |= {"sft_checkpoint": world.checkpoint, "preference_pairs": pairs}
    for epochs in (2.0, 1.5):
        dpo = DPO.model_copy(update={"epochs": epochs})
        _, outcome = world.train(f"ranked {epochs}", pairs=pairs, reference=reference, dpo=dpo)
        by_dpo = Learning(home, profile.model_copy(update={"dpo": dpo})).by_dpo()
        steps, tokens = by_dpo.steps(batch_size=8, epochs=epochs, seed=seed_for(SCRATCH.seed, "dpo"))
        taken = outcome.counts
        assert (by_dpo.count, steps, round(steps * tokens)) == (taken["pairs"], taken["steps"], taken["tokens"])


def test_chosen_responses_that_sft_learns_are_counted(tmp_path, monkeypatch):
    pairs, home = write_pairs(tmp_path / "pairs", list(texts(30))), Home(tmp_path / "home")
    monkeypatch.setattr(home, "partitions", lambda _kind: [])

    def latest(kind, _drop=None):
        if kind == "sft_checkpoint":
            raise ArtifactError("none", do="wait")
        return type("Made", (), {"path": pairs})

    monkeypatch.setattr(home, "latest", latest)
    sft = SFT.model_copy(update={"chosen_as_demonstrations": True, "held_out_share": 0.0, "held_out_similarity": 1.0})
    profile = load_profile("demo").model_copy(update={"model": SCRATCH, "sft": sft})
    assert Learning(home, profile).by_sft().count == 24
    assert Learning(home, load_profile("demo")).by_sft() is None


def test_in_a_large_home_a_drop_without_demonstrations_is_no_obstacle(tmp_path, monkeypatch):
    """Its table has no row group: most drops of preferences alone are such."""
    pairs, home = write_pairs(tmp_path / "pairs", list(texts(30))), Home(tmp_path / "home")
    (tmp_path / "may").mkdir()
    DemonstrationsFile(tmp_path / "may" / "demonstrations.parquet").close()
    write_demonstrations(tmp_path / "june", conversations(40))
    monkeypatch.setattr(learning, "READ_WHOLE", 50)
    monkeypatch.setattr(home, "partitions", lambda _kind: ["may", "june"])

    def latest(kind, drop=None):
        if kind == "sft_checkpoint":
            raise ArtifactError("none", do="wait")
        return type("Made", (), {"path": tmp_path / drop if drop else pairs})

    monkeypatch.setattr(home, "latest", latest)
    sft = SFT.model_copy(update={"chosen_as_demonstrations": True, "held_out_share": 0.1})
    profile = load_profile("demo").model_copy(update={"model": SCRATCH, "sft": sft})
    assert Learning(home, profile).by_sft().count == 63, "nine tenths of 40 demonstrations and 30 chosen responses"


def test_pairs_are_grouped_for_the_device_they_will_be_trained_on(tmp_path, monkeypatch):
    """A CPU takes 1,024 tokens at once, whatever the settings allow: a prompt of many pairs becomes several groups."""
    prompt = [{"role": "user", "content": "Well?"}]
    triples = [(prompt, f"{n} yes " * 9, f"{n} no " * 9) for n in range(20)]
    pairs, home = write_pairs(tmp_path / "pairs", triples, held_out_every=0), Home(tmp_path / "home")
    write_demonstrations(tmp_path / "may", conversations(40))
    monkeypatch.setattr(home, "partitions", lambda _kind: ["may"])

    def latest(kind, drop=None):
        if kind == "sft_checkpoint":
            raise ArtifactError("none", do="wait")
        return type("Made", (), {"path": tmp_path / drop if drop else pairs})

    monkeypatch.setattr(home, "latest", latest)
    compute = COMPUTE.model_copy(update={"batch_tokens": 4_096})
    dpo = DPO.model_copy(update={"batch_size": 32})
    updates = {"model": SCRATCH, "sft": SFT, "dpo": dpo, "compute": compute}
    groups = Learning(home, load_profile("demo").model_copy(update=updates)).by_dpo().sample
    assert sum(len(group.comparisons) for group in groups) == 20
    assert sum(group.tokens for group in groups) > CPU_BATCH_TOKENS
    assert all(group.tokens <= CPU_BATCH_TOKENS for group in groups)


def test_time_grows_with_layers_with_tokens_and_with_an_adapter_it_is_still_some():
    """The times themselves are the machine's."""
    compute = ComputeSettings(device="cpu", threads=1)
    batches = [random_groups(1, [(100, (40, 40))] * 4)]

    def measured(layers, **changes):
        scratch = ScratchModel(vocabulary_size=320, hidden_size=128, intermediate_size=256, layer_count=layers)
        model = ModelSettings(scratch=scratch, max_length=256, **changes)
        return measure_steps(model, compute, optimizer=OptimizerSettings(learning_rate=1e-4), batches=batches)

    few, many = measured(2), measured(40)
    assert 0 < few.seconds_a_token < many.seconds_a_token
    assert 0 < few.seconds_an_update < many.seconds_an_update
    assert few.of_step(2_000) > few.of_step(1_000) > few.seconds_an_update
    assert measured(2, adapter=AdapterSettings(rank=4)).seconds_a_token > 0


def test_without_a_tokenizer_on_this_machine_tokens_are_told_from_characters(tmp_path, monkeypatch):
    """3.5 characters each, and six tokens for what the template puts around each text."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    home = Home(tmp_path / "home")
    pairs = write_pairs(tmp_path / "pairs", [([{"role": "user", "content": "x" * 70}], "y" * 35, "z" * 7)] * 3)
    monkeypatch.setattr(home, "latest", lambda _kind: type("Made", (), {"path": pairs}))
    model = ModelSettings(path=str(tmp_path / "nothing here"))
    found = Learning(home, load_profile("demo").model_copy(update={"model": model})).by_dpo()
    assert "3.5 characters a token" in found.source
    assert [(len(g.prompt), *map(len, g.responses)) for g in found.sample] == [(26, 16, 8)] * 2


def test_tokens_beyond_the_vocabulary_are_measured_too():
    """Those of a chat template whose marks the base has yet to learn, or of a tokenizer under another profile."""
    model = ModelSettings(scratch=SCRATCH.scratch.model_copy(update={"vocabulary_size": 300}), max_length=128)
    groups = [Group(np.array([3, 300], np.int32), (np.array([4, 301], np.int32), np.array([777], np.int32)))]
    found = measure_steps(model, COMPUTE, optimizer=OptimizerSettings(learning_rate=1e-4), batches=[groups])
    assert found.seconds_a_token > 0
