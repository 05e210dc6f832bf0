"""What four ways to split leak when drops keep coming, and which rows they move: ten drops of edited prompts.

    python tests/benchmarks/bench_split.py --prompts 20000
    python tests/benchmarks/bench_split.py --crowd 20000 --pair-by-pair

A third of the prompts of every drop are edits of earlier ones: spelling only, one to three words, 5 or 10 % of the
words, or the very same prompt with other answers. A held-out row leaks if a trained prompt is a near copy of its own.
Leaks are counted twice: by true similarity (`leakage.near_leaks`), and by what was planted, similar enough or not.

With `--crowd`, what the search across the sides costs where all prompts are made from one template, a tenth held out;
with `--pair-by-pair` also without comparing all pairs under a key at once.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from planting import Pair, World, judgments_of

from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.core.tables import MESSAGES, write_table
from dpo_pipeline.preferences import prompt_index
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.deduplicate import prompt_neighbours
from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.leakage import near_leaks
from dpo_pipeline.preferences.likeness import Likenesses
from dpo_pipeline.preferences.normalize import normalise, text_keys
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.shingles import band_keys, shingle, signatures
from dpo_pipeline.preferences.sides import crowd_of
from dpo_pipeline.preferences.sketch import sketch_drop
from dpo_pipeline.preferences.sketch_tables import PROMPT_BANDS, PROMPT_HASHES, VERDICTS_FILE
from dpo_pipeline.preferences.spill import Scratch
from dpo_pipeline.preferences.split import SPLIT_NAMES, split_prompts
from dpo_pipeline.preferences.texts import DropTables

SETTINGS = PreferenceSettings()
DROPS = 10
EDITED = 0.33
EDITS = ("same", "spelling", "words_1_to_3", "words_5_percent", "words_10_percent")

Rows = tuple[list[str], np.ndarray, np.ndarray]
"""Prompts, the drop each row came with, and the family each belongs to: edits of one another."""


def prompts(count: int, seed: int) -> Rows:
    """Prompts in order of arrival."""
    world = World(seed)
    texts, family = [], []
    for _ in range(count):
        if texts and world.chance.random() < EDITED:
            parent = int(world.chance.integers(0, len(texts)))
            kind = EDITS[int(world.chance.integers(0, len(EDITS)))]
            texts.append(_edited(world, texts[parent], kind))
            family.append(family[parent])
        else:
            texts.append(world.text(1, 3))
            family.append(len(family))
    return texts, np.arange(count) * DROPS // count, np.array(family)


def _edited(world: World, text: str, kind: str) -> str:
    if kind == "same":
        return text
    if kind == "spelling":
        return world.copy(Pair(text, "", ""), kind).prompt
    count = int(world.chance.integers(1, 4))
    share = 0 if kind == "words_1_to_3" else int(kind.split("_")[1]) / 100
    return world.edited(Pair(text, "", ""), share=share, count=0 if share else count).prompt


def at_random(rows: Rows, seen: int) -> list[str]:
    """Each row by the throw of a coin, drawn anew for every build, as `train_test_split` over the union does."""
    chance = np.random.default_rng(seen)
    return _names(chance.random(int((rows[1] < seen).sum())) < SETTINGS.held_out_share)


def at_random_per_drop(rows: Rows, seen: int) -> list[str]:
    """Each row by the throw of a coin when its drop comes, and kept."""
    chance = np.random.default_rng(1)
    return _names(chance.random(len(rows[0]))[rows[1] < seen] < SETTINGS.held_out_share)


def by_hash(rows: Rows, seen: int) -> list[str]:
    """By the hash of the prompt's characters."""
    return _hashed([text for text, drop in zip(rows[0], rows[1], strict=True) if drop < seen])


def by_normalised_hash(rows: Rows, seen: int) -> list[str]:
    """By the hash of the normalised prompt."""
    texts = [text for text, drop in zip(rows[0], rows[1], strict=True) if drop < seen]
    return _hashed(normalise(pa.array(texts, pa.string())).to_pylist())


def ours(rows: Rows, seen: int, tables: list[DropTables]) -> list[str]:
    """By clusters of near-duplicate prompts, decided once."""
    catalogue = Catalogue(tables[:seen])
    crowd = crowd_of(catalogue, SETTINGS)
    with tempfile.TemporaryDirectory() as folder, Likenesses(catalogue.prompts.ids, Path(folder) / "x") as likenesses:
        edges = prompt_neighbours(catalogue, crowd=crowd, likenesses=likenesses, settings=SETTINGS, reporter=Quiet())
    first_drop, share, draws = (
        catalogue.prompts.place.drop,
        SETTINGS.held_out_share,
        catalogue.draws(SETTINGS.split_salt),
    )
    side = split_prompts(draws, first_drop, edges, share=share, crowd=crowd).side[catalogue.prompt]
    found = []
    for table, numbers in zip(tables, catalogue.pairs.numbers, strict=False):
        verdicts = pq.read_table(table.sketches / VERDICTS_FILE, columns=["row", "pair"]).sort_by("row")
        found += [SPLIT_NAMES[one] for one in side[numbers[verdicts["pair"].to_numpy()]]]
    return found


def _names(is_held_out: np.ndarray) -> list[str]:
    return np.where(is_held_out, "held_out", "train").tolist()


