"""Checkpoints others can load: what was saved comes back; adapters; refusals; the base as it must be."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from worlds import ADAPTED, COMPUTE, SCRATCH, small_model, texts, tokenizer

from dpo_pipeline.core.errors import ArtifactError, CapacityError, InputError
from dpo_pipeline.modeling import base
from dpo_pipeline.modeling.base import open_base, train_tokenizer
from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.policy import (
    attach_adapter,
    load_policy,
    make_trainable,
    open_for_training,
    parameter_counts,
    policy_digest,
    save_policy,
)
from dpo_pipeline.modeling.settings import AdapterSettings, ModelSettings, Precision, ScratchModel

CPU = choose_device(COMPUTE)
IDS = torch.tensor([[5, 6, 7, 8]])


def corpus():
    return (reply for _, *replies in texts(50) for reply in replies)


@pytest.fixture
def whole(tmp_path):
    model = small_model(vocab_size=len(tokenizer()))
    save_policy(model, tokenizer(), tmp_path / "whole", settings=SCRATCH)
    return model, tmp_path / "whole"


def test_whole_weights_come_back_to_the_bit(whole):
    model, folder = whole
    again, its_tokenizer = load_policy(folder, device="cpu")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert its_tokenizer.chat_template == tokenizer().chat_template
    assert its_tokenizer("sorry")["input_ids"] == tokenizer()("sorry")["input_ids"]


def test_the_folder_says_nothing_of_places(whole):
    _, folder = whole
    for path in folder.iterdir():
        if path.suffix in {".json", ".jinja"}:
            assert str(folder.parent) not in path.read_text(), path.name


def test_the_digest_is_of_contents(whole, tmp_path):
    model, folder = whole
    save_policy(model, tokenizer(), tmp_path / "elsewhere", settings=SCRATCH)
    assert policy_digest(folder) == policy_digest(tmp_path / "elsewhere")
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1e-3
    save_policy(model, tokenizer(), tmp_path / "changed", settings=SCRATCH)
    assert policy_digest(folder) != policy_digest(tmp_path / "changed")


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_an_adapter_on_a_scratch_base_brings_its_base_along(tmp_path, variant):
    settings = SCRATCH.model_copy(update={"adapter": AdapterSettings(rank=2, variant=variant)})
    whole = small_model(vocab_size=len(tokenizer()))
    before = whole(input_ids=IDS).logits
    model = attach_adapter(whole, settings.adapter, seed=3)
    assert torch.allclose(model(input_ids=IDS).logits, before, atol=1e-5), "a fresh adapter changes nothing"
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    save_policy(model, tokenizer(), tmp_path / "model", settings=settings)
    again, _ = load_policy(tmp_path / "model", device="cpu")
    assert torch.equal(again(input_ids=IDS).logits, model.eval()(input_ids=IDS).logits)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "model" / "base")(input_ids=IDS).logits, before)
    trainable, _ = open_for_training(tmp_path / "model", CPU, settings=settings, compute=COMPUTE)
    counts = parameter_counts(trainable)
    assert 0 < counts["trained_parameters"] < counts["parameters"]
    assert len(trainable.peft_config) == 1, "the adapter in the folder is continued, not stacked"


def test_an_adapter_on_a_named_base_names_it(tmp_path, whole):
    _, folder = whole
    settings = ModelSettings(path=str(folder), adapter=AdapterSettings(rank=2))
    model, made = open_base(settings, corpus=(), device=CPU)
    model = make_trainable(model, CPU, settings=settings, compute=COMPUTE)
    save_policy(model, made, tmp_path / "adapter", settings=settings)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder)
    assert not (tmp_path / "adapter" / "base").exists()
    load_policy(tmp_path / "adapter", device="cpu")


def test_trained_weights_are_fp32_whatever_the_arithmetic(whole):
    bf16 = choose_device(COMPUTE.model_copy(update={"precision": Precision.BF16}))
    path = ModelSettings(path=str(whole[1]))
    model, _ = open_for_training(whole[1], bf16, settings=path, compute=COMPUTE)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    adapted = ModelSettings(path=str(whole[1]), adapter=AdapterSettings(rank=2))
    model, _ = open_for_training(whole[1], bf16, settings=adapted, compute=COMPUTE)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_pickled_weights_are_refused(whole):
    _, folder = whole
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"no \*\.safetensors file"):
        load_policy(folder, device="cpu")


def test_a_pickled_adapter_is_refused(tmp_path):
    model = attach_adapter(small_model(vocab_size=len(tokenizer())), ADAPTED.adapter, seed=3)
    save_policy(model, tokenizer(), tmp_path / "model", settings=ADAPTED)
    weights = tmp_path / "model" / "adapter_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ArtifactError, match=r"has no adapter_model\.safetensors"):
        load_policy(tmp_path / "model", device="cpu")


def test_an_adapter_on_an_earlier_stages_weights_brings_them_along(tmp_path, whole):
    """The settings name the model the whole weights were once trained from; that is not this adapter's base."""
    first = ModelSettings(path=str(whole[1]))
    stage, made = open_base(first, corpus=(), device=CPU)
    with torch.no_grad():
        stage.lm_head.weight += 0.1
    save_policy(stage, made, tmp_path / "sft", settings=first)
    adapted = ModelSettings(path=str(whole[1]), adapter=AdapterSettings(rank=2))
    model, _ = open_for_training(tmp_path / "sft", CPU, settings=adapted, compute=COMPUTE)
    save_policy(model, made, tmp_path / "dpo", settings=adapted)
    again, _ = load_policy(tmp_path / "dpo", device="cpu")
    assert torch.allclose(again(input_ids=IDS).logits, stage(input_ids=IDS).logits, atol=1e-5)


