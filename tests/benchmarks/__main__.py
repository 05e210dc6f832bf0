"""`make bench`: every benchmark in turn, each in a process of its own so that peaks of memory are its own."""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run each bench_*.py of this folder; 1 if one failed."""
    failed = []
    for script in sorted(Path(__file__).parent.glob("bench_*.py")):
        print(f"\n== {script.stem.removeprefix('bench_')}", flush=True)
        if subprocess.run([sys.executable, str(script), *sys.argv[1:]], check=False).returncode:
            failed.append(script.name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
