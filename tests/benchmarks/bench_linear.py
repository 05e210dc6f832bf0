"""Does the cost of a pair depend on how many there are? DPO's preparation and its steps at three sizes of table.

    python -m tests.benchmarks.bench_linear --sizes 2000 20000 200000

Each size runs in a process of its own: `train_dpo` as the product calls it, stopped after some steps. Preparation is
all that comes before the first step (reading, template, tokens, groups, reference table, plan of steps, identity of
the work); a step takes 16 pairs. The model is the demo's, from random numbers. The reference table holds zeros, since
making a true one is not what is measured, so the check that it is the policy's own is left out.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

WORDS = [
    f"{first}{second}"
    for first in ("lam", "chai", "ket", "pho", "rou", "des")
    for second in ("p", "r", "tle", "ne", "ter", "k")
]
STEPS, BATCH = 120, 16


def texts(count):
    """Prompts that are all different, and two responses each."""
    chance = random.Random(7)
    for number in range(count):
        sentences = (" ".join(chance.choices(WORDS, k=chance.randint(8, 24))) for _ in range(3))
        prompt, chosen, rejected = sentences
        yield [{"role": "user", "content": f"Order {number}: {prompt}"}], chosen, rejected


def prepare(folder, count):
    """The tables and the checkpoint of one size."""
    import numpy as np
    import pyarrow as pa

    from dpo_pipeline.core.tables import write_table
    from dpo_pipeline.dpo.pairs import encode_rows
    from dpo_pipeline.dpo.reference import TABLE, _keys, _write
    from dpo_pipeline.modeling.base import open_base
    from dpo_pipeline.modeling.device import choose_device
    from dpo_pipeline.modeling.encoder import Encoder
    from dpo_pipeline.modeling.policy import policy_digest, save_policy

    rows = list(texts(count))
    settings, device = model_settings(), choose_device(compute())
    corpus = [text for prompt, *replies in rows[:500] for text in (prompt[0]["content"], *replies)]
    model, tokenizer = open_base(settings, corpus=corpus, device=device)
    save_policy(model, tokenizer, folder / "sft" / "model", settings=settings)
    (folder / "pairs").mkdir()
    table = {
        "pair_id": [f"pair {number}" for number in range(count)],
        "split": ["train"] * count,
        "prompt": [row[0] for row in rows],
        "chosen": [row[1] for row in rows],
        "rejected": [row[2] for row in rows],
        "p_chosen": [1.0] * count,
        "margin": [1.0] * count,
    }
    write_table(folder / "pairs" / "pairs.parquet", pa.table(table))
    encoded, known = encode_rows(folder / "pairs", Encoder(tokenizer, max_length=settings.max_length))
    keys = _keys(encoded.pairs, policy_digest(folder / "sft" / "model"), device.precision)
    (folder / "reference").mkdir()
    _write(folder / "reference" / TABLE, known, encoded.pairs, keys, np.zeros((len(keys), 2)))


def model_settings():
    from dpo_pipeline.profiles import load_profile

    return load_profile("demo").model


def compute():
    from dpo_pipeline.modeling.settings import ComputeSettings

    return ComputeSettings(device="cpu", threads=1)


class Enough(Exception):  # noqa: N818  no error
    """As many steps as are measured have been done."""


class Clock:
    """A reporter that notes CPU seconds at each step and ends the training after STEPS."""

    def __init__(self):
        self.started, self.at = time.process_time(), []

    def say(self, sentence):
        """Nothing."""

    def note(self, **facts):
        """Nothing."""

    def metrics(self, step, _values):
        """Note the time."""
        self.at.append(time.process_time())
        if step == STEPS:
            raise Enough


def measure(folder, count):
    """One size, in this process."""
    from dpo_pipeline.dpo import train as stage
    from dpo_pipeline.dpo.settings import DpoSettings
    from dpo_pipeline.modeling.settings import OptimizerSettings

    stage.assert_same_policy = lambda *_: None
    clock = Clock()
    dpo = DpoSettings(batch_size=BATCH, optimizer=OptimizerSettings(learning_rate=1e-5))
    out = folder / "out"
    out.mkdir()
    with suppress(Enough):
        stage.train_dpo(
            folder / "pairs", folder / "reference", folder / "sft", out, work=folder / "work", dpo=dpo,
            model=model_settings(), compute=compute(), reporter=clock,
        )  # fmt: skip
    steps = [after - before for before, after in zip(clock.at, clock.at[1:], strict=False)]
    figures = {
        "pairs": count,
        "preparation_s": clock.at[0] - clock.started - statistics.median(steps),
        "step_ms": 1_000 * statistics.median(steps),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print("RESULT " + json.dumps(figures))


def main():
    """Measure every size in processes of their own and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        what, folder, count = arguments.child
        {"prepare": prepare, "measure": measure}[what](Path(folder), int(count))
        return
    for count in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
            for what in ("prepare", "measure"):
                command = [sys.executable, __file__, "--child", what, folder, str(count)]
                done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
                if done.returncode:
                    sys.exit(done.stdout + done.stderr)
        found = json.loads(done.stdout.rpartition("RESULT ")[2])
        seconds = found["preparation_s"]
        print(
            f"{count:9,} pairs: preparation {seconds:7.2f} CPU s, {1e6 * seconds / count:6.0f} us a pair; "
            f"a step {found['step_ms']:6.1f} ms; peak {found['peak_mib']:6.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
