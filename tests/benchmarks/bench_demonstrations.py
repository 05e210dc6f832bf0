"""What many demonstrations cost the ledger of splits, and whether one they taught is held out later: planted truth.

    python tests/benchmarks/bench_demonstrations.py --demonstrations 300000 --pairs 100000
    python tests/benchmarks/bench_demonstrations.py --demonstrations 20000 --pairs 5000 --templated 24

A first drop brings demonstrations, a second one pairs; a tenth of these ask what a demonstration asks, every other of
them with one word replaced. With `--templated` all prompts are made from one template of so many words, four of which
are others. The second drop is built by both rules of `preferences.demonstrated_earlier`: what `train` takes more than
`draw` is the price of knowing the demonstrations. Every stage is a process of its own.

Leaks are held-out prompts that were planted (`held_out_as_planted`), and, of at most a thousand held-out ones, those
that have half of their word pairs in common with any demonstration, all of them looked at (`held_out_by_similarity`):
MinHash may miss such a one, if seldom, as everywhere in the split.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from planting import Pair, judgments_of, measured

from dpo_pipeline.annotations.schemas import DEMONSTRATIONS
from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.core.tables import MESSAGES, ROW_GROUP_ROWS, open_writer, write_table
from dpo_pipeline.preferences.build import DropTables, build_pairs
from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.normalize import prompt_keys
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.sketch import sketch_drop

VOCABULARY, WORDS, REPLACED = 30_000, 14, 4
PLANTED = 0.1
COMPARED = 1_000


class Prompts:
    """Prompts as places of their words: those of demonstrations, those of pairs, and which of these are planted."""

    def __init__(self, demonstrations: int, pairs: int, *, templated: int, seed: int) -> None:
        self._chance = np.random.default_rng(seed)
        letters = np.array(list("etaoinshrdlucmfwypvbgk"))
        self._words = pa.array(["".join(self._chance.choice(letters, 8)) for _ in range(VOCABULARY)])
        self._template = self._chance.integers(0, VOCABULARY, templated)
        self.taught, self.asked = self._drawn(demonstrations), self._drawn(pairs)
        self.is_planted = self._chance.random(pairs) < PLANTED
        count = int(self.is_planted.sum())
        copies = self.taught[self._chance.integers(0, demonstrations, count)]
        nearly = np.arange(0, count, 2)
        copies[nearly, self._chance.integers(0, copies.shape[1], len(nearly))] = self._chance.integers(
            0, VOCABULARY, len(nearly)
        )
        self.asked[self.is_planted] = copies

    def _drawn(self, count: int) -> np.ndarray:
        if not len(self._template):
            return self._chance.integers(0, VOCABULARY, (count, WORDS))
        rows = np.tile(self._template, (count, 1))
        for row in rows:
            row[self._chance.choice(len(row), REPLACED, replace=False)] = self._chance.integers(0, VOCABULARY, REPLACED)
        return rows

    def texts(self, rows: np.ndarray) -> pa.StringArray:
        return pc.binary_join_element_wise(*(self._words.take(pa.array(column)) for column in rows.T), " ")

    def ids(self) -> np.ndarray:
        """What the pairs' prompts are called."""
        texts = self.texts(self.asked).to_pylist()
        return np.array(to_hex(prompt_keys(pa.array([[{"role": "user", "content": one}] for one in texts], MESSAGES))))

    def like_demonstrations(self, some: np.ndarray) -> int:
        """How many of some of the pairs' prompts share half of their word pairs with one of the demonstrations."""
        every = _word_pairs(self.taught)
        order = np.argsort(every, axis=None, kind="stable")
        known, of = every.ravel()[order], order // every.shape[1]
        count = 0
        for row in _word_pairs(self.asked[some]):
            start, stop = np.searchsorted(known, row), np.searchsorted(known, row, "right")
            shared = np.bincount(np.concatenate([of[low:high] for low, high in zip(start, stop, strict=True)]))
            count += bool((2 * shared >= 2 * len(row) - shared).any())
        return count


def _word_pairs(rows: np.ndarray) -> np.ndarray:
    return rows[:, :-1] * VOCABULARY + rows[:, 1:]


