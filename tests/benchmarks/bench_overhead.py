"""What share of the demo's wall time is orchestration: `python tests/benchmarks/bench_overhead.py [--scale 1]`.

Runs the demo's chain once, as `make demo` does, in a home of its own. Every moment of the command, from its start to
its end, is given to one category: the innermost of what was going on (see `spans/sitecustomize.py`; what a child does
goes before what its waiting parent does). Library functions, in children and in the command itself, are the work; all
else is overhead: imports, starting children, ledger, hashing, MLflow, Dagster, reconciling. Wished: at most 20 %.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

MOST_SHARE = 0.20
REST = "Dagster, and all else"
INNERMOST_FIRST = (
    "imports of a child",
    "library in a child",
    "imports",
    "start, hand-over and end of children",
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


def main() -> int:
    """Make the sample, run the chain, print a line for each category; 1 if the run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the demo's data; a smaller one works less")
    parser.add_argument("--again", action="store_true", help="also run it once more without change: all is overhead")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        make = f"from dpo_pipeline.samples.scenario import generate_scenario as make; from pathlib import Path; \
make(Path({str(home / 'inbox')!r}), seed=0, scale={given.scale})"
        subprocess.run([sys.executable, "-c", make], check=True, cwd=ROOT)
        for number in range(2 if given.again else 1):
            spans = Path(folder) / f"spans-{number}"
            spans.mkdir()
            environment = {
                **os.environ,
                "DPO_PIPELINE_HOME": str(home),
                "DPO_BENCH_SPANS": str(spans),
                "PYTHONPATH": str(Path(__file__).parent / "spans"),
            }
            command = [sys.executable, "-m", "assets.materialize", "everything"]
            started = time.time()
            done = subprocess.run(command, check=False, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
            ended = time.time()
            if done.returncode:
                sys.stderr.buffer.write(done.stderr)
                return 1
            tell(read(spans), started, ended, f"scale {given.scale}{', again without change' if number else ''}")
    return 0


def read(folder: Path) -> list[tuple[str, float, float]]:
    """The spans of all processes."""
    return [tuple(span) for path in folder.iterdir() for span in json.loads(path.read_text())]


def account(spans: list[tuple[str, float, float]], started: float, ended: float) -> Counter[str]:
    """Seconds for each category; together they are the whole time."""
    changes = sorted(
        [(max(start, started), 1, name) for name, start, _ in spans]
        + [(min(end, ended), -1, name) for name, _, end in spans]
        + [(ended, 0, REST)]
    )
    going_on: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    before = started
    for moment, change, name in changes:
        innermost = next((name for name in INNERMOST_FIRST if going_on[name]), REST)
        seconds[innermost] += moment - before
        going_on[name] += change
        before = moment
    return seconds


def tell(spans: list[tuple[str, float, float]], started: float, ended: float, what: str) -> None:
    """Print what took how long, the longest first, and the share of overhead."""
    seconds, whole = account(spans, started, ended), ended - started
    print(f"{what}: {whole:.1f} s")
    for name, taken in seconds.most_common():
        print(f"  {name:40} {taken:7.1f} s {taken / whole:6.1%}{'   work' if name in WORK else ''}")
    share = 1 - sum(seconds[name] for name in WORK) / whole
    print(f"  overhead: {share:.1%} of the wall time, wished at most {MOST_SHARE:.0%}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
