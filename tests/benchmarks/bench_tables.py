"""What a second, small drop costs: sketch and build of it against those of the large first drop.

    python tests/benchmarks/bench_tables.py --judgments 100000

The second drop is 1 % of the first. Its build runs with and without the first build's likenesses; the tables must be
the same to the byte. `rebuild` builds the first drop alone once more with all likenesses known: what it costs is
loading the index and writing the tables. Every stage is a process of its own.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from bench_preferences import _Print, _sketch, generate
from planting import measured

from dpo_pipeline.preferences.settings import PreferenceSettings


def build(drops: list[tuple[str, str]], out: str, known: list[str]) -> dict:
    """Build the tables of drops given as folders of judgments and sketches; return the build's remarks."""
    from dpo_pipeline.preferences.build import DropTables, build_pairs

    tables = [DropTables(f"drop-{n}", Path(one), Path(two)) for n, (one, two) in enumerate(drops)]
    Path(out).mkdir()
    paths = [Path(folder) for folder in known]
    outcome = build_pairs(tables, Path(out), settings=PreferenceSettings(), reporter=_Print(), known=paths)
    return dict(outcome.remarks)


def main() -> None:
    """Make both drops, run every stage, print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgments", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp())
    drops = []
    for number, count in enumerate((given.judgments, given.judgments // 100)):
        judgments, sketches = root / f"judgments-{number}", root / f"sketches-{number}"
        judgments.mkdir()
        sketches.mkdir()
        generate(str(judgments), count, given.seed + number)
        drops.append((str(judgments), str(sketches)))
    first, rebuilt, cold, warm = (str(root / name) for name in ("first", "rebuilt", "cold", "warm"))
    stages = (
        ("first: sketch", _sketch, drops[0]),
        ("first: build", build, (drops[:1], first, [])),
        ("rebuild, all known", build, (drops[:1], rebuilt, [first])),
        ("second: sketch", _sketch, drops[1]),
        ("second: build, nothing known", build, (drops, cold, [])),
        ("second: build, first known", build, (drops, warm, [first])),
    )
    for name, work, arguments in stages:
        sys.stdout.write(json.dumps({"stage": name, **measured(work, *arguments)}) + "\n")
        sys.stdout.flush()
    same = all(path.read_bytes() == (Path(warm) / path.name).read_bytes() for path in Path(cold).iterdir())
    sys.stdout.write(json.dumps({"tables_are_the_same_with_and_without": same}) + "\n")
    shutil.rmtree(root)
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
