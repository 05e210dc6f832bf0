"""The trainer beside TRL on the same model, pairs, batches and loss: CPU seconds a step, wall, peak memory, ratios.

    python tests/benchmarks/bench_training.py --data .../hh_rlhf_harmless/test.jsonl.gz

The data can also be named by DPO_BENCH_HH. Each side runs in a process of its own; times are medians over steps, CPU
seconds are user + system of the whole process, so a neighbour's load moves them little. Peak memory is given whole and
above what the process held once its libraries were imported, before any model or data. The model is a Llama made from
random numbers: hidden 256, 6 layers, vocabulary 4,096, fp32.
"""

import argparse
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MAX_LENGTH, BATCH, RATE, BETA = 512, 8, 1e-4, 0.1
VARIANTS = {
    "trl default": {"side": "trl"},
    "trl precomputed, completion logits": {"side": "trl", "precompute": True, "compact": True},
    "trl best: + micro-batches of one": {"side": "trl", "precompute": True, "compact": True, "micro": 1},
    "ours": {"side": "ours"},
    "ours, 256 tokens at once": {"side": "ours", "batch_tokens": 256},
    "ours, the same, activations computed again": {"side": "ours", "batch_tokens": 256, "checkpointing": True},
    "ours, LoRA r16": {"side": "ours", "lora": True},
}
SFT_VARIANTS = {
    "trl sft, padded": {"side": "trl-sft", "packing": False},
    "trl sft, packing": {"side": "trl-sft", "packing": True},
    "ours sft": {"side": "ours-sft"},
}


# ---------------------------------------------------------------------------------------------------- the workload


def read_hh(path):
    """Prompt messages, chosen and rejected, split at the last assistant turn; pairs whose prompts differ left out."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            record = json.loads(line)
            sides = [record[name].rpartition("\n\nAssistant:") for name in ("chosen", "rejected")]
            if sides[0][0] != sides[1][0]:
                continue
            yield turns_of(sides[0][0]), sides[0][2].strip(), sides[1][2].strip()


def turns_of(text):
    messages = []
    for block in text.split("\n\nHuman:")[1:]:
        human, *assistant = block.split("\n\nAssistant:")
        messages.append({"role": "user", "content": human.strip()})
        messages += [{"role": "assistant", "content": turn.strip()} for turn in assistant]
    return messages


def prepare(data, folder, steps, single_turn):
    """Write the model, the pairs and the reference table that every variant starts from."""
    import pyarrow as pa
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from dpo_pipeline.core.metrics import Quiet
    from dpo_pipeline.core.tables import write_table
    from dpo_pipeline.dpo.reference import compute_reference
    from dpo_pipeline.modeling.base import train_tokenizer
    from dpo_pipeline.modeling.settings import ComputeSettings
    from dpo_pipeline.modeling.template import Encoded, encode

    rows = list(read_hh(data))
    if single_turn:
        rows = [row for row in rows if len(row[0]) == 1]
    texts = (text for prompt, *replies in rows for text in (*(m["content"] for m in prompt), *replies))
    tokenizer = train_tokenizer(texts, vocabulary_size=4096)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=688, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=1024, tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "sft" / "model")
    tokenizer.save_pretrained(folder / "sft" / "model")
    encoded = encode(tokenizer, [row[0] for row in rows], [row[1:] for row in rows], max_length=MAX_LENGTH)
    fitting = [r for r, e in zip(rows, encoded, strict=True) if isinstance(e, Encoded) and not e.prompt_tokens_cut]
    chosen = fitting[: steps * BATCH]
    table = {
        "pair_id": [f"pair {number}" for number in range(len(chosen))],
        "split": ["train"] * len(chosen),
        "prompt": [row[0] for row in chosen],
        "chosen": [row[1] for row in chosen],
        "rejected": [row[2] for row in chosen],
        "p_chosen": [1.0] * len(chosen),
        "margin": [1.0] * len(chosen),
    }
    (folder / "pairs").mkdir()
    write_table(folder / "pairs" / "pairs.parquet", pa.table(table))
    write_demonstrations(folder, chosen)
    (folder / "reference").mkdir()
    compute_reference(
        folder / "pairs", folder / "sft", folder / "reference", known=[], model=model_settings(folder),
        compute=ComputeSettings(device="cpu", threads=threads()), reporter=Quiet(),
    )  # fmt: skip


def write_demonstrations(folder, rows):
    """The chosen responses as demonstrations, and a split that holds nothing out."""
    import pyarrow as pa

    from dpo_pipeline.core.tables import MESSAGES, write_table
    from dpo_pipeline.preferences.schemas import PAIRS, SPLITS

    said = [[*prompt, {"role": "assistant", "content": chosen}] for prompt, chosen, _ in rows]
    names = pa.array([f"said {number}" for number in range(len(said))])
    (folder / "demonstrations").mkdir()
    table = pa.table({"demonstration_id": names, "messages": pa.array(said, MESSAGES)})
    write_table(folder / "demonstrations" / "demonstrations.parquet", table)
    (folder / "nothing held out").mkdir()
    for name, schema in (("pairs", PAIRS), ("splits", SPLITS)):
        write_table(folder / "nothing held out" / f"{name}.parquet", schema.empty_table())


def model_settings(folder, *, lora=False):
    from dpo_pipeline.modeling.settings import AdapterSettings, ModelSettings

    adapter = AdapterSettings(rank=16, alpha=16) if lora else None
    return ModelSettings(path=str(folder / "sft" / "model"), max_length=MAX_LENGTH, adapter=adapter)


def threads():
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


# ------------------------------------------------------------------------------------------------------- the sides


class Clock:
    """CPU and wall seconds between ticks."""

    def __init__(self):
        self.cpu, self.wall, self.losses = [], [], []
        self.tick()

    def tick(self):
        self.at = (time.process_time(), time.perf_counter())

    def tock(self):
        self.cpu.append(time.process_time() - self.at[0])
        self.wall.append(time.perf_counter() - self.at[1])
        self.tick()

    def say(self, sentence):
        if os.environ.get("BENCH_VERBOSE"):
            print("   ", sentence)

    def metrics(self, step, values):
        self.losses.append(values["loss"])
        self.tock()

    def note(self, **facts):
        pass


def ticks(clock):
    """The clock as a callback of transformers' Trainer."""
    from transformers import TrainerCallback

    class Ticks(TrainerCallback):
        def on_step_begin(self, *_, **__):
            clock.tick()

        def on_log(self, args, state, control, logs=None, **_):
            if "loss" in logs:
                clock.losses.append(logs["loss"])

        def on_step_end(self, *_, **__):
            clock.tock()

    return Ticks()


