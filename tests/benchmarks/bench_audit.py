"""How long the whole audit of a home's newest report takes: `python -m tests.benchmarks.bench_audit [HOME]`."""

import sys
import time
from pathlib import Path

from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.verify import verdict, verify


def main() -> None:
    """Print the verdict, and the CPU and wall seconds of every check together."""
    home = Home(Path(sys.argv[1])) if len(sys.argv) > 1 else Home.default()
    wall, cpu = time.perf_counter(), time.process_time()
    checks = verify(home, "evaluation_report")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{verdict(checks)}: {len(checks)} checks in {cpu:.2f} CPU seconds, {wall:.2f} s wall")


if __name__ == "__main__":
    main()
