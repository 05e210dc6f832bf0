"""TRL's DPOTrainer beside ours: the same model, pairs, tokens and batches give the same numbers, step by step.

Loss, gradient norm, rewards, margins, accuracies and log-probs agree to 1e-4 relative in fp32.
"""

import gzip
import json
import os
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer
from worlds import ARCHITECTURES, COMPUTE, SCRATCH, Notes, World, small_model, texts, tokenizer, write_pairs

from dpo_pipeline.core.metrics import read_metrics
from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.dpo.reference import compute_reference
from dpo_pipeline.dpo.settings import DpoLoss, DpoSettings
from dpo_pipeline.dpo.train import train_dpo
from dpo_pipeline.modeling.batches import plan_steps
from dpo_pipeline.modeling.policy import attach_adapter
from dpo_pipeline.modeling.settings import AdapterSettings, ModelSettings, OptimizerSettings

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's, datasets' and transformers' own

BATCH = 4
LORA = AdapterSettings(rank=4, alpha=8)
NAMES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "rewards/chosen": "rewards/chosen",
    "rewards/rejected": "rewards/rejected",
    "rewards/margins": "rewards/margin",
    "rewards/accuracies": "rewards/accuracy",
    "logps/chosen": "logps/chosen",
    "logps/rejected": "logps/rejected",
}
HH = os.environ.get("DPO_BENCH_HH")


def settings_of(kind, steps, **changes):
    beta = 2.0 if kind.is_length_averaged else 0.1
    optimizer = OptimizerSettings(learning_rate=5e-4, schedule="linear", warmup_share=2 / steps)
    return DpoSettings(loss=kind, beta=beta, batch_size=BATCH, epochs=1, optimizer=optimizer, **changes)


def in_our_order(triples, seed):
    steps = plan_steps([1] * len(triples), batch_size=BATCH, epochs=1, seed=seed_for(seed, "dpo"))
    return [triples[index] for step in steps for index in step]


def run_ours(root, checkpoint, triples, *, dpo, model):
    pairs = write_pairs(root / "pairs", triples, held_out_every=0)
    for name in ("reference", "out"):
        (root / name).mkdir()
    common = {"model": model, "compute": COMPUTE, "reporter": Notes()}
    compute_reference(pairs, checkpoint, root / "reference", known=[], **common)
    train_dpo(pairs, root / "reference", checkpoint, root / "out", work=root / "work", dpo=dpo, **common)
    return read_metrics(root / "out" / "metrics.jsonl")


