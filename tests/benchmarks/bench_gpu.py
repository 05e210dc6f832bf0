"""The trainer beside TRL on a CUDA card: bf16, a Llama of 1.2 billion random weights, pairs of HH-RLHF.

    python tests/benchmarks/bench_gpu.py --data .../hh_rlhf_harmless/test.jsonl.gz

Each side runs in a process of its own on the same model, pairs and batches; seconds are medians over steps, memory is
the most that torch had allocated. Tokens are counted as TRL sees them, each response behind its own prompt, without
padding, so that tokens/s compare pairs/s. Utilisation is the work that a step has to do without attention's (6
operations a weight and token, 4 for a frozen weight) over the rate of a large bf16 product, measured in the same run.
With `--profile` an 8B model under the settings of the profile for a 24 GB card takes steps in such a card's memory.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench_training as common

MAX_LENGTH, BATCH = 1024, 64
common.MAX_LENGTH, common.BATCH = MAX_LENGTH, BATCH
WARM_UP = 2
SHAPE = {
    "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
}  # fmt: skip
VARIANTS = {
    "trl default": {"side": "trl", "micro": 8, "checkpointing": True},
    "trl precomputed": {"side": "trl", "micro": 8, "precompute": True},
    "trl precomputed, Liger": {"side": "trl", "micro": 8, "precompute": True, "liger": True},
    "trl precomputed, Liger, micro-batches of 32": {"side": "trl", "micro": 32, "precompute": True, "liger": True},
    "ours, 8k tokens": {"side": "ours", "batch_tokens": 8192},
    "ours, 8k tokens, Liger": {"side": "ours", "batch_tokens": 8192, "liger": True},
    "ours, 32k tokens, Liger": {"side": "ours", "batch_tokens": 32768, "liger": True},
    "ours, 8k tokens, Liger, recomputed": {
        "side": "ours", "batch_tokens": 8192, "liger": True, "checkpointing": True,
    },
    "trl LoRA, precomputed, Liger, micro-batches of 32": {
        "side": "trl", "micro": 32, "precompute": True, "liger": True, "lora": True,
    },
    "ours LoRA, 32k tokens, Liger": {"side": "ours", "batch_tokens": 32768, "liger": True, "lora": True},
}  # fmt: skip


def prepare(data, folder, steps):
    """Write the model, the pairs and the reference table that every variant starts from; the rate of a product."""
    import pyarrow as pa
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from dpo_pipeline.core.tables import write_table
    from dpo_pipeline.modeling.base import train_tokenizer
    from dpo_pipeline.modeling.template import Encoded, encode

    rows = list(common.read_hh(data))
    texts = (text for prompt, *replies in rows for text in (*(m["content"] for m in prompt), *replies))
    tokenizer = train_tokenizer(texts, vocabulary_size=16384)
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPE, max_position_embeddings=2048, tie_word_embeddings=True, rope_theta=500000.0,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "sft" / "model")
    tokenizer.save_pretrained(folder / "sft" / "model")
    encoded = encode(tokenizer, [row[0] for row in rows], [row[1:] for row in rows], max_length=MAX_LENGTH)
    fitting = [(r, e) for r, e in zip(rows, encoded, strict=True) if isinstance(e, Encoded) and not e.prompt_tokens_cut]
    chosen = fitting[: steps * BATCH]
    table = {
        "pair_id": [f"pair {number}" for number in range(len(chosen))],
        "split": ["train"] * len(chosen),
        "prompt": [row[0] for row, _ in chosen],
        "chosen": [row[1] for row, _ in chosen],
        "rejected": [row[2] for row, _ in chosen],
        "p_chosen": [1.0] * len(chosen),
        "margin": [1.0] * len(chosen),
    }
    (folder / "pairs").mkdir()
    write_table(folder / "pairs" / "pairs.parquet", pa.table(table))
    prompts = sum(len(e.prompt) for _, e in chosen)
    answers = sum(len(response) for _, e in chosen for response in e.responses)
    facts = {
        "pairs": len(chosen),
        "tokens": 2 * prompts + answers,
        "packed": prompts + answers,
        "answers": answers,
        "body": sum(p.numel() for p in model.model.layers.parameters()),
        "head": SHAPE["vocab_size"] * SHAPE["hidden_size"],
        "card": torch.cuda.get_device_name(),
        "rate": product_rate(),
        "torch": torch.__version__,
    }
    (folder / "facts.json").write_text(json.dumps(facts))


def product_rate():
    """Operations a second of a bf16 product of 8,192 x 8,192 matrices: the best of five medians."""
    import torch

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(50):
        a @ b
    torch.cuda.synchronize()
    return 50 * 2 * 8192**3 / (time.perf_counter() - started)


def refer(folder, *, with_lora):
    """The reference table of a whole-weights policy, and the one of an adapter's bf16 base."""
    from dpo_pipeline.core.metrics import Quiet
    from dpo_pipeline.dpo.reference import compute_reference
    from dpo_pipeline.modeling.settings import ComputeSettings

    for name, lora in (("reference", False), ("reference lora", True))[: 2 if with_lora else 1]:
        (folder / name).mkdir()
        compute_reference(
            folder / "pairs", folder / "sft", folder / name, known=[], reporter=Quiet(),
            model=common.model_settings(folder, lora=lora),
            compute=ComputeSettings(device="cuda", batch_tokens=32768),
        )  # fmt: skip