def make(root: Path, prompts: Prompts) -> list[tuple[str, str]]:
    """Write both drops; return the folders of their judgments and sketches. The first has one pair."""
    (demonstrations := root / "demonstrations").mkdir()
    with open_writer(demonstrations / "demonstrations.parquet", DEMONSTRATIONS) as writer:
        for start in range(0, len(prompts.taught), ROW_GROUP_ROWS):
            rows = prompts.texts(prompts.taught[start : start + ROW_GROUP_ROWS]).to_pylist()
            writer.write_table(_demonstrations(rows, start))
    drops = []
    for number, texts in enumerate((["Who is there?"], prompts.texts(prompts.asked).to_pylist())):
        judgments, sketches = root / f"judgments-{number}", root / f"sketches-{number}"
        judgments.mkdir()
        sketches.mkdir()
        pairs = [Pair(text, f"Answer {at}.", f"Other answer {at}.") for at, text in enumerate(texts)]
        write_table(judgments / "judgments.parquet", judgments_of(pairs, number, np.random.default_rng(number)))
        drops.append((str(judgments), str(sketches)))
    return drops


def _demonstrations(texts: list[str], start: int) -> pa.Table:
    rows = [
        {
            "demonstration_id": f"{start + at:032x}",
            "drop": "bench",
            "source": "bench",
            "file": "bench.jsonl",
            "file_sha256": "0" * 64,
            "record_number": start + at + 1,
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "So it is."}],
        }
        for at, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, schema=DEMONSTRATIONS)


def sketch(judgments: str, sketches: str, demonstrations: str | None) -> dict[str, int]:
    """Sketch a drop; return the counts."""
    given = Path(demonstrations) if demonstrations else None
    settings, reporter = PreferenceSettings(), Quiet()
    into = Path(sketches)
    outcome = sketch_drop(Path(judgments), into, demonstrations=given, settings=settings, reporter=reporter)
    return {name: count for name, count in outcome.counts.items() if "prompts" in name}


def build(drops: list[tuple[str, str]], out: str, rule: str) -> dict[str, int]:
    """Build the tables by a rule; return the counts."""
    tables = [DropTables(f"drop-{n}", Path(one), Path(two)) for n, (one, two) in enumerate(drops)]
    settings = PreferenceSettings.model_validate({"demonstrated_earlier": rule})
    Path(out).mkdir()
    counts = build_pairs(tables, Path(out), settings=settings, reporter=Quiet()).counts
    return {name: count for name, count in counts.items() if "prompts" in name}


def leaks(prompts: Prompts, pairs: Path) -> dict[str, int]:
    """Of the pairs' prompts, those held out and like a demonstration."""
    table = pq.read_table(pairs / "splits.parquet", columns=["prompt_id"], filters=[("split", "=", "held_out")])
    is_held_out = np.isin(prompts.ids(), np.array(table["prompt_id"]))
    held_out = np.flatnonzero(is_held_out)
    return {
        "prompts_planted": int(prompts.is_planted.sum()),
        "prompts_held_out": len(held_out),
        "held_out_as_planted": int((is_held_out & prompts.is_planted).sum()),
        "held_out_by_similarity": prompts.like_demonstrations(held_out[:COMPARED]),
    }


def main() -> None:
    """Make both drops, sketch and build them, print a line each; 1 if a planted prompt is held out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demonstrations", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--templated", type=int, default=0, help="words of a template that all prompts are made from")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    prompts = Prompts(given.demonstrations, given.pairs, templated=given.templated, seed=given.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        drops = make(root, prompts)
        stages = (
            ("sketch: demonstrations", sketch, (*drops[0], str(root / "demonstrations"))),
            ("sketch: pairs", sketch, (*drops[1], None)),
            ("build: draw", build, (drops, str(root / "draw"), "draw")),
            ("build: train", build, (drops, str(root / "train"), "train")),
        )
        for name, work, arguments in stages:
            _say({"stage": name, **measured(work, *arguments)})
        for rule in ("draw", "train"):
            _say({"rule": rule, **(found := leaks(prompts, root / rule))})
    if found["held_out_as_planted"]:
        sys.exit(1)


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
