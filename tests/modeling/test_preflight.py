"""The sum before a training: parameters exact, terms stated, a machine that lacks something named."""

import json

import pytest
import torch
from worlds import random_groups, small_model

from dpo_pipeline.core.errors import CapacityError
from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.modeling.batches import pack
from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.forward import Scorer, Way
from dpo_pipeline.modeling.memory import layer_bytes
from dpo_pipeline.modeling.preflight import plan_training, require_fit
from dpo_pipeline.modeling.settings import (
    AdapterSettings,
    Architecture,
    ComputeSettings,
    ModelSettings,
    ScratchModel,
)
from dpo_pipeline.modeling.shapes import architecture_of, parameter_count
from dpo_pipeline.profiles import load_profile

CPU = ComputeSettings(device="cpu")
SCRATCH = ModelSettings(scratch=ScratchModel())


class Listener(Quiet):
    def __init__(self):
        self.said = []

    def say(self, sentence):
        self.said.append(sentence)


def test_llama_3_1_8b_has_8_030_261_248_parameters_and_rank_16_adds_41_943_040():
    model = load_profile("llama-3.1-8b-lora-24gb").model
    assert parameter_count(architecture_of(model)) == 8_030_261_248
    assert plan_training(model, CPU).trained == 41_943_040


def test_the_scratch_model_is_counted_as_transformers_makes_it():
    from transformers import LlamaConfig, LlamaForCausalLM

    made = SCRATCH.scratch
    config = LlamaConfig(
        vocab_size=made.vocabulary_size,
        hidden_size=made.hidden_size,
        intermediate_size=made.intermediate_size,
        num_hidden_layers=made.layer_count,
        num_attention_heads=made.head_count,
        tie_word_embeddings=True,
    )
    assert LlamaForCausalLM(config).num_parameters() == parameter_count(architecture_of(SCRATCH))


def test_the_sum_for_full_fine_tuning_is_sixteen_bytes_a_parameter_beside_activations():
    plan = plan_training(SCRATCH, CPU)
    terms = {term.name: term.size for term in plan.memory}
    assert terms["weights"] + terms["gradients"] + terms["optimizer"] == 16 * plan.parameters
    assert plan.fits
    assert plan.as_text().endswith("This machine has what it takes.")


def test_checkpointing_and_fewer_tokens_each_shrink_activations():
    def activations(**compute):
        model = load_profile("llama-3.1-8b-lora-24gb").model.model_copy(update={"max_length": 128})
        plan = plan_training(model, ComputeSettings(device="cpu", **compute))
        return {term.name: term.size for term in plan.memory}["activations"]

    assert activations(gradient_checkpointing=True) < activations() / 10
    assert activations(batch_tokens=512) == activations(batch_tokens=1_024) / 2


