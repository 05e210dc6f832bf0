"""What being recorded costs an asset: `python -m tests.benchmarks.bench_tracking [--rounds 20]`.

The same tiny file is written by a plain Dagster asset; by a tracked one without MLflow (ledger, re-hashing of an input,
manifest, publishing); by one with MLflow in SQLite; and by one with an MLflow server. Taken in turn in one process, so
that what else the machine does falls on all alike. Overhead is the median against the plain asset's; wished: 0.5 s.
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import dagster as dg

from assets.tracked import Made, tracked
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.home import Home
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.mlflow_tracking import MlflowTracking
from resources.servers import _MLFLOW_ENVIRONMENT, _mlflow_command, _wait_until_up
from resources.settings import PipelineSettings
from resources.tracking import NoTracking

INSTANCE = "telemetry: {enabled: false}\n"


@dg.asset(name="small")
def plain(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    folder = Path(tempfile.mkdtemp())
    (folder / "file.txt").write_text("x")
    return dg.MaterializeResult(metadata={"folder": str(folder)})


@tracked(Made("source", "An input."), stage="bench", code_version="1")
def source(step):
    (step.folder() / "file.txt").write_text("x")
    return Outcome(counts={"rows": 1})


@tracked(
    Made("small", "A tiny file."),
    stage="bench",
    code_version="1",
    reads=["source"],
    settings=["model", "compute", "dpo"],
    reusable=False,
)
def small(step):
    (step.folder() / "file.txt").write_text("x")
    step.metrics(1, {"loss": 0.5})
    return Outcome(counts={"rows": 1}, facts={"share": 0.5})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        server, uri = serve(Home(root / "server"))
        try:
            sides = {
                "plain asset": side(root / "plain", [plain], None),
                "tracked, no MLflow": side(root / "none", [source, small], NoTracking()),
                "tracked, MLflow in SQLite": side(root / "sqlite", [source, small], MlflowTracking()),
                "tracked, MLflow server": side(root / "behind", [source, small], MlflowTracking(uri=uri)),
            }
            taken = {name: [] for name in sides}
            for _ in range(rounds + 1):  # the first warms up
                for name, run in sides.items():
                    taken[name].append(run())
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
    tell({name: times[1:] for name, times in taken.items()}, rounds)


def side(root, assets, tracking):
    """A function that materializes `small` once and returns wall and CPU seconds of this process."""
    root.mkdir()
    (root / "dagster.yaml").write_text(INSTANCE)
    instance = dg.DagsterInstance.from_config(str(root))
    home = ArtifactHome(folder=str(root / "home"))
    settings, gpu = PipelineSettings(profile="demo"), Gpu(launcher="inline")
    resources = {"settings": settings, "home": home, "tracking": tracking, "gpu": gpu} if tracking else {}
    if tracking:
        assert dg.materialize(assets, selection=["source"], resources=resources, instance=instance).success

    def run():
        wall, cpu = time.perf_counter(), time.process_time()
        assert dg.materialize(assets, selection=["small"], resources=resources, instance=instance).success
        return time.perf_counter() - wall, time.process_time() - cpu

    return run


def serve(home):
    """`mlflow server` as `make ui` starts it, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, **_MLFLOW_ENVIRONMENT, "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(
        _mlflow_command(home, port),
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    uri = f"http://127.0.0.1:{port}"
    _wait_until_up([f"{uri}/health"])
    return server, uri


def tell(taken, rounds):
    plain_wall, plain_cpu = (statistics.median(kind) for kind in zip(*taken["plain asset"], strict=True))
    print(f"{rounds} rounds, medians in seconds; overhead against the plain asset")
    print(f"{'side':28} {'wall':>7} {'CPU':>7} {'+ wall':>8} {'+ CPU':>8}")
    for name, times in taken.items():
        wall, cpu = (statistics.median(kind) for kind in zip(*times, strict=True))
        print(f"{name:28} {wall:7.3f} {cpu:7.3f} {wall - plain_wall:8.3f} {cpu - plain_cpu:8.3f}")


if __name__ == "__main__":
    main()
