"""How fast an export becomes tables, and how much memory that takes; the input is made from a seed, never stored.

    .venv/bin/python tests/benchmarks/bench_reading.py --records 200000 --shape columns --dirty 0.0075 --peers

CPU seconds of a shared machine vary; the yardsticks of the same run (`--peers`) say what it could do at that moment.
"""

import argparse
import gzip
import json
import random
import resource
import tempfile
import time
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

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
SENTENCES = 20_000
DEFECTS = (
    lambda line: line[: len(line) // 2],
    lambda line: line.replace(b" ", b" \xff", 1),
    lambda line: line.replace(b'"id": ', b'"id": 1, "id": ', 1),
    lambda line: b'{"prompt": NaN}',
    lambda line: b"[" * 5_000,
    lambda line: line.replace(b'": "', b'": "\\u0000', 1).replace(b'"content": "', b'"content": "\\u0000', 1),
)


def texts(chance):
    """Sentences to draw texts from, so that making the input does not take longer than reading it."""
    return [" ".join(chance.choices(VOCABULARY, k=15)) + "." for _ in range(SENTENCES)]


def records(count, shape, chance):
    """Lines of about 1 KB."""
    sentences = texts(chance)
    for number in range(count):
        prompt, a, b = (" ".join(chance.choices(sentences, k=size)) for size in (2, 4, 4))
        if shape == "trl":
            turns = [{"role": "user", "content": prompt}]
            record = {"id": number, "prompt": turns, "chosen": [{"role": "assistant", "content": a}],
                      "rejected": [{"role": "assistant", "content": b}]}  # fmt: skip
        elif shape == "label_studio":
            result = {"from_name": "pw", "to_name": "t", "type": "pairwise", "value": {"selected": "left"}}
            record = {"id": number, "data": {"prompt": prompt, "text1": a, "text2": b},
                      "annotations": [{"id": number, "completed_by": number % 500, "result": [result]}]}  # fmt: skip
        else:
            record = {"id": number, "prompt": prompt, "response_1": a, "response_2": b,
                      "verdict": chance.randrange(1, 8), "worker": f"w{chance.randrange(500)}", "seconds": 41.5,
                      "at": "2026-09-01T10:11:12Z", "why": "ratio 3:1, shorter"}  # fmt: skip
        yield json.dumps(record).encode()


def write_input(folder, arguments):
    """The export, its count of planted defects and its size in bytes."""
    chance = random.Random(arguments.seed)
    folder.mkdir(parents=True)
    if arguments.shape == "columns":
        (folder / "drop.yaml").write_text(DROP_YAML)
    is_array = arguments.shape == "label_studio"
    opened = gzip.open if arguments.gz else open
    planted = size = 0
    with opened(folder / f"export.json{'' if is_array else 'l'}{'.gz' if arguments.gz else ''}", "wb") as stream:
        stream.write(b"[" if is_array else b"")
        for line in records(arguments.records, arguments.shape, chance):
            if chance.random() < arguments.dirty and not is_array:
                planted += 1
                line = chance.choice(DEFECTS)(line)  # noqa: PLW2901
            stream.write(line + (b",\n" if is_array else b"\n"))
            size += len(line) + 1
        stream.write(b"]" if is_array else b"")
    return planted, size


def measured(work):
    """What `work` returns, and the CPU and wall seconds it took."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def peers(arguments):
    """Yardsticks on clean input: decoding alone, and pyarrow's own reader, which stops at a bad line."""
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "clean.jsonl"
        lines = list(records(arguments.records, arguments.shape, random.Random(arguments.seed)))
        path.write_bytes(b"\n".join(lines))
        decode = msgspec.json.Decoder().decode
        _, cpu, _ = measured(lambda: [None for line in lines if decode(line) is None])
        print(f"  peer: msgspec decoding alone, nothing kept: {len(lines) / cpu:.0f} records per CPU-s")

        def arrow():
            with pj.open_json(path) as reader, pq.ParquetWriter(Path(home) / "x.parquet", reader.schema) as writer:
                for batch in reader:
                    writer.write_table(pa.Table.from_batches([batch]))

        _, cpu, _ = measured(arrow)
        print(f"  peer: pyarrow JSON to Parquet, unchecked: {len(lines) / cpu:.0f} records per CPU-s")


def main():
    """Make the input, read it, print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--shape", choices=("columns", "trl", "label_studio"), default="columns")
    parser.add_argument("--dirty", type=float, default=0.0075)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gz", action="store_true")
    parser.add_argument("--peers", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        root = Path(home)
        planted, size = write_input(root / "raw" / "files", arguments)
        folders = {name: root / name for name in ("judgments", "rejected", "demonstrations")}
        for folder in folders.values():
            folder.mkdir()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcomes, cpu, wall = measured(
            lambda: read_drop(
                root / "raw",
                drop="bench",
                settings=AnnotationSettings(),
                pseudonym_key=b"key",
                reporter=Quiet(),
                **folders,
            )
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        written = sum(path.stat().st_size for path in root.rglob("*.parquet"))
    books = outcomes.books
    name = f"{arguments.shape}{' gz' if arguments.gz else ''}"
    print(
        f"{name}: {books.records_in} records of {size / books.records_in:.0f} bytes, {planted} planted defects, "
        f"{books.rejected_count} rejected; {cpu:.2f} CPU-s, {wall:.2f} s wall, {books.records_in / cpu:.0f} records "
        f"per CPU-s, {size / 1e6 / cpu:.0f} MB per CPU-s; peak {peak / 1024:.0f} MiB (before reading "
        f"{before / 1024:.0f}); {written / 1e6:.0f} MB of Parquet"
    )
    if arguments.peers:
        peers(arguments)


if __name__ == "__main__":
    main()
