"""Benchmark of the preferences room: a large build from judgments to tables.

    python tests/benchmarks/bench_preferences.py --judgments 1000000

Writes judgments of about 1 KB and runs sketch, build and report, each in a process of its own, with its CPU seconds,
seconds and peak memory.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from planting import Pair, World, judgments_of, measured

from dpo_pipeline.annotations.schemas import JUDGMENTS
from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.core.tables import ROW_GROUP_ROWS, open_writer
from dpo_pipeline.preferences.settings import PreferenceSettings


def generate(folder: str, count: int, seed: int) -> int:
    """Write a judgments table of `count` rows, a fifth of them on pairs judged before; return its bytes of text."""
    world = World(seed, sentences=max(22_000, count // 2))
    chance = np.random.default_rng(seed)
    kept: list[Pair] = []
    size = 0
    with open_writer(Path(folder) / "judgments.parquet", JUDGMENTS) as writer:
        for start in range(0, count, ROW_GROUP_ROWS):
            pairs = []
            for _ in range(min(ROW_GROUP_ROWS, count - start)):
                draw = chance.random()
                if draw < 0.2 and kept:
                    pair = kept[int(chance.integers(0, len(kept)))]
                    kind = "exact" if draw < 0.1 else ("swapped", "spelling", "words_5_percent")[int(draw * 1000) % 3]
                    pairs.append(world.copy(pair, kind))
                else:
                    pairs.append(Pair(world.text(1, 4), world.text(2, 8), world.text(2, 8)))
                    if chance.random() < 0.3:
                        kept.append(pairs[-1])
            kept = kept[-200_000:]
            size += sum(len(text) for pair in pairs for text in pair)
            writer.write_table(judgments_of(pairs, start, chance))
    return size


def _sketch(judgments: str, sketches: str) -> dict:
    from dpo_pipeline.preferences.sketch import sketch_drop

    return dict(sketch_drop(Path(judgments), Path(sketches), settings=PreferenceSettings(), reporter=_Print()).counts)


def _build(judgments: str, sketches: str, out: str) -> dict:
    from dpo_pipeline.preferences.build import DropTables, build_pairs

    drops = [DropTables("bench", Path(judgments), Path(sketches))]
    return dict(build_pairs(drops, Path(out), settings=PreferenceSettings(), reporter=_Print()).counts)


def _report(judgments: str, sketches: str, pairs: str, out: str) -> dict:
    from dpo_pipeline.preferences.annotators import report_annotators
    from dpo_pipeline.preferences.build import DropTables

    drops = [DropTables("bench", Path(judgments), Path(sketches))]
    return dict(
        report_annotators(drops, Path(pairs), Path(out), settings=PreferenceSettings(), reporter=_Print()).counts
    )


class _Print(Quiet):
    def say(self, sentence: str) -> None:
        sys.stderr.write(f"{time.process_time():8.1f} {sentence}\n")


def build(count: int, seed: int, keep: str | None) -> None:
    """Print CPU seconds, seconds and peak memory of every stage."""
    root = Path(keep or tempfile.mkdtemp())
    folders = {name: str(root / name) for name in ("judgments", "sketches", "pairs", "report")}
    for name in folders.values():
        if not name.endswith("judgments"):
            shutil.rmtree(name, ignore_errors=True)
        Path(name).mkdir(parents=True, exist_ok=True)
    if not (root / "judgments" / "judgments.parquet").exists():
        sys.stderr.write(f"generated {generate(folders['judgments'], count, seed):,} bytes of text\n")
    stages = {
        "sketch": measured(_sketch, folders["judgments"], folders["sketches"]),
        "build": measured(_build, folders["judgments"], folders["sketches"], folders["pairs"]),
        "report": measured(_report, *folders.values()),
    }
    for name, stage in stages.items():
        sys.stdout.write(json.dumps({"stage": name, **stage}) + "\n")
    if keep is None:
        shutil.rmtree(root)


def main() -> None:
    """Run the benchmark with the sizes of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgments", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--keep", help="folder for the tables; kept, and its judgments used again")
    given = parser.parse_args()
    build(given.judgments, given.seed, given.keep)


if __name__ == "__main__":
    main()