def _hashed(texts: list[str]) -> list[str]:
    numbers = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) for text in texts]
    return _names(np.array(numbers, np.uint64) < np.uint64(SETTINGS.held_out_share * 2**64))


def sketched(rows: Rows, folder: Path) -> list[DropTables]:
    """Every drop as the pipeline has it; the answers are all different."""
    tables = []
    for drop in range(DROPS):
        here = np.flatnonzero(rows[1] == drop)
        pairs = [Pair(rows[0][row], f"Answer {row}.", f"Other answer {row}.") for row in here]
        at = folder / f"drop-{drop:02}"
        at.mkdir()
        table = judgments_of(pairs, int(here[0]), np.random.default_rng(0))
        write_table(at / "judgments.parquet", table)
        sketch_drop(at, at, settings=SETTINGS, reporter=Quiet())
        tables.append(DropTables(at.name, at, at))
    return tables


def leaked(rows: Rows, split: list[str], folder: Path) -> dict[str, float]:
    """The shares of held-out rows with a near copy among the trained ones, and with an edit of it."""
    texts, _, family = rows
    sides = np.array(split)
    ids = to_hex(text_keys(pa.array(texts, pa.string())))
    turns = pa.array([[{"role": "user", "content": text}] for text in texts], MESSAGES)
    table = pa.table({"prompt_id": ids, "split": split, "prompt": turns})
    # As the pipeline publishes it: without the quarantined.
    pq.write_table(table.filter(pa.array(sides != "quarantined")), folder / "pairs.parquet")
    near = {held for _, held, _ in near_leaks(folder, jaccard=SETTINGS.prompt_cluster_jaccard)}
    held = np.flatnonzero(sides == "held_out")
    names = ids.to_pylist()
    trained = set(family[sides == "train"].tolist())
    return {
        "held_out_rows": len(held),
        "leaked_by_similarity": round(sum(names[row] in near for row in held) / len(held), 4),
        "leaked_as_planted": round(sum(family[row] in trained for row in held) / len(held), 4),
        "quarantined": round(float((sides == "quarantined").mean()), 4),
    }


def moved(split: Callable[[int], list[str]]) -> int:
    """Rows that a later drop put on another side than they once stood on."""
    before, rows = split(1), set()
    for seen in range(2, DROPS + 1):
        after = split(seen)
        rows |= {row for row, side in enumerate(before) if after[row] != side}
        before = after
    return len(rows)


def simulate(count: int, seed: int, folder: Path) -> dict[str, dict[str, float]]:
    """Every way to split, with what it leaked after the last drop and what it moved on the way."""
    rows = prompts(count, seed)
    tables = sketched(rows, folder)
    ways: dict[str, Callable[[int], list[str]]] = {
        "random, drawn anew": lambda seen: at_random(rows, seen),
        "random per drop": lambda seen: at_random_per_drop(rows, seen),
        "hash of the prompt": lambda seen: by_hash(rows, seen),
        "hash of the normalised prompt": lambda seen: by_normalised_hash(rows, seen),
        "ours": lambda seen: ours(rows, seen, tables),
    }
    return {name: {**leaked(rows, way(DROPS), folder), "moved_rows": moved(way)} for name, way in ways.items()}


def crowd(count: int, seed: int, folder: Path, *, words: int, replaced: int, both: bool) -> Iterator[dict[str, float]]:
    """CPU seconds of the search among prompts of one template, some of whose words are others of three thousand."""
    chance = np.random.default_rng(seed)
    texts = np.tile(chance.integers(0, 3_000, words), (count, 1))
    for text in texts:
        text[chance.choice(words, replaced, replace=False)] = chance.integers(0, 3_000, replaced)
    sets = shingle(pa.array([" ".join(f"word{word}" for word in text) for text in texts], pa.string()))
    keys = band_keys(signatures(sets, count=PROMPT_HASHES), bands=PROMPT_BANDS)
    is_held_out = chance.random(count) < 0.1
    held_out, trained = np.flatnonzero(is_held_out), np.flatnonzero(~is_held_out)
    ways = {"at once": prompt_index.PAIRS_OF_A_CROWD, "pair by pair": sys.maxsize}
    for way, least in list(ways.items())[: 1 + both]:
        prompt_index.PAIRS_OF_A_CROWD = least
        start, scratch = time.process_time(), Scratch(folder)
        found = prompt_index.find_across(keys, sets, held_out, trained, similarity=0.5, scratch=scratch)
        seconds = round(time.process_time() - start, 2)
        line = {"held_out": len(held_out), "near_copies": int((found >= 0).sum()), "cpu_s": seconds}
        yield {"crowd": count, "words": words, "replaced": replaced, "way": way, **line}


def main() -> None:
    """Print a line per way to split, or to search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--crowd", type=int, help="so many prompts of one template, searched across the sides")
    parser.add_argument("--words", type=int, default=24)
    parser.add_argument("--replaced", type=int, default=5)
    parser.add_argument("--pair-by-pair", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.crowd:
            of = {"words": given.words, "replaced": given.replaced, "both": given.pair_by_pair}
            for line in crowd(given.crowd, given.seed, Path(folder), **of):
                sys.stdout.write(json.dumps(line) + "\n")
            return
        for name, line in simulate(given.prompts, given.seed, Path(folder)).items():
            sys.stdout.write(json.dumps({"split": name, **line}) + "\n")


if __name__ == "__main__":
    main()
