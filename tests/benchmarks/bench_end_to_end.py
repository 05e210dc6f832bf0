"""From a dirty export file to tables and report: CPU seconds, seconds and peak memory of every stage.

    python tests/benchmarks/bench_end_to_end.py --records 1000000

Read, sketch, build and report are a process each, against 150 s and 1 GiB together. Then a second drop of 1 %, read,
sketched and built into the tables with the first build's likenesses, and one of a single record in its stead: what the
first takes more than that is its own work, which grows with it; the rest is the same for any drop, however small. It is
told apart into what is fixed (read and sketch of one record, imports), index, annotators' model and writing the tables.
The files are made from a seed beforehand.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_preferences import Pair, World, _Print, _report, _sketch, measured
from bench_reading import DEFECTS, DROP_YAML

MOST_SECONDS, MOST_MIB = 150, 1_024
MOST_SENTENCES = 2_000_000
"""Distinct sentences texts are made of: bounds the memory of making the file."""
STEPS = {"imports": "", "index": "near duplicates:", "model": "pairs decided", "writing": ""}
"""Steps of a build, each with words of the sentence that ends it; the first and the last end with the work itself."""


def export(folder: Path, count: int, seed: int, dirty: float) -> int:
    """Write a file of `count` records of about 1 KB, a fifth on pairs judged before, some broken; return its bytes.

    Annotators prefer the longer response with 85 % of their votes; one in twenty guesses.
    """
    world = World(seed, sentences=min(max(22_000, count // 2), MOST_SENTENCES))
    chance, defect = np.random.default_rng(seed), random.Random(seed)
    folder.mkdir(parents=True)
    (folder / "drop.yaml").write_text(DROP_YAML)
    kept: list[Pair] = []
    with (folder / "export.jsonl").open("wb") as stream:
        for number in range(count):
            draw = chance.random()
            if draw < 0.2 and kept:
                kind = "exact" if draw < 0.1 else ("swapped", "spelling", "words_5_percent")[number % 3]
                pair = world.copy(kept[int(chance.integers(0, len(kept)))], kind)
            else:
                pair = world.pair()
                if len(kept) < 200_000:
                    kept.append(pair)
                else:
                    kept[int(chance.integers(0, len(kept)))] = pair
            worker = defect.randrange(500)
            is_right = defect.random() < (0.5 if worker % 20 == 0 else 0.85)
            prefers_a = (len(pair.a) > len(pair.b)) == is_right
            verdict = 4 if defect.random() < 0.08 else defect.randrange(1, 4) + (0 if prefers_a else 4)
            record = {"id": number, "prompt": pair.prompt, "response_1": pair.a, "response_2": pair.b,
                      "verdict": verdict, "worker": f"w{worker}", "seconds": 41.5,
                      "at": "2026-09-01T10:11:12Z", "why": "ratio 3:1, shorter"}  # fmt: skip
            line = json.dumps(record).encode()
            stream.write((defect.choice(DEFECTS)(line) if defect.random() < dirty else line) + b"\n")
        return stream.tell()


def read(raw: str, root: str, drop: str) -> dict:
    """Read one drop into folders below `root`; return how many records were kept and rejected."""
    from dpo_pipeline.annotations.read import read_drop
    from dpo_pipeline.annotations.settings import AnnotationSettings

    folders = {name: Path(root) / name for name in ("judgments", "rejected", "demonstrations")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    books = read_drop(
        Path(raw), drop=drop, settings=AnnotationSettings(), pseudonym_key=b"key", reporter=_Print(), **folders
    ).books
    return {"records": books.records_in, "rejected": books.rejected_count}


class _Clock(_Print):
    """Notes at how many CPU seconds the steps of a build end."""

    def __init__(self) -> None:
        self.ends = {}

    def say(self, sentence: str) -> None:
        super().say(sentence)
        self.ends |= {step: time.process_time() for step, words in STEPS.items() if words and words in sentence}


def build(drops: list[tuple[str, str]], out: str, known: list[str]) -> dict:
    """Build the tables of drops given as folders of judgments and sketches; return CPU seconds by step."""
    start, clock = time.process_time(), _Clock()
    from dpo_pipeline.preferences.build import DropTables, build_pairs
    from dpo_pipeline.preferences.settings import PreferenceSettings

    clock.ends["imports"] = time.process_time()
    tables = [DropTables(f"drop-{n}", Path(one), Path(two)) for n, (one, two) in enumerate(drops)]
    Path(out).mkdir()
    paths = [Path(folder) for folder in known]
    build_pairs(tables, Path(out), settings=PreferenceSettings(), reporter=clock, known=paths)
    clock.ends["writing"] = time.process_time()
    ends = [clock.ends[step] for step in STEPS]
    return {step: round(end - before, 2) for step, before, end in zip(STEPS, [start, *ends], ends, strict=False)}


def shares(first: float, second: list[dict], least: list[dict]) -> dict[str, dict[str, float]]:
    """What a second drop costs, in CPU seconds and per cent of the first: its own work, and what any drop costs.

    Args:
        first: CPU seconds of the first drop, read, sketched and built.
        second: Lines of the second drop's reading, sketch and build.
        least: The same of a drop of one record.
    """
    read_and_sketch, steps = sum(line["cpu_s"] for line in least[:2]), least[2]["result"]
    seconds = {
        "all": sum(line["cpu_s"] for line in second),
        "own_work": sum(line["cpu_s"] for line in second) - sum(line["cpu_s"] for line in least),
        "fixed": read_and_sketch + steps["imports"],
        **{step: steps[step] for step in ("index", "model", "writing")},
    }
    return {name: {"cpu_s": round(some, 2), "per_cent": round(100 * some / first, 2)} for name, some in seconds.items()}


def main() -> None:
    """Make both drops, run every stage, print one line each and the totals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--dirty", type=float, default=0.0075)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--keep", help="folder for everything made; the export files in it are used again")
    given = parser.parse_args()

    def stage(name: str, work, *arguments) -> dict:
        line = {"stage": name, **measured(work, *arguments)}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        return line

    root = Path(given.keep or tempfile.mkdtemp())
    drops = []
    for number, count in enumerate((given.records, given.records // 100, 1)):
        raw, drop = root / f"raw-{number}" / "files", root / f"drop-{number}"
        drops.append((str(drop / "judgments"), str(drop / "sketches")))
        if not raw.exists():
            stage(
                f"make file {number} (apart)", export, raw, count, given.seed + number, given.dirty if number < 2 else 0
            )
        for made in (drop, root / "first", root / "second", root / "least", root / "report"):
            shutil.rmtree(made, ignore_errors=True)
        (drop / "sketches").mkdir(parents=True)
    first, report = str(root / "first"), str(root / "report")
    Path(report).mkdir()
    lines = [
        stage("read", read, str(root / "raw-0"), str(root / "drop-0"), "drop-0"),
        stage("sketch", _sketch, *drops[0]),
        stage("build", build, drops[:1], first, []),
    ]
    totals = {name: round(sum(line[name] for line in lines), 1) for name in ("cpu_s", "s")}
    peak = max(line["peak_mb"] for line in lines)
    fits = totals["s"] <= MOST_SECONDS and peak <= MOST_MIB
    sys.stdout.write(json.dumps({"total": totals, "peak_mb": peak, "within_150_s_and_1_gib": fits}) + "\n")
    stage("report (apart)", _report, *drops[0], first, report)
    second, least = (
        [
            stage(f"{name}: read", read, str(root / f"raw-{number}"), str(root / f"drop-{number}"), "drop-1"),
            stage(f"{name}: sketch", _sketch, *drops[number]),
            stage(f"{name}: build", build, [drops[0], drops[number]], str(root / name), [first]),
        ]
        for number, name in ((1, "second"), (2, "least"))
    )
    sys.stdout.write(json.dumps({"second_drop": shares(totals["cpu_s"], second, least)}) + "\n")
    if given.keep is None:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
