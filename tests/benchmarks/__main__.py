"""`make bench`: every benchmark in turn, each in a process of its own so that peaks of memory are its own."""

import os
import subprocess
import sys
from pathlib import Path

COMMANDS = (
    "bench_reading.py --peers",
    "bench_near_duplicates.py",
    "bench_split.py",
    "bench_demonstrations.py",
    "bench_preferences.py",
    "bench_tables.py",
    "bench_end_to_end.py",
    "bench_memory.py",
    "bench_training.py",
    "bench_tracking.py",
    "bench_overhead.py",
    "bench_linear.py",
    "bench_gpu.py --profile dpo_pipeline/profiles/llama-3.1-8b-lora-24gb.yaml",
)
HH = "DPO_BENCH_HH"  # the path of Anthropic's hh_rlhf_harmless/test.jsonl.gz
NEEDS = {"bench_training.py": HH, "bench_gpu.py": HH}


def main() -> int:
    """Run the benchmarks; 1 if one failed."""
    failed = []
    for command in COMMANDS:
        print(f"\n== {command}", flush=True)
        script, *arguments = command.split()
        if (variable := NEEDS.get(script)) and not os.environ.get(variable):
            print(f"left out: set {variable} to the data's path")
            continue
        if subprocess.run([sys.executable, str(Path(__file__).parent / script), *arguments], check=False).returncode:
            failed.append(command)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
