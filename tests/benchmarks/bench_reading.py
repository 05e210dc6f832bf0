"""How fast an export becomes tables, and how much memory that takes; the input is made from a seed, never stored.

.venv/bin/python tests/benchmarks/bench_reading.py --records 200000 --shape columns --dirty 0.0075
"""

import argparse
import gzip
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from dpo_pipeline.annotations.read import read_drop
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.core.metrics import Quiet

DROP_YAML = """\
mapping: {prompt: prompt, response_a: response_1, response_b: response_2, verdict: verdict, annotator: worker,
          seconds: seconds, judged_at: at, justification: why}
scale: likert_7
"""
VOCABULARY = [f"{start}{end}" for start in ("ba", "ke", "lo", "mi", "ru", "sta", "tre", "vo", "pla", "cri")
              for end in ("n", "ster", "ll", "ther", "ck", "ng", "rd", "st", "ve", "ly")]  # fmt: skip
DEFECTS = (
    lambda line: line[: len(line) // 2],
    lambda line: line.replace(b" ", b" \xff", 1),
    lambda line: line.replace(b'"worker": ', b'"worker": 1, "worker": ', 1),
    lambda line: line.replace(b'"verdict": ', b'"verdict": 99', 1),
    lambda line: line.replace(b'"response_2"', b'"other"', 1),
    lambda line: b'{"prompt": NaN}',
    lambda line: b"[" * 5_000,
    lambda line: line.replace(b" ", b"\\u0000", 1),
)


def text(chance, words):
    return " ".join(chance.choices(VOCABULARY, k=words))


def records(count, shape, chance):
    """Lines of about 1 KB."""
    for number in range(count):
        prompt, a, b = text(chance, 40), text(chance, 55), text(chance, 55)
        if shape == "columns":
            record = {"id": number, "prompt": prompt, "response_1": a, "response_2": b,
                      "verdict": chance.randrange(1, 8), "worker": f"w{chance.randrange(500)}", "seconds": 41.5,
                      "at": "2026-09-01T10:11:12Z", "why": "ratio 3:1, shorter"}  # fmt: skip
        else:
            turns = [{"role": "user", "content": prompt}]
            record = {"prompt": turns, "chosen": [{"role": "assistant", "content": a}],
                      "rejected": [{"role": "assistant", "content": b}]}  # fmt: skip
        yield json.dumps(record).encode()


def write_input(folder, arguments):
    chance = random.Random(arguments.seed)
    folder.mkdir(parents=True)
    if arguments.shape == "columns":
        (folder / "drop.yaml").write_text(DROP_YAML)
    opened = gzip.open if arguments.gz else open
    planted = size = 0
    with opened(folder / f"export.jsonl{'.gz' if arguments.gz else ''}", "wb") as stream:
        for line in records(arguments.records, arguments.shape, chance):
            if chance.random() < arguments.dirty:
                planted += 1
                line = chance.choice(DEFECTS[: 3 if arguments.shape != "columns" else None])(line)  # noqa: PLW2901
            stream.write(line + b"\n")
            size += len(line) + 1
    return planted, size


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--shape", choices=("columns", "trl"), default="columns")
    parser.add_argument("--dirty", type=float, default=0.0075)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gz", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        root = Path(home)
        planted, size = write_input(root / "raw" / "files", arguments)
        for name in ("judgments", "rejected", "demonstrations"):
            (root / name).mkdir()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cpu, wall = time.process_time(), time.perf_counter()
        outcomes = read_drop(
            root / "raw",
            drop="bench",
            settings=AnnotationSettings(),
            pseudonym_key=b"key",
            judgments=root / "judgments",
            rejected=root / "rejected",
            demonstrations=root / "demonstrations",
            reporter=Quiet(),
        )
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        written = sum(path.stat().st_size for path in root.rglob("*.parquet"))
    books = outcomes.books
    print(
        f"{arguments.shape}{' gz' if arguments.gz else ''}: {books.records_in} records, {size / 1e6:.0f} MB, "
        f"{planted} planted defects, {books.rejected_count} rejected; {cpu:.2f} CPU-s, {wall:.2f} s wall, "
        f"{books.records_in / cpu:.0f} records per CPU-s, {size / 1e6 / cpu:.0f} MB per CPU-s; "
        f"peak {peak / 1024:.0f} MiB (before reading {before / 1024:.0f}); {written / 1e6:.0f} MB of Parquet"
    )


if __name__ == "__main__":
    main()
