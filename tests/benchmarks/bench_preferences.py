"""Benchmark of the preferences room: near duplicates against datasketch, and a large build from judgments to tables.

    python tests/benchmarks/bench_preferences.py near --pairs 20000
    python tests/benchmarks/bench_preferences.py build --judgments 1000000

`near` plants duplicates of known kinds and prints recall per kind, precision and rows per CPU second of both sides in
one run. `build` writes judgments of about 1 KB and runs sketch, build and report, each in a process of its own, with
its CPU seconds, seconds and peak memory.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dpo_pipeline.annotations.schemas import JUDGMENTS
from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.core.tables import ROW_GROUP_ROWS, open_writer, write_table
from dpo_pipeline.preferences.settings import PreferenceSettings

KINDS = {
    "exact": 0.05,
    "spelling": 0.03,
    "swapped": 0.02,
    "words_1_to_3": 0.03,
    "words_5_percent": 0.03,
    "words_10_percent": 0.03,
    "words_20_percent": 0.03,
    "sentence_added": 0.03,
    "same_prompt": 0.04,
    "same_prompt_and_one_response": 0.02,
}
NOT_DUPLICATES = {"same_prompt", "same_prompt_and_one_response"}


class Pair(NamedTuple):
    prompt: str
    a: str
    b: str


class World:
    """A seeded source of English-looking pairs: sentences of a Zipf vocabulary, recombined."""

    def __init__(self, seed: int, *, sentences: int = 22_000, vocabulary: int = 12_000) -> None:
        self.chance = np.random.default_rng(seed)
        letters = np.array(list("etaoinshrdlucmfwypvbgk"))
        self.words = ["".join(self.chance.choice(letters, size=n)) for n in self.chance.integers(2, 10, vocabulary)]
        ranks = np.arange(1, vocabulary + 1)
        self.weights = (1 / ranks) / (1 / ranks).sum()
        lengths = self.chance.integers(5, 24, sentences)
        drawn = iter(self.chance.choice(vocabulary, size=int(lengths.sum()), p=self.weights).tolist())
        self.sentences = [
            " ".join(self.words[next(drawn)] for _ in range(length)).capitalize() + "." for length in lengths
        ]

    def text(self, low: int, high: int) -> str:
        picked = self.chance.integers(0, len(self.sentences), self.chance.integers(low, high + 1))
        return " ".join(self.sentences[place] for place in picked)

    def pair(self) -> Pair:
        return Pair(self.text(1, 3), self.text(1, 6), self.text(1, 6))

    def word(self) -> str:
        return self.words[int(self.chance.integers(0, len(self.words)))]

    def edited(self, pair: Pair, *, share: float = 0.0, count: int = 0) -> Pair:
        """The pair with some of its words replaced, dropped, doubled by another or swapped with the next."""
        texts = [text.split() for text in pair]
        places = [(part, place) for part, words in enumerate(texts) for place in range(len(words))]
        count = count or max(1, round(share * len(places)))
        for index in self.chance.choice(len(places), size=min(count, len(places)), replace=False):
            part, place = places[index]
            words = texts[part]
            match int(self.chance.integers(0, 4)):
                case 0:
                    words[place] = self.word()
                case 1:
                    words[place] = "" if len(words) > 1 else words[place]
                case 2:
                    words[place] += " " + self.word()
                case _:
                    other = min(place + 1, len(words) - 1)
                    words[place], words[other] = words[other], words[place]
        return Pair(*(" ".join(word for word in words if word) or self.word() for words in texts))

    def copy(self, pair: Pair, kind: str) -> Pair:
        match kind:
            case "exact":
                return pair
            case "spelling":
                return Pair(pair.prompt.upper(), "  " + pair.a.replace(" ", "  ", 2), pair.b.swapcase() + "\n")
            case "swapped":
                return Pair(pair.prompt, pair.b, pair.a)
            case "words_1_to_3":
                return self.edited(pair, count=int(self.chance.integers(1, 4)))
            case "sentence_added":
                return pair._replace(a=pair.a + " " + self.text(1, 1))
            case "same_prompt":
                return Pair(pair.prompt, self.text(1, 6), self.text(1, 6))
            case "same_prompt_and_one_response":
                return pair._replace(b=self.text(1, 6))
        return self.edited(pair, share=int(kind.split("_")[1]) / 100)


def planted(count: int, seed: int) -> tuple[list[Pair], list[tuple[int, int, str]]]:
    """Pairs in random order, and which is a copy of which, how."""
    world = World(seed)
    copies = [kind for kind, share in KINDS.items() for _ in range(int(share * count))]
    originals = [world.pair() for _ in range(count - len(copies))]
    chosen = world.chance.choice(len(originals), size=len(copies), replace=False)
    pairs = originals + [world.copy(originals[place], kind) for place, kind in zip(chosen, copies, strict=True)]
    order = world.chance.permutation(count)
    position = np.argsort(order)
    truth = [
        (int(position[place]), int(position[len(originals) + number]), kind)
        for number, (place, kind) in enumerate(zip(chosen, copies, strict=True))
    ]
    return [pairs[place] for place in order], truth


def ours(pairs: list[Pair], settings: PreferenceSettings, folder: Path) -> list[int]:
    """Per pair the number of its cluster: a pair and its losers share one."""
    import pyarrow.parquet as pq

    from dpo_pipeline.preferences.catalogue import Catalogue
    from dpo_pipeline.preferences.deduplicate import near_duplicate_pairs
    from dpo_pipeline.preferences.near_duplicates import components
    from dpo_pipeline.preferences.sketch import ROWS_FILE, sketch_drop
    from dpo_pipeline.preferences.texts import DropTables

    _write(folder, pairs)
    sketch_drop(folder, folder, settings=settings, reporter=Quiet())
    catalogue = Catalogue.read([DropTables("drop", folder, folder)])
    count = len(catalogue.pair_ids)
    near = near_duplicate_pairs(catalogue, np.arange(count), settings=settings, reporter=Quiet())
    label = components(count, near.edges)
    return label[pq.read_table(folder / ROWS_FILE).column("pair").to_numpy()].tolist()


def with_datasketch(pairs: list[Pair], threshold: float, *, bands: int, rows: int, words: int) -> list[int]:
    """The same by datasketch: MinHash of the pair's word n-grams, LSH, verified by true Jaccard of the whole pair."""
    import re

    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(num_perm=bands * rows, params=(bands, rows))
    parent = list(range(len(pairs)))
    sets = []
    token = re.compile(r"\w+")

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    def grams(text: str) -> set[bytes]:
        found = token.findall(text.lower())
        return {" ".join(found[i : i + words]).encode() for i in range(max(1, len(found) - words + 1))}

    for number, pair in enumerate(pairs):
        shingles = {b"p" + gram for gram in grams(pair.prompt)} | grams(pair.a) | grams(pair.b)
        sets.append(shingles)
        sketch = MinHash(num_perm=bands * rows, seed=1)
        sketch.update_batch(shingles)
        for other in lsh.query(sketch):
            if len(shingles & sets[other]) >= threshold * len(shingles | sets[other]):
                parent[root(number)] = root(other)
        lsh.insert(number, sketch)
    return [root(place) for place in range(len(pairs))]