def run_trl(root, checkpoint, triples, *, dpo, precompute, model, micro=BATCH):
    torch.set_flush_denormal(True)
    folder = checkpoint / "model"
    if (folder / "adapter_config.json").exists():
        base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
        policy = PeftModel.from_pretrained(base, folder, is_trainable=True)
    else:
        policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        if model.adapter is not None:
            policy = attach_adapter(policy, model.adapter, seed=seed_for(model.seed, "adapter"))
    rows = [
        {
            "prompt": prompt,
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for prompt, chosen, rejected in triples
    ]
    arguments = DPOConfig(
        output_dir=str(root / "trl"),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=BATCH // micro,
        learning_rate=dpo.optimizer.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=2,
        num_train_epochs=1,
        beta=dpo.beta,
        loss_type=[str(dpo.loss), *["sft"] * bool(dpo.nll_weight)],
        loss_weights=[1.0, dpo.nll_weight] if dpo.nll_weight else None,
        label_smoothing=dpo.label_smoothing,
        max_length=1024,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        precompute_ref_log_probs=precompute,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    trainer = DPOTrainer(
        policy,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    trainer.train()
    return [line for line in trainer.state.log_history if "loss" in line]


def assert_equal(ours, trl, *, beta):
    # Rewards pass through zero. Their yardstick there is beta times what TRL's fp32 sums of log-probs lose (8e-5 nats).
    near_zero = {name: 8e-5 * beta for name in NAMES.values() if name.startswith("rewards/")}
    assert len(ours) == len(trl)
    for step, (mine, theirs) in enumerate(zip(ours, trl, strict=True)):
        for their_name, name in NAMES.items():
            if name == "rewards/accuracy" and abs(mine["rewards/margin"]) < 1e-5:
                continue  # policy = reference: which of two equal rewards is the larger is rounding
            expected = pytest.approx(theirs[their_name], rel=1e-4, abs=near_zero.get(name, 1e-9))
            assert mine[name] == expected, (step, name)


def checkpoint_of(root, name, adapter=None):
    # AutoTokenizer gives some families' models an end of text besides our tokens: there is room for it.
    model = small_model(name, vocab_size=len(tokenizer()) + 8, max_position_embeddings=2048, eos_token_id=None)
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer().pad_token_id
    model.save_pretrained(root / "sft" / "model")
    tokenizer().save_pretrained(root / "sft" / "model")
    return root / "sft", ModelSettings(path=str(root / "sft" / "model"), max_length=1024, adapter=adapter)


def compare(root, *, name="llama", steps=20, dpo=None, adapter=None, triples=None, precompute=False, micro=BATCH):
    checkpoint, model = checkpoint_of(root, name, adapter)
    triples = triples or list(texts(steps * BATCH, seed=4))
    dpo = dpo or settings_of(DpoLoss.SIGMOID, steps)
    ours = run_ours(root, checkpoint, triples, dpo=dpo, model=model)
    in_order = in_our_order(triples, model.seed)
    trl = run_trl(root, checkpoint, in_order, dpo=dpo, precompute=precompute, model=model, micro=micro)
    assert_equal(ours, trl, beta=dpo.beta)


def test_three_steps_are_trls(tmp_path):
    compare(tmp_path, steps=3)


@pytest.mark.slow
@pytest.mark.parametrize("precompute", [False, True], ids=["live reference", "precomputed reference"])
@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("kind", [kind for kind in DpoLoss if kind is not DpoLoss.SIMPO])  # TRL's trainer has no SimPO
def test_every_loss_is_trls_for_20_steps(tmp_path, kind, adapter, precompute):
    smoothing = {"label_smoothing": 0.1} if kind is DpoLoss.ROBUST else {}
    compare(tmp_path, dpo=settings_of(kind, 20, **smoothing), adapter=adapter, precompute=precompute)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [DpoLoss.SIGMOID, DpoLoss.IPO])
def test_the_nll_term_is_trls_for_20_steps(tmp_path, kind):
    """TRL's `sft` is a mean over a micro-batch's tokens; with one pair in each it is a response's, as ours."""
    compare(tmp_path, dpo=settings_of(kind, 20, nll_weight=0.5), micro=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_trls_for_20_steps(tmp_path, name):
    compare(tmp_path, name=name, precompute=True)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_an_adapter_of_the_stage_before_is_trls_for_20_steps(tmp_path, variant):
    """Both continue the adapter of the SFT checkpoint; TRL's reference is a frozen copy of it, ours the table."""
    adapter = LORA.model_copy(update={"variant": variant})
    model = SCRATCH.model_copy(update={"adapter": adapter, "max_length": 1024})
    checkpoint = World(tmp_path / "world", model).checkpoint
    triples, dpo = list(texts(20 * BATCH, seed=4)), settings_of(DpoLoss.SIGMOID, 20)
    ours = run_ours(tmp_path, checkpoint, triples, dpo=dpo, model=model)
    trl = run_trl(tmp_path, checkpoint, in_our_order(triples, model.seed), dpo=dpo, precompute=False, model=model)
    assert_equal(ours, trl, beta=dpo.beta)


@pytest.mark.slow
@pytest.mark.skipif(not HH, reason="DPO_BENCH_HH names no file of HH-RLHF")
def test_real_conversations_are_trls_for_20_steps(tmp_path):
    triples = [triple for triple in hh(Path(HH)) if sum(len(str(part)) for part in triple) < 900][: 20 * BATCH]
    compare(tmp_path, triples=triples)


def hh(path):
    """HH-RLHF's pairs, split at the last assistant turn."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            record = json.loads(line)
            (prompt, _, chosen), (other, _, rejected) = (
                record[name].rpartition("\n\nAssistant:") for name in ("chosen", "rejected")
            )
            if prompt == other:
                turns = [part.partition(":") for part in prompt.strip().split("\n\n") if ":" in part]
                roles = {"Human": "user", "Assistant": "assistant"}
                messages = [{"role": roles[who], "content": text.strip()} for who, _, text in turns if who in roles]
                yield messages, chosen.strip(), rejected.strip()