def run_ours(folder, options):
    from dpo_pipeline.dpo.settings import DpoSettings
    from dpo_pipeline.dpo.train import train_dpo
    from dpo_pipeline.modeling.settings import ComputeSettings, OptimizerSettings

    lora = options.get("lora", False)
    out = folder / f"out-{os.getpid()}"
    out.mkdir()
    clock = common.Clock()
    clock.say = print
    train_dpo(
        folder / "pairs", folder / ("reference lora" if lora else "reference"), folder / "sft", out, work=out / "work",
        dpo=DpoSettings(
            beta=0.1, epochs=1, batch_size=BATCH,
            optimizer=OptimizerSettings(learning_rate=1e-6, schedule="constant", warmup_share=0),
        ),
        model=common.model_settings(folder, lora=lora), reporter=clock,
        compute=ComputeSettings(
            device="cuda", batch_tokens=options["batch_tokens"], fused_kernels=options.get("liger", False),
            gradient_checkpointing=options.get("checkpointing", False),
        ),
    )  # fmt: skip
    shutil.rmtree(out)
    return clock


def run_trl(folder, options):
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    rows = common.rows_in_our_order(folder)
    data = Dataset.from_list(
        [
            {
                "prompt": row["prompt"],
                "chosen": [{"role": "assistant", "content": row["chosen"]}],
                "rejected": [{"role": "assistant", "content": row["rejected"]}],
            }
            for row in rows
        ]
    )
    clock, micro, lora = common.Clock(), options["micro"], options.get("lora", False)
    arguments = DPOConfig(
        output_dir=str(folder / f"trl-{os.getpid()}"), per_device_train_batch_size=micro,
        gradient_accumulation_steps=BATCH // micro, learning_rate=1e-6, lr_scheduler_type="constant", max_grad_norm=1.0,
        num_train_epochs=1, beta=0.1, max_length=MAX_LENGTH, bf16=True,
        gradient_checkpointing=options.get("checkpointing", False), use_liger_kernel=options.get("liger", False),
        precompute_ref_log_probs=options.get("precompute", False), precompute_ref_batch_size=32, logging_steps=1,
        save_strategy="no", report_to=[], train_sampling_strategy="sequential", disable_tqdm=True,
    )  # fmt: skip
    name = str(folder / "sft" / "model")
    adapter = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear")
    dtype = torch.bfloat16 if lora else torch.float32
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(name, dtype=dtype, attn_implementation="sdpa"),
        args=arguments,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(name),
        callbacks=[common.ticks(clock)],
        peft_config=adapter if lora else None,
    )
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    return clock


def measure(folder, options):
    """Run one side in this process and print its figures as JSON."""
    import torch

    clock = {"ours": run_ours, "trl": run_trl}[options["side"]](folder, options)
    peak = torch.cuda.max_memory_allocated() / 2**30
    print("RESULT " + json.dumps({"seconds": clock.wall[WARM_UP:], "peak": peak, "losses": clock.losses}))


