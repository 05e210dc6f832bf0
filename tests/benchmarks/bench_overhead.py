"""What share of the demo's wall time is orchestration: `python tests/benchmarks/bench_overhead.py [--scale 1]`.

Runs the demo's chain once, as `make demo` does, in a home of its own. Every moment of the command, from its start to
its end, is given to one category: the innermost of what was going on (see `spans/sitecustomize.py`; what a child does
goes before what its waiting parent does). Library functions, in children and in the command itself, are the work; all
else is overhead: imports, starting children, ledger, hashing, MLflow, Dagster, reconciling. The same is reckoned in CPU
seconds, which other work on the machine disturbs less. Ends with 1 where overhead is more than 20 % of the wall time.

`--again` runs the chain once more without change: nothing is to be made, so that all of it is overhead, and ends with 1
where anything was made anew.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MOST_SHARE = 0.20
REST = "Dagster, and all else"
CHILD_REST = "start, hand-over and end of children"
INNERMOST_FIRST = (
    "imports of children",
    "library in a child",
    "imports",
    CHILD_REST,
    "MLflow",
    "ledger",
    "re-hashing inputs",
    "publishing",
    "looking for what was made before",
    "reconcile",
    "library inline",
)
WORK = {"library in a child", "library inline"}
ROOT = Path(__file__).parents[2]

Span = tuple[str, float, float]


def main() -> int:
    """Make the sample, run the chain, print a line for each category; 1 if a run failed or the goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the demo's data; a smaller one works less")
    parser.add_argument("--again", action="store_true", help="also run it once more without change: all is overhead")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        make = f"from dpo_pipeline.samples.scenario import generate_scenario as make; from pathlib import Path; \
make(Path({str(home / 'inbox')!r}), seed=0, scale={given.scale})"
        subprocess.run([sys.executable, "-c", make], check=True, cwd=ROOT)
        share = run(home, Path(folder) / "spans-0", f"scale {given.scale}")
        if share > MOST_SHARE:
            print(f"MISSED: {share:.1%} of the wall time, at most {MOST_SHARE:.0%} was to be", flush=True)
        made_anew = 0
        if given.again:
            before = finished(home)
            run(home, Path(folder) / "spans-1", f"scale {given.scale}, again without change")
            made_anew = len([line for line in finished(home)[len(before) :] if not line["remarks"].get("reused")])
            print(f"  made anew: {made_anew}; to be: 0", flush=True)
    return int(share > MOST_SHARE or made_anew > 0)


def run(home: Path, folder: Path, what: str) -> float:
    """Run the chain and print what it was made of; the share of overhead in its wall time.

    Raises:
        SystemExit: If the chain failed.
    """
    folder.mkdir()
    environment = {
        **os.environ,
        "DPO_PIPELINE_HOME": str(home),
        "DPO_BENCH_SPANS": str(folder),
        "PYTHONPATH": str(Path(__file__).parent / "spans"),
    }
    environment.pop("DAGSTER_HOME", None)
    command = [sys.executable, "-m", "assets.materialize", "everything"]
    started = time.time()
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    ended = time.time()
    if done.returncode:
        sys.stderr.buffer.write(done.stderr)
        raise SystemExit(1)
    processes = [json.loads(path.read_text()) for path in folder.iterdir()]
    return tell(processes, started, ended, what)


def finished(home: Path) -> list[Mapping[str, Any]]:
    """What the ledger says was finished."""
    lines = (json.loads(text) for text in (home / "ledger" / "ledger.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == "finished"]


def account(spans: Iterable[Span], started: float, ended: float, rest: str = REST) -> Counter[str]:
    """Seconds for each category; together they are the whole time."""
    spans = list(spans)
    changes = sorted(
        [(max(start, started), 1, name) for name, start, _ in spans]
        + [(min(end, ended), -1, name) for name, _, end in spans]
        + [(ended, 0, rest)]
    )
    going_on: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    before = started
    for moment, change, name in changes:
        innermost = next((name for name in INNERMOST_FIRST if going_on[name]), rest)
        seconds[innermost] += moment - before
        going_on[name] += change
        before = moment
    return seconds


def cpu_account(processes: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """CPU seconds for each category, over all processes; a clock for each."""
    seconds: Counter[str] = Counter()
    for process in processes:
        spans = [(name, start, end) for name, _, _, start, end in process["spans"]]
        seconds += account(spans, *process["cpu"], CHILD_REST if process["child"] else REST)
    return seconds


def tell(processes: list[Mapping[str, Any]], started: float, ended: float, what: str) -> float:
    """Print what took how long, the longest first, and the share of overhead; that share of the wall time."""
    wall = account(((name, *rest[:2]) for process in processes for name, *rest in process["spans"]), started, ended)
    cpu = cpu_account(processes)
    print(f"{what}: {wall.total():.1f} s, {cpu.total():.1f} CPU s")
    for name, taken in wall.most_common():
        work = "   work" if name in WORK else ""
        print(f"  {name:40} {taken:7.1f} s {taken / wall.total():6.1%} {cpu[name]:8.1f} CPU s{work}")
    share, cpu_share = (1 - sum(each[name] for name in WORK) / each.total() for each in (wall, cpu))
    print(f"  overhead: {share:.1%} of the wall time, {cpu_share:.1%} of the CPU seconds", flush=True)
    return share


if __name__ == "__main__":
    sys.exit(main())