def judge(cluster: list[int], truth: list[tuple[int, int, str]]) -> dict[str, float]:
    """Recall per planted kind, and precision: the share of clustered rows beside a true copy."""
    hits, totals = Counter(), Counter()
    relatives: dict[int, set[int]] = {}
    for first, second, kind in truth:
        totals[kind] += 1
        hits[kind] += cluster[first] == cluster[second]
        if kind not in NOT_DUPLICATES:
            relatives.setdefault(first, set()).add(second)
            relatives.setdefault(second, set()).add(first)
    members: dict[int, list[int]] = {}
    for place, number in enumerate(cluster):
        members.setdefault(number, []).append(place)
    removed = wrong = 0
    for group in members.values():
        if len(group) > 1:
            removed += len(group) - 1
            wrong += sum(1 for place in group[1:] if not relatives.get(place, set()) & set(group))
    result = {kind: round(hits[kind] / totals[kind], 4) for kind in KINDS if totals[kind]}
    return result | {"precision": round(1 - wrong / max(removed, 1), 5), "removed": removed}


def _write(folder: Path, pairs: list[Pair]) -> None:
    write_table(folder / "judgments.parquet", _table(pairs, 0, np.random.default_rng(0)))


def _table(pairs: list[Pair], start: int, chance: np.random.Generator) -> pa.Table:
    count = len(pairs)
    # Annotators agree that the longer response is better, with 85 % of their votes; one in twenty guesses.
    annotator = chance.integers(0, 500, count)
    longer = np.array([len(pair.a) > len(pair.b) for pair in pairs])
    right = chance.random(count) < np.where(annotator % 20 == 0, 0.5, 0.85)
    choice = np.where(longer == right, "a", "b").astype("<U8")
    choice[chance.random(count) < 0.08] = "tie"
    choice[chance.random(count) < 0.03] = "both_bad"
    strength = np.select(
        [choice == "a", choice == "b"], [-chance.integers(1, 4, count), chance.integers(1, 4, count)], 0
    )
    columns = {
        "judgment_id": [f"{start + place:032x}" for place in range(count)],
        "drop": ["bench"] * count,
        "source": ["bench"] * count,
        "file": ["bench.jsonl"] * count,
        "file_sha256": ["0" * 64] * count,
        "record_number": list(range(start + 1, start + count + 1)),
        "prompt": [[{"role": "user", "content": pair.prompt}] for pair in pairs],
        "response_a": [pair.a for pair in pairs],
        "response_b": [pair.b for pair in pairs],
        "choice": choice.tolist(),
        "strength": strength.tolist(),
        "annotator": [f"annotator-{number:03}" for number in annotator],
        "votes": [1] * count,
        "dimensions": [[{"name": "tone", "strength": float(value)}] for value in strength],
        "justification": [None] * count,
        "shown_first": ["a"] * count,
        "seconds": chance.uniform(5, 200, count).tolist(),
        "judged_at": [None] * count,
        "guideline_version": [None] * count,
        "group_id": [None] * count,
        "sft_allowed": [True] * count,
    }
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in JUDGMENTS}, schema=JUDGMENTS)


