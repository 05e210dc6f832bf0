"""How long the audit of a home takes, check by check: `python -m tests.benchmarks.bench_audit [HOME] [SUBJECT]`."""

import sys
import time
from pathlib import Path

from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.chain import ancestors, chains_of, with_rejected
from dpo_pipeline.lineage.evidence import check_ledger
from dpo_pipeline.lineage.verify import CHECKS, verdict


def main() -> None:
    """Print the CPU and wall seconds of each check, then the verdict and their sums, reading the chain included."""
    home = Home(Path(sys.argv[1])) if len(sys.argv) > 1 else Home.default()
    subject = sys.argv[2] if len(sys.argv) > 2 else "evaluation_report"
    begun = time.process_time(), time.perf_counter()
    checks = [check_ledger(home)]
    nodes = with_rejected(home, ancestors(*chains_of(home, subject)))
    for check in CHECKS:
        cpu, wall = time.process_time(), time.perf_counter()
        checks.append(check(home, nodes))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(f"{cpu:6.2f} CPU s  {wall:6.2f} s wall  {checks[-1].outcome:8} {checks[-1].name}")
    cpu, wall = time.process_time() - begun[0], time.perf_counter() - begun[1]
    print(f"{cpu:6.2f} CPU s  {wall:6.2f} s wall  {verdict(checks):8} {len(checks)} checks over {len(nodes)} artifacts")


if __name__ == "__main__":
    main()
