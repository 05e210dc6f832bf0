"""How memory grows with the rows: sketch, build and annotator report at several sizes, short texts made in a stream.

    python tests/benchmarks/bench_memory.py --judgments 1000000 10000000

Three in ten rows are on a pair that occurred before (the same, A and B swapped, or one word edited); two in ten share
an earlier prompt. Annotators call that response right whose first word comes first in the list, with 85 % of their
verdicts, so that most pairs are kept. Each stage is a process of its own. `anonymous_mb` is what the system cannot take
back; the rest of `peak_mb` is pages of mapped files. The slope is in bytes a judgment, from one size to the next.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bench_preferences import _report, _sketch
from bench_tables import build
from planting import measured

from dpo_pipeline.annotations.schemas import JUDGMENTS
from dpo_pipeline.core.tables import MESSAGES, ROW_GROUP_ROWS, open_writer

WORDS, PROMPT_WORDS, RESPONSE_WORDS = 30_000, 10, 14
DAYS, REASONS = 200, 5_000
"""Over how many days judgments are spread, and how many justifications there are."""
KEPT_GROUPS = 50
"""Row groups that copies are taken from."""


def generate(folder: str, count: int, seed: int) -> int:
    """Write a judgments table of `count` rows; return its bytes."""
    chance, path = np.random.default_rng(seed), Path(folder) / "judgments.parquet"
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = pa.array(["".join(chance.choice(letters, size=n)) for n in chance.integers(3, 10, WORDS)])
    kept: list[np.ndarray] = []
    with open_writer(path, JUDGMENTS) as writer:
        for start in range(0, count, ROW_GROUP_ROWS):
            size = min(ROW_GROUP_ROWS, count - start)
            picked = chance.integers(0, WORDS, (size, PROMPT_WORDS + 2 * RESPONSE_WORDS), np.int32)
            draw = chance.random(size)
            if kept:
                earlier = kept[int(chance.integers(0, len(kept)))]
                earlier = earlier[chance.integers(0, len(earlier), size)]
                copied = draw < 0.3
                picked[copied] = earlier[copied]
                edited = np.flatnonzero(draw < 0.05)
                picked[edited, chance.integers(0, picked.shape[1], len(edited))] = 7
                same_prompt = (draw >= 0.3) & (draw < 0.5)
                picked[same_prompt, :PROMPT_WORDS] = earlier[same_prompt, :PROMPT_WORDS]
            kept = [*kept[-KEPT_GROUPS:], picked]
            writer.write_table(_table(picked, words, start, draw < 0.15, chance))
    return path.stat().st_size


def _table(picked: np.ndarray, words: pa.Array, start: int, swap: np.ndarray, chance: np.random.Generator) -> pa.Table:
    """One judgment on each pair of texts, given as places in `words`; some show the second response first."""
    count = len(picked)
    cuts = np.split(picked, [PROMPT_WORDS, PROMPT_WORDS + RESPONSE_WORDS], axis=1)
    prompt, low, high = (
        pc.binary_join_element_wise(*(words.take(pa.array(column)) for column in cut.T), " ") for cut in cuts
    )
    sides = pa.array(swap)
    turns = pa.StructArray.from_arrays([pa.array(["user"] * count), prompt], fields=list(MESSAGES.value_type))
    low_is_right = picked[:, PROMPT_WORDS] < picked[:, PROMPT_WORDS + RESPONSE_WORDS]
    is_a = (low_is_right != swap) == (chance.random(count) < 0.85)
    columns = {
        "judgment_id": pa.array([f"{number:032x}" for number in range(start, start + count)]),
        "record_number": pa.array(np.arange(start + 1, start + count + 1)),
        "prompt": pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32)), turns, type=MESSAGES),
        "response_a": pc.if_else(sides, high, low),
        "response_b": pc.if_else(sides, low, high),
        "choice": pc.if_else(pa.array(is_a), "a", "b"),
        "strength": pa.array(np.where(is_a, -2, 2).astype(np.int8)),
        "annotator": pa.array([f"annotator-{number:03}" for number in chance.integers(0, 500, count)]),
        "dimensions": pa.array([[]] * count, JUDGMENTS.field("dimensions").type),
        "votes": pa.array(np.ones(count, np.int32)),
        "sft_allowed": pa.array(np.ones(count, bool)),
        "shown_first": pc.if_else(pa.array(chance.random(count) < 0.5), "a", "b"),
        "seconds": pa.array(chance.gamma(2, 20, count).astype(np.float32)),
        "judged_at": pa.array(chance.integers(0, DAYS, count) * 86_400_000_000, JUDGMENTS.field("judged_at").type),
        "justification": pc.binary_join_element_wise("It says", words.take(pa.array(picked[:, 0] % REASONS)), " "),
    }
    rest = {field.name: pa.nulls(count, field.type) for field in JUDGMENTS if field.nullable}
    text = {name: pa.array(["bench"] * count) for name in ("drop", "source", "file", "file_sha256")}
    every = {**rest, **text, **columns}
    return pa.Table.from_arrays([every[field.name] for field in JUDGMENTS], schema=JUDGMENTS)


def main() -> None:
    """Make a drop of every size, sketch and build it, print one line each and the slopes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgments", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--keep", help="folder for everything made; judgments and sketches in it are used again")
    given = parser.parse_args()
    before: dict[str, tuple[int, dict]] = {}
    for count in given.judgments:
        root = Path(given.keep or tempfile.mkdtemp()) / str(count)
        drop, pairs, report = (
            (str(root / "judgments"), str(root / "sketches")),
            str(root / "pairs"),
            str(root / "report"),
        )
        stages = [("make", generate, (drop[0], count, given.seed)), ("sketch", _sketch, drop),
                  ("build", build, ([drop], pairs, [])), ("report", _report, (*drop, pairs, report))]  # fmt: skip
        for folder in (pairs, report):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (*drop, report):
            Path(folder).mkdir(parents=True, exist_ok=True)
        if any(Path(drop[1]).iterdir()):
            stages = stages[2:]
        for name, work, arguments in stages:
            line = {"judgments": count, "stage": name, **measured(work, *arguments)}
            if name in before:
                rows, old = before[name]
                line["slope_bytes"] = {
                    kind: round((line[kind] - old[kind]) * 2**20 / (count - rows), 1)
                    for kind in ("peak_mb", "anonymous_mb")
                }
            before[name] = (count, line)
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        if given.keep is None:
            shutil.rmtree(root.parent)


if __name__ == "__main__":
    main()