def run_ours(folder, options):
    from dpo_pipeline.dpo.settings import DpoSettings
    from dpo_pipeline.dpo.train import train_dpo
    from dpo_pipeline.modeling.settings import ComputeSettings, OptimizerSettings

    lora = options.get("lora", False)
    out = folder / f"out-{os.getpid()}"
    out.mkdir()
    clock = Clock()
    optimizer = OptimizerSettings(learning_rate=RATE, schedule="constant", warmup_share=0)
    train_dpo(
        folder / "pairs", folder / "reference", folder / "sft", out, work=out / "work",
        dpo=DpoSettings(beta=BETA, epochs=1, batch_size=BATCH, optimizer=optimizer),
        model=model_settings(folder, lora=lora), reporter=clock,
        compute=ComputeSettings(
            device="cpu", threads=threads(), batch_tokens=options.get("batch_tokens", 8192),
            gradient_checkpointing=options.get("checkpointing", False),
        ),
    )  # fmt: skip
    return clock


def rows_in_our_order(folder):
    """The pairs in the order in which our plan of steps takes them, so that both sides see the same batches."""
    import pyarrow.parquet as pq

    from dpo_pipeline.core.randomness import seed_for
    from dpo_pipeline.modeling.batches import plan_steps

    rows = pq.read_table(folder / "pairs" / "pairs.parquet").to_pylist()
    steps = plan_steps([1] * len(rows), batch_size=BATCH, epochs=1, seed=seed_for(model_settings(folder).seed, "dpo"))
    return [rows[index] for step in steps for index in step]