@pytest.mark.parametrize(("name", "precision"), [("llama", "fp32"), ("qwen3", "fp32"), ("llama", "bf16")])
def test_activations_are_what_a_layer_keeps(name, precision):
    """Counted through autograd's hooks on models of two and three layers, the estimate is within a fifth."""
    sizes = {"hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 4, "head_dim": 16}

    def kept(layers):
        model = small_model(name, num_hidden_layers=layers, **sizes)
        batch = pack(random_groups(1, [(60, (40, 91))]))  # 191 tokens, padded to 192 where products want it
        device = choose_device(ComputeSettings(device="cpu", precision=precision))
        scorer, weights = (
            Scorer(model, device, Way.PACKED),
            {p.untyped_storage().data_ptr() for p in model.parameters()},
        )
        found = {}

        def keep(tensor):
            if tensor.untyped_storage().data_ptr() not in weights and tensor.numel() >= batch.tokens:
                found[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), scorer.session():
            scorer.logps(batch)
        return sum(size for size, _ in found.values()) / batch.tokens

    shape = Architecture(
        layer_count=1, hidden_size=96, intermediate_size=256, head_count=4, key_value_head_count=4, head_size=16,
        vocabulary_size=64,
    )  # fmt: skip
    estimate = layer_bytes(shape, compute_bytes=2.0 if precision == "bf16" else 4.0)
    assert kept(3) - kept(2) == pytest.approx(estimate, rel=0.2)


def test_four_bit_weights_take_a_quarter_of_sixteen():
    def weights(**adapter):
        model = load_profile("llama-3.1-8b-lora-24gb").model.model_copy(update={"adapter": AdapterSettings(**adapter)})
        return plan_training(model, ComputeSettings(device="cpu", precision="bf16")).memory[0].size

    assert weights(quantize_base=True) == pytest.approx(0.28 * weights())


@pytest.mark.parametrize("name", ["llama-3.1-8b-lora-24gb", "llama-3.1-8b-lora-4x24gb"])
def test_the_bundled_profiles_for_24_gb_cards_fit_a_24_gb_card_by_their_own_sum(name):
    """The sum is that of each process, and each has a card of its own."""
    profile = load_profile(name)
    assert plan_training(profile.model, profile.compute).memory_bytes < 22 * 2**30


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="says what a machine without a card lacks")
def test_a_machine_without_a_card_is_told_so_and_still_gets_the_sum():
    profile = load_profile("llama-3.1-8b-lora-24gb")
    plan = plan_training(profile.model, profile.compute)
    text = plan.as_text()
    assert not plan.fits
    assert "14.96 GiB   8,030,261,248 x 2 bytes (bf16, frozen)" in text
    assert "this machine has cpu only" in text
    assert text.endswith("This machine does not have it.")


def test_a_training_that_does_not_fit_stops_before_anything_is_loaded_with_the_sum_and_the_way_out():
    model = ModelSettings(
        scratch=ScratchModel(vocabulary_size=200_000, hidden_size=65_536, head_count=8, layer_count=99)
    )
    with pytest.raises(CapacityError) as caught:
        require_fit(model, CPU, choose_device(CPU), optimizer="adamw", reporter=Quiet())
    assert "NOT ENOUGH" in str(caught.value)
    assert "Lower compute.batch_tokens" in str(caught.value)


def test_a_training_that_fits_says_its_sum_in_one_line():
    listener = Listener()
    require_fit(SCRATCH, CPU, choose_device(CPU), optimizer="adamw", reporter=listener)
    [sentence] = listener.said
    assert sentence.startswith("Needs about ")
    assert "optimizer" in sentence


def test_a_models_own_config_wins_over_the_stated_architecture(tmp_path):
    config = {
        "num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 500, "tie_word_embeddings": True,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    stated = load_profile("llama-3.1-8b-lora-24gb").model.architecture
    shape = architecture_of(ModelSettings(path=str(tmp_path), architecture=stated))
    assert (shape.layer_count, shape.head_size, shape.key_value_head_count) == (3, 16, 2)


def test_an_unknown_shape_says_where_it_could_come_from(tmp_path):
    with pytest.raises(CapacityError, match=r"model\.architecture"):
        architecture_of(ModelSettings(path=str(tmp_path)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine may have what is asked for")
@pytest.mark.parametrize(
    ("changes", "optimizer", "named"),
    [
        ({"adapter": AdapterSettings(quantize_base=True)}, "adamw", r"model\.adapter\.quantize_base"),
        ({}, "paged_adamw_8bit", r"optimizer\.kind paged_adamw_8bit"),
    ],
)
def test_what_needs_bitsandbytes_is_refused_before_anything_is_loaded(changes, optimizer, named):
    model = SCRATCH.model_copy(update=changes)
    with pytest.raises(CapacityError, match=f"{named} needs bitsandbytes and a CUDA card"):
        require_fit(model, CPU, choose_device(CPU), optimizer=optimizer, reporter=Quiet())


def test_processes_share_a_machines_memory_and_one_of_them_writes():
    alone, pair = (plan_training(SCRATCH, ComputeSettings(device="cpu", processes=count)) for count in (1, 2))
    assert pair.memory_free == pytest.approx(alone.memory_free / 2, rel=0.05)
    assert (pair.memory_bytes, pair.disk_bytes) == (alone.memory_bytes, alone.disk_bytes)
    assert "free for each of 2 processes on CPU" in pair.as_text()