def measured(work, *arguments) -> dict[str, object]:
    """What a function returns, with its CPU seconds, seconds and peak memory, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    try:
        return mine.recv()
    finally:
        process.join()


def _measure(pipe, work, arguments) -> None:
    start = time.perf_counter()
    before = time.process_time()
    result = work(*arguments)
    pipe.send(
        {
            "result": result,
            "cpu_s": round(time.process_time() - before, 2),
            "s": round(time.perf_counter() - start, 2),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
    )


def _run_ours(count: int, seed: int, given: dict) -> tuple[dict, float]:
    pairs, truth = planted(count, seed)
    with tempfile.TemporaryDirectory() as folder:
        before = time.process_time()
        cluster = ours(pairs, PreferenceSettings(**given), Path(folder))
        seconds = time.process_time() - before
    return judge(cluster, truth), seconds


def _run_datasketch(count: int, seed: int, threshold: float, bands: int, rows: int, words: int) -> tuple[dict, float]:
    pairs, truth = planted(count, seed)
    before = time.process_time()
    cluster = with_datasketch(pairs, threshold, bands=bands, rows=rows, words=words)
    return judge(cluster, truth), time.process_time() - before


def near(count: int, seed: int, given: dict) -> None:
    """Print recall, precision and speed of both sides."""
    sides = {
        "dpo-pipeline": measured(_run_ours, count, seed, given),
        "datasketch 2-grams J>=0.6 21x6": measured(_run_datasketch, count, seed, 0.6, 21, 6, 2),
    }
    for name, side in sides.items():
        found, seconds = side["result"]
        line = {"side": name, **found, "rows_per_cpu_s": round(count / seconds), "peak_mb": side["peak_mb"]}
        sys.stdout.write(json.dumps(line) + "\n")


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
            writer.write_table(_table(pairs, start, chance))
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
    """Run the benchmark named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["near", "build"])
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--judgments", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--settings", default="{}", help="PreferenceSettings as JSON")
    parser.add_argument("--keep", help="folder for the tables; kept, and its judgments used again")
    given = parser.parse_args()
    if given.what == "near":
        near(given.pairs, given.seed, json.loads(given.settings))
    else:
        build(given.judgments, given.seed, given.keep)


if __name__ == "__main__":
    main()