def run_trl(folder, options):
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer
    from trl.trainer import utils

    torch.set_num_threads(threads())
    torch.set_flush_denormal(True)
    if options.get("compact"):
        # What TRL does on CUDA: log-probs at completion positions only. The tiles stay the ones for CPUs.
        utils._use_triton = lambda device: True
    rows = rows_in_our_order(folder)
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
    clock = Clock()

    micro = options.get("micro", BATCH)
    arguments = DPOConfig(
        output_dir=str(folder / f"trl-{os.getpid()}"), per_device_train_batch_size=micro,
        gradient_accumulation_steps=BATCH // micro, learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=1.0,
        num_train_epochs=1, beta=BETA, max_length=MAX_LENGTH, bf16=False, gradient_checkpointing=False, use_cpu=True,
        precompute_ref_log_probs=options.get("precompute", False), logging_steps=1, save_strategy="no",
        report_to=[], train_sampling_strategy="sequential", dataloader_pin_memory=False, disable_tqdm=True,
    )  # fmt: skip
    name = str(folder / "sft" / "model")
    lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear")
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, attn_implementation="sdpa"),
        args=arguments,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(name),
        callbacks=[ticks(clock)],
        peft_config=lora if options.get("lora") else None,
    )
    trainer.train()
    return clock


def run_ours_sft(folder, _):
    from dpo_pipeline.modeling.settings import ComputeSettings, OptimizerSettings
    from dpo_pipeline.sft.settings import SftSettings
    from dpo_pipeline.sft.train import train_sft

    out = folder / f"out-{os.getpid()}"
    out.mkdir()
    clock = Clock()
    optimizer = OptimizerSettings(learning_rate=RATE, schedule="constant", warmup_share=0)
    train_sft(
        [folder / "demonstrations"], folder / "nothing held out", out, work=out / "work",
        sft=SftSettings(epochs=1, batch_size=BATCH, held_out_share=0, optimizer=optimizer),
        model=model_settings(folder), compute=ComputeSettings(device="cpu", threads=threads()), reporter=clock,
    )  # fmt: skip
    return clock


def run_trl_sft(folder, options):
    """TRL's SFTTrainer, loss on the assistant's words; with packing each row holds about a batch's eighth of tokens."""
    import pyarrow.parquet as pq
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(threads())
    torch.set_flush_denormal(True)
    rows = pq.read_table(folder / "demonstrations" / "demonstrations.parquet").to_pylist()
    data = Dataset.from_list([{"prompt": r["messages"][:-1], "completion": r["messages"][-1:]} for r in rows])
    arguments = SFTConfig(
        output_dir=str(folder / f"trl-{os.getpid()}"), learning_rate=RATE, lr_scheduler_type="constant",
        per_device_train_batch_size=3 if options["packing"] else BATCH, packing=options["packing"],
        num_train_epochs=1, max_length=MAX_LENGTH, bf16=False, gradient_checkpointing=False, use_cpu=True,
        logging_steps=1, save_strategy="no", report_to=[], dataloader_pin_memory=False, disable_tqdm=True,
    )  # fmt: skip
    clock = Clock()
    name = str(folder / "sft" / "model")
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, attn_implementation="sdpa"),
        args=arguments,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(name),
        callbacks=[ticks(clock)],
    )
    trainer.train()
    return clock


def imported_mib(side):
    """Resident memory once a side's libraries are there and nothing else is."""
    import psutil

    if side.startswith("trl"):
        import datasets
        import peft
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

        del datasets, peft, AutoModelForCausalLM, AutoTokenizer, DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
    else:
        from dpo_pipeline.dpo.train import train_dpo
        from dpo_pipeline.sft.train import train_sft

        del train_dpo, train_sft
    return psutil.Process().memory_info().rss / 2**20