def fit_in_24_gb(profile):
    """One step of micro-batches of an 8B model under the profile's settings, held to a 24 GB card's memory."""
    import torch
    import yaml

    from dpo_pipeline.modeling.batches import pack
    from dpo_pipeline.modeling.device import choose_device
    from dpo_pipeline.modeling.duration import _random_model
    from dpo_pipeline.modeling.forward import Scorer, Way
    from dpo_pipeline.modeling.memory import memory_terms
    from dpo_pipeline.modeling.optimizer import make_optimizer
    from dpo_pipeline.modeling.policy import make_trainable
    from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings, OptimizerSettings
    from dpo_pipeline.modeling.shapes import architecture_of

    said = yaml.safe_load(Path(profile).read_text(encoding="utf-8"))
    model, compute = ModelSettings.model_validate(said["model"]), ComputeSettings.model_validate(said["compute"])
    device = choose_device(compute)
    # What such a card shows (24,564 MiB) less what CUDA itself takes of it.
    allowed = 23.3 * 2**30
    torch.cuda.set_per_process_memory_fraction(allowed / device.memory_bytes)
    shape = architecture_of(model)
    policy = make_trainable(_random_model(model, device, shape), device, settings=model, compute=compute)
    policy.train()
    optimizer = make_optimizer(policy, OptimizerSettings(learning_rate=1e-6))
    scorer = Scorer(policy, device, Way.TRIMMED)
    batch = pack(groups_of(compute.batch_tokens, model.max_length, shape.vocabulary_size), device.torch)
    seconds = []
    with scorer.session():
        for _ in range(6):
            torch.cuda.synchronize()
            started = time.perf_counter()
            scorer.logps(batch).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    peak, held = torch.cuda.max_memory_allocated() / 2**30, torch.cuda.max_memory_reserved() / 2**30
    terms = {t.name: round(t.size / 2**30, 2) for t in memory_terms(model, compute, device, shape, optimizer="adamw")}
    print(
        f"{Path(profile).stem}: micro-batches of {batch.tokens} packed tokens ({len(batch.rows)} pairs) in "
        f"{statistics.median(seconds[2:]):.3f} s; at most {peak:.2f} GiB allocated, {held:.2f} GiB reserved of "
        f"{allowed / 2**30:.1f}; plan says {sum(terms.values()):.2f} GiB: {terms}"
    )


def groups_of(tokens, longest, vocabulary):
    """Pairs at their longest, half of it the prompt, that fill a micro-batch."""
    import numpy as np

    from dpo_pipeline.modeling.batches import Comparison, Group

    chance, half = np.random.default_rng(0), longest // 2

    def random(size):
        return chance.integers(3, vocabulary, size).astype(np.int32)

    count = tokens // (3 * half)
    return [Group(random(half), (random(half), random(half)), (Comparison(0, 1, number),)) for number in range(count)]


def in_a_process(*arguments):
    """Its output's RESULT, or None with what went wrong printed: one side's failure must not cost the others."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, __file__, *arguments], env=environment, text=True, capture_output=True, check=False
    )
    if done.returncode:
        print(f"{arguments} failed:\n{done.stdout[-500:]}\n{done.stderr[-1500:]}", flush=True)
        return None
    if os.environ.get("BENCH_VERBOSE"):
        print(done.stdout)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(found[-1].removeprefix("RESULT ")) if found else done.stdout.strip()


def line_of(name, result, facts, steps):
    """One variant's figures in a line."""
    seconds = statistics.median(result["seconds"])
    is_ours = name.startswith("ours")
    through = facts["packed"] if is_ours else facts["tokens"]
    # Forward, gradient by the inputs, and by the weights where these are trained: 2 operations a weight and token each.
    operations = (4 if "LoRA" in name else 6) * (facts["body"] * through + facts["head"] * facts["answers"]) / steps
    return (
        f"{name:50} {seconds:7.3f} s/step {facts['pairs'] / steps / seconds:7.1f} pairs/s "
        f"{facts['tokens'] / steps / seconds:9,.0f} tokens/s {result['peak']:6.1f} GiB "
        f"{operations / seconds / facts['rate']:6.1%} of the product's rate; first loss {result['losses'][0]:.4f}"
    )


def main():
    """Parse, prepare once, run every variant in its own process, report as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("DPO_BENCH_HH"), help="hh_rlhf_harmless/test.jsonl.gz")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--only", nargs="*", help="these variants alone")
    parser.add_argument("--profile", help="also try to fit this profile's 8B model into 24 GB")
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        what, *rest = arguments.child
        if what == "prepare":
            prepare(Path(rest[1]), Path(rest[0]), int(rest[2]))
            refer(Path(rest[0]), with_lora=rest[3] == "True")
        elif what == "fit":
            fit_in_24_gb(rest[0])
        else:
            measure(Path(rest[0]), VARIANTS[what])
        return
    import torch

    if not torch.cuda.is_available():
        print("left out: there is no CUDA card here")
        return
    if not arguments.data:
        sys.exit("name the data: --data .../hh_rlhf_harmless/test.jsonl.gz, or DPO_BENCH_HH")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        started = time.perf_counter()
        names = [n for n in VARIANTS if not arguments.only or n in arguments.only]
        with_lora = any("LoRA" in name for name in names)
        in_a_process("--child", "prepare", temporary, arguments.data, str(arguments.steps), str(with_lora))
        facts = json.loads((folder / "facts.json").read_text())
        print(json.dumps(facts), f"({time.perf_counter() - started:.0f} s)", flush=True)
        for name in names:
            started = time.perf_counter()
            if result := in_a_process("--child", name, temporary):
                wall = time.perf_counter() - started
                print(line_of(name, result, facts, arguments.steps), f"({wall:.0f} s in all)", flush=True)
    if arguments.profile:
        print(in_a_process("--child", "fit", arguments.profile), flush=True)


if __name__ == "__main__":
    main()
