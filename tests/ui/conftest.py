"""The real servers of `make ui` on a home of its own, and a browser that looks at them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from dpo_pipeline.core.home import Home
from dpo_pipeline.samples.scenario import generate_scenario

sys.path.insert(0, str(Path(__file__).parent))

from chromium import PROGRAM, Chromium

SMALL = {
    "least_pairs": 10,
    "model": {"scratch": {"vocabulary_size": 600, "hidden_size": 32, "intermediate_size": 64, "layer_count": 1}},
    "sft": {"epochs": 1},
    "dpo": {"epochs": 1},
    "evaluation": {"generation_count": 12, "max_new_tokens": 24, "bootstrap_samples": 200},
}


@dataclass(frozen=True)
class Servers:
    """Where they answer, and the home behind them."""

    dagster: str
    pages: str
    mlflow: str
    home: Home


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def laid_over(values, changes):
    both = {
        name: laid_over(values.get(name, {}), change) for name, change in changes.items() if isinstance(change, dict)
    }
    return {**values, **changes, **both}


@contextmanager
def serving(home, folder, **variables):
    """`make ui` on a home, on ports of its own; what the servers say goes to a file in the folder."""
    ports = {name: free_port() for name in ("dagster", "pages", "mlflow")}
    environment = {
        **{name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"},
        **{f"{name.upper()}_PORT": str(port) for name, port in ports.items()},
        "DPO_PIPELINE_HOME": str(home.root),
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    with (folder / "servers.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "resources.servers"], env=environment, stdout=subprocess.PIPE, stderr=log
        )
    try:
        deadline = time.monotonic() + 180
        while b"Ctrl-C stops all" not in process.stdout.readline():
            assert process.poll() is None, (folder / "servers.log").read_text()
            assert time.monotonic() < deadline
        at = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        yield Servers(home=home, **at)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        process.stdout.close()


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """`make ui`, with a profile small enough to train in seconds."""
    folder = tmp_path_factory.mktemp("ui")
    import dpo_pipeline.profiles as profiles

    demo = yaml.safe_load((Path(profiles.__file__).parent / "demo.yaml").read_text())
    (folder / "small.yaml").write_text(yaml.safe_dump(laid_over(demo, SMALL)))
    home = Home(folder / "home")
    generate_scenario(home.inbox, seed=3, scale=0.06)
    with serving(home, folder, DPO_PIPELINE_PROFILE=str(folder / "small.yaml")) as running:
        yield running


@pytest.fixture(scope="session")
def shown(request, tmp_path_factory):
    """The servers whose pictures are taken: of a copy of DPO_PIPELINE_PICTURES_HOME, or else those of the tests."""
    original = os.environ.get("DPO_PIPELINE_PICTURES_HOME")
    if not original:
        yield request.getfixturevalue("servers")
        return
    folder = tmp_path_factory.mktemp("shown")
    shutil.copytree(original, folder / "home", symlinks=True)
    with serving(Home(folder / "home"), folder) as running:
        yield running


@pytest.fixture(scope="session")
def browser():
    if PROGRAM is None:
        pytest.skip("there is no Chromium on this machine")
    with Chromium(width=1720, height=960) as chromium:
        yield chromium