def measure(folder, name, options):
    """Run one side in this process and print its figures as JSON."""
    imported = imported_mib(options["side"])
    sides = {"ours": run_ours, "trl": run_trl, "ours-sft": run_ours_sft, "trl-sft": run_trl_sft}
    clock = sides[options["side"]](folder, options)
    figures = {
        "name": name,
        "cpu": clock.cpu[1:],
        "wall": clock.wall[1:],
        "cpu_all": sum(clock.cpu),
        "peak_mib": (peak := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "own_mib": peak - imported,
        "losses": clock.losses,
    }
    print("RESULT " + json.dumps(figures))


# ------------------------------------------------------------------------------------------------------ the report


def in_a_process(*arguments):
    environment = {
        **os.environ,
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads()),
    }
    done = subprocess.run(
        [sys.executable, __file__, *arguments], env=environment, text=True, capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(f"{arguments} failed:\n{done.stdout}\n{done.stderr}")
    if os.environ.get("BENCH_VERBOSE"):
        print(done.stdout)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(found[-1].removeprefix("RESULT ")) if found else None


def measured(variants, folder, rounds):
    """Every variant in a process of its own, round after round; medians over the steps of all rounds."""
    runs = {name: [] for name in variants}
    for _ in range(rounds):
        for name, results in runs.items():
            results.append(in_a_process("--child", name, str(folder)))
    return {
        name: {
            "cpu": statistics.median(second for result in results for second in result["cpu"]),
            "wall": statistics.median(second for result in results for second in result["wall"]),
            "cpu_all": statistics.median(result["cpu_all"] for result in results),
            "peak_mib": max(result["peak_mib"] for result in results),
            "own_mib": max(result["own_mib"] for result in results),
            "losses": results[0]["losses"],
        }
        for name, results in runs.items()
    }


def report(results):
    """The table, the ratios, and whether both sides computed the same."""
    ours = results["ours"]
    titles = ("CPU s/step", "wall", "peak MiB", "above imports", "ours is faster by", "memory", "above imports")
    print(f"{'variant':38} " + " ".join(f"{title:>17}" for title in titles))
    for name, result in results.items():
        cells = [
            f"{result['cpu']:.3f}",
            f"{result['wall']:.3f}",
            f"{result['peak_mib']:.0f}",
            f"{result['own_mib']:.0f}",
        ]
        if name.startswith("trl"):
            cells += [f"{result['cpu'] / ours['cpu']:.2f}x"]
            cells += [f"{ours[kind] / result[kind]:.2f}" for kind in ("peak_mib", "own_mib")]
        print(f"{name:38} " + " ".join(f"{cell:>17}" for cell in cells))
    for name in (name for name in results if name.startswith("trl")):
        pairs = zip(ours["losses"], results[name]["losses"], strict=True)
        worst = max(abs(mine - theirs) / abs(theirs) for mine, theirs in pairs)
        print(f"largest relative difference of a step's loss, ours and {name}: {worst:.1e}")


def report_sft(results):
    """CPU seconds for one pass over the same conversations."""
    ours = results["ours sft"]
    for name, result in results.items():
        ratio = f"{result['cpu_all'] / ours['cpu_all']:.2f}x" if name != "ours sft" else ""
        print(f"{name:38} {result['cpu_all']:10.1f} CPU s an epoch, peak {result['peak_mib']:.0f} MiB {ratio:>8}")


def main():
    """Parse, prepare once, run every variant in its own process, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("DPO_BENCH_HH"), help="hh_rlhf_harmless/test.jsonl.gz")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3, help="every variant in turn, this often; times are pooled")
    parser.add_argument("--single-turn", action="store_true", help="only pairs whose prompt is a single turn")
    parser.add_argument("--folder", type=Path, help="keep what is prepared here, or reuse it")
    parser.add_argument("--skip-sft", action="store_true", help="DPO only")
    parser.add_argument("--skip-dpo", action="store_true", help="SFT only")
    parser.add_argument("--only", nargs="+", default=VARIANTS, help="DPO: only these variants, by name, and ours")
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        what, folder, *rest = arguments.child
        if what == "prepare":
            prepare(Path(rest[0]), Path(folder), int(rest[1]), rest[2] == "True")
        else:
            measure(Path(folder), what, {**VARIANTS, **SFT_VARIANTS}[what])
        return
    if not arguments.data:
        sys.exit("name the data: --data .../hh_rlhf_harmless/test.jsonl.gz, or DPO_BENCH_HH")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "reference").exists():
            folder.mkdir(exist_ok=True, parents=True)
            in_a_process(
                "--child", "prepare", str(folder), arguments.data, str(arguments.steps), str(arguments.single_turn)
            )
        if not arguments.skip_dpo:
            report(measured([name for name in VARIANTS if name in {*arguments.only, "ours"}], folder, arguments.rounds))
        if not arguments.skip_sft:
            report_sft(measured(SFT_VARIANTS, folder, arguments.rounds))


if __name__ == "__main__":
    main()
