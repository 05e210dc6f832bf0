"""Near duplicates: ours against datasketch and datatrove at equal recall, on planted pairs.

    DPO_BENCH_DATATROVE=/path/to/python python tests/benchmarks/bench_near_duplicates.py --pairs 20000

Every side climbs its ladder of parameters, cheapest first, until it finds 95 % of the copies with one to three words
edited and of those with 5 % edited, at a precision of 99 %. Ours is what the settings say. Each run is a process of
its own that reads the pairs from a file; printed are recall per kind, precision, rows per CPU second, peak memory.
datatrove is an optional peer: its requirements clash with ours, so it runs in the interpreter the variable names.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from planting import KINDS, NOT_DUPLICATES, Pair, judgments_of, measured, planted

from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.preferences.near_duplicates import components
from dpo_pipeline.preferences.settings import PreferenceSettings

WANTED = {"words_1_to_3": 0.95, "words_5_percent": 0.95, "precision": 0.99}
DATASKETCH = ((8, 5), (10, 5), (12, 5), (14, 5), (16, 5), (20, 5), (21, 6))
"""Bands and rows per band, by the number of hashes."""
THRESHOLDS = (0.6, 0.65, 0.7)
"""Least true Jaccard similarity of the whole pair. All are judged from one run: its cost is the same."""
DATATROVE = ((10, 6), (14, 7), (20, 8), (20, 10), (25, 10), (30, 10), (50, 10))
"""It verifies no candidate: only steeper bands make it more precise, and more of them keep its recall."""


def write(folder: Path, pairs: list[Pair]) -> None:
    """Write the pairs for all sides: as judgments and as JSON lines."""
    write_table(folder / "judgments.parquet", judgments_of(pairs, 0, np.random.default_rng(0)))
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))


def ours(folder: Path, settings: PreferenceSettings) -> list[int]:
    """Per pair the number of its cluster; the whole sketch of a drop is made, prompts and cleaning rules included."""
    import pyarrow.parquet as pq

    from dpo_pipeline.preferences.catalogue import Catalogue
    from dpo_pipeline.preferences.deduplicate import near_duplicate_pairs
    from dpo_pipeline.preferences.likeness import Likenesses
    from dpo_pipeline.preferences.sketch import sketch_drop
    from dpo_pipeline.preferences.sketch_tables import VERDICTS_FILE
    from dpo_pipeline.preferences.texts import DropTables

    sketch_drop(folder, folder, settings=settings, reporter=Quiet())
    catalogue = Catalogue([DropTables("drop", folder, folder)])
    count = len(catalogue.pairs.ids)
    with Likenesses(catalogue.pairs.ids, folder / "likeness.parquet") as known:
        order = np.arange(count, dtype=np.int32)
        near = near_duplicate_pairs(catalogue, order, likenesses=known, settings=settings, reporter=Quiet())
    verdicts = pq.read_table(folder / VERDICTS_FILE, columns=["row", "pair"]).sort_by("row")
    return components(count, near.edges)[verdicts["pair"].to_numpy()].tolist()


def with_datasketch(folder: Path, bands: int, rows: int) -> list[tuple[int, int, float]]:
    """The candidates of MinHash-LSH on word 2-grams of whole pairs, each with its true Jaccard similarity."""
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(num_perm=bands * rows, params=(bands, rows))
    sets, found, token = [], [], re.compile(r"\w+")

    def grams(text: str, tag: bytes) -> Iterator[bytes]:
        words = token.findall(text.lower())
        return (tag + " ".join(words[at : at + 2]).encode() for at in range(max(1, len(words) - 1)))

    with (folder / "pairs.jsonl").open(encoding="utf-8") as lines:
        for number, (prompt, a, b) in enumerate(map(json.loads, lines)):
            shingles = {*grams(prompt, b"p"), *grams(a, b""), *grams(b, b"")}
            sketch = MinHash(num_perm=bands * rows, seed=1)
            sketch.update_batch(shingles)
            found += [
                (other, number, len(shingles & sets[other]) / len(shingles | sets[other]))
                for other in lsh.query(sketch)
            ]
            sets.append(shingles)
            lsh.insert(number, sketch)
    return found


def with_datatrove(interpreter: str, folder: Path, bands: int, rows: int) -> dict[str, Any]:
    """What `datatrove_side.py` found and measured; rows that stand alone get numbers of their own."""
    script, out = Path(__file__).with_name("datatrove_side.py"), folder / "datatrove.json"
    command = [interpreter, script, folder / "pairs.jsonl", out, str(bands), str(rows)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"datatrove failed under {interpreter}:\n{done.stderr[-2000:]}")
    run = json.loads(out.read_text())
    return {**run, "result": [number if number >= 0 else -place - 1 for place, number in enumerate(run["result"])]}


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


def sides(folder: Path, truth: list[tuple[int, int, str]], count: int) -> Iterator[dict[str, Any]]:
    """One line per side: the cheapest rung that reaches what is wanted, or the last one, which does not."""
    run = measured(ours, folder, PreferenceSettings())
    yield _line("dpo-pipeline", run, judge(run["result"], truth), count)
    line = {}
    for bands, rows in DATASKETCH:
        run = measured(with_datasketch, folder, bands, rows)
        for least in THRESHOLDS:
            edges = np.array([found[:2] for found in run["result"] if found[2] >= least], np.int64).reshape(-1, 2)
            judged = judge(components(count, edges).tolist(), truth)
            line = _line(f"datasketch {bands}x{rows} J>={least}", run, judged, count)
            if line["reaches"]:
                break
            sys.stderr.write(f"not enough: {json.dumps(line)}\n")
        if line["reaches"]:
            break
    yield line
    if not (interpreter := os.environ.get("DPO_BENCH_DATATROVE")):
        sys.stderr.write("left out datatrove: set DPO_BENCH_DATATROVE to a Python that has it\n")
        return
    for bands, rows in DATATROVE:
        run = with_datatrove(interpreter, folder, bands, rows)
        line = _line(f"datatrove {bands}x{rows}", run, judge(run["result"], truth), count)
        if line["reaches"]:
            break
        sys.stderr.write(f"not enough: {json.dumps(line)}\n")
    yield line


def _line(side: str, run: dict[str, Any], judged: dict[str, float], count: int) -> dict[str, Any]:
    return {
        "side": side,
        **judged,
        "reaches": all(judged[name] >= least for name, least in WANTED.items()),
        "rows_per_cpu_s": round(count / run["cpu_s"]),
        "peak_mb": run["peak_mb"],
    }


def main() -> None:
    """Print a line per side, and ours over theirs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    first = None
    with tempfile.TemporaryDirectory() as name:
        pairs, truth = planted(given.pairs, given.seed)
        write(Path(name), pairs)
        del pairs
        for line in sides(Path(name), truth, given.pairs):
            first = first or line
            line["ours_is_faster_by"] = round(first["rows_per_cpu_s"] / line["rows_per_cpu_s"], 2)
            line["our_memory_over_theirs"] = round(first["peak_mb"] / line["peak_mb"], 2)
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