def test_what_was_rounded_to_four_bits_in_memory_is_copied_as_it_was(tmp_path, whole):
    first = ModelSettings(path=str(whole[1]))
    stage, made = open_base(first, corpus=(), device=CPU)
    save_policy(stage, made, tmp_path / "sft", settings=first)
    (tmp_path / "sft" / "notes.bin").write_bytes(b"neither weights nor configuration")
    adapted = ModelSettings(path=str(whole[1]), adapter=AdapterSettings(rank=2))
    model, _ = open_for_training(tmp_path / "sft", CPU, settings=adapted, compute=COMPUTE)
    model.get_base_model().is_quantized = True  # as bitsandbytes leaves it, on cards
    with torch.no_grad():
        model.get_base_model().model.embed_tokens.weight.zero_()
    save_policy(model, made, tmp_path / "dpo", settings=adapted)
    assert not (tmp_path / "dpo" / "base" / "notes.bin").exists()
    again, _ = load_policy(tmp_path / "dpo", device="cpu")
    assert torch.allclose(again(input_ids=IDS).logits, stage(input_ids=IDS).logits, atol=1e-5)


def test_code_that_comes_with_a_model_is_refused(whole):
    _, folder = whole
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="names Python code to be run"):
        load_policy(folder, device="cpu")


def test_a_tokenizer_of_another_model_is_refused(whole):
    _, folder = whole
    train_tokenizer(corpus(), vocabulary_size=400).save_pretrained(folder)
    with pytest.raises(ArtifactError, match=r"has \d+ tokens, the model 320 embeddings"):
        load_policy(folder, device="cpu")


def test_a_four_bit_base_says_what_it_needs(whole):
    if torch.cuda.is_available():
        pytest.skip("this machine may have it")
    settings = ModelSettings(path=str(whole[1]), adapter=AdapterSettings(rank=2, quantize_base=True))
    with pytest.raises(CapacityError, match=r"model\.adapter\.quantize_base needs bitsandbytes and a CUDA card"):
        open_base(settings, corpus=(), device=CPU)


def test_a_four_bit_base_is_asked_for_as_nf4(whole, monkeypatch):
    """What QLoRA (arXiv 2305.14314) is made of: 4-bit NormalFloat, scales quantised again, products in bf16."""
    asked = {}

    def load(name, **options):
        asked.update(options)
        return small_model()

    monkeypatch.setattr(base, "require_bitsandbytes", lambda setting: None)
    monkeypatch.setattr("transformers.utils.quantization_config.importlib.metadata.version", lambda package: "0.45")
    monkeypatch.setattr(base.AutoModelForCausalLM, "from_pretrained", load)
    bf16 = choose_device(COMPUTE.model_copy(update={"precision": Precision.BF16}))
    settings = ModelSettings(path=str(whole[1]), adapter=AdapterSettings(rank=2, quantize_base=True))
    open_base(settings, corpus=(), device=bf16)
    found = asked["quantization_config"]
    assert (found.load_in_4bit, found.bnb_4bit_quant_type, found.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert found.bnb_4bit_compute_dtype is torch.bfloat16
    assert (asked["use_safetensors"], asked["trust_remote_code"]) == (True, False)


def test_a_device_that_is_not_there_is_said():
    if torch.cuda.is_available():
        pytest.skip("this machine has it")
    with pytest.raises(CapacityError, match=r"compute.device is cuda, and this machine has .*cpu only"):
        load_policy("nowhere", device="cuda")


def test_a_scratch_tokenizer_is_a_function_of_its_texts():
    one, two = (train_tokenizer(corpus(), vocabulary_size=400) for _ in range(2))
    assert one.backend_tokenizer.to_str() == two.backend_tokenizer.to_str()
    said = "Ünïcödé 🎈 \x00 \u202e tabs\tand\r\nlines"
    assert one.decode(one(said, add_special_tokens=False)["input_ids"]) == said


def test_a_scratch_model_is_a_function_of_the_seed():
    def weights(seed):
        settings = SCRATCH.model_copy(update={"seed": seed})
        return open_base(settings, corpus=corpus(), device=CPU)[0].state_dict()["lm_head.weight"]

    before = torch.get_rng_state()
    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert torch.equal(torch.get_rng_state(), before), "chance elsewhere is left alone"


def test_a_base_without_a_template_needs_one(whole):
    _, folder = whole
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match=r"has no chat template\. Set model.chat_template to chatml"):
        open_base(ModelSettings(path=str(folder)), corpus=(), device=CPU)
    _, made = open_base(ModelSettings(path=str(folder), chat_template="chatml"), corpus=(), device=CPU)
    assert made.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False).startswith("<|im_start|>user")


def test_saved_weights_are_safetensors(whole):
    with safe_open(whole[1] / "model.safetensors", "pt") as file:
        assert "model.embed_tokens.weight" in file.keys()  # noqa: SIM118


def test_a_hub_id_must_name_its_revision():
    with pytest.raises(ValueError, match="revision"):
        ModelSettings(hub="owner/name")
    assert ModelSettings(hub="owner/name@" + "0" * 40).hub
    assert ModelSettings(scratch=ScratchModel()).hub is None
