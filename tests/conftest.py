"""Shared fixtures: a home of one's own, hypothesis profiles, one thread per test process."""

import os
import shutil
import sys
from contextlib import contextmanager

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import HealthCheck, settings

from dpo_pipeline.core.home import Home

settings.register_profile(
    "here",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("here")


@pytest.fixture
def home(tmp_path):
    """An empty home."""
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory):
    """A function that lays MLflow's empty tables into a home; making them anew takes seconds each time."""
    made = tmp_path_factory.mktemp("tables") / "mlflow.db"

    def lay(home):
        if not made.exists():
            from mlflow import MlflowClient

            MlflowClient(tracking_uri=f"sqlite:///{made}").search_experiments()
        home.mlflow.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, home.mlflow / "mlflow.db")

    return lay


HOME_OF_THE_PROCESS = ("DAGSTER_HOME", "DPO_PIPELINE_HOME")


@contextmanager
def home_kept():
    """`prepare_instance` tells every process of a home where it lies; the next test must not inherit that home."""
    before = {name: os.environ.get(name) for name in HOME_OF_THE_PROCESS}
    yield
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(autouse=True, scope="module")
def home_of_the_module():
    """Undoes what fixtures of the module set."""
    with home_kept():
        yield


@pytest.fixture(autouse=True)
def home_of_the_test():
    """Undoes what the test set."""
    with home_kept():
        yield


@pytest.fixture(autouse=True)
def subnormal_floats():
    """Training flushes subnormal floats to zero for the whole process; hypothesis needs them back."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)
