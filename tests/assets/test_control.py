"""A training in Dagster's own hands: terminated as the UI does it, its run killed, taken up again.

Dagster's web server, its code server, a run of its own and the training's child are real processes here.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress

import psutil
import pytest
import yaml

from dpo_pipeline.core.home import Home
from dpo_pipeline.samples.scenario import generate_scenario
from resources.mlflow_client import connect
from resources.servers import _DAEMON

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the parent's death")]

PROFILE = {
    "description": "A tiny training that lasts long enough to be stopped.",
    "least_pairs": 10,
    "model": {
        "scratch": {"vocabulary_size": 600, "hidden_size": 32, "intermediate_size": 64, "layer_count": 1},
        "chat_template": "chatml",
        "max_length": 256,
    },
    "compute": {"device": "cpu", "threads": 1, "processes": 2},
    "sft": {"epochs": 15, "batch_size": 8, "checkpoint_minutes": 0.005, "optimizer": {"learning_rate": 1.0e-3}},
    "dpo": {"epochs": 1, "optimizer": {"learning_rate": 1.0e-5}},
}
LAUNCH = """mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TERMINATE = """mutation Stop($run: String!) { terminateRun(runId: $run) {
  __typename ... on TerminateRunFailure { message } ... on PythonError { message } } }"""
STATUS = "query Status($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"


def patiently(what, seconds=300):
    """Wait until `what` gives something, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
    return found


class Workshop:
    """A home with its drops read, and the means to run things in it."""

    def __init__(self, root):
        self.home = Home(root / "home")
        generate_scenario(self.home.inbox, seed=3, scale=0.06)
        profile = root / "profile.yaml"
        profile.write_text(yaml.safe_dump(PROFILE))
        own = {"DPO_PIPELINE_HOME": str(self.home.root), "DPO_PIPELINE_PROFILE": str(profile), "OMP_NUM_THREADS": "1"}
        self.environment = {**{k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"}, **own}
        self.materialize("ingest")
        self.environment["DAGSTER_HOME"] = str(self.home.root / "dagster")

    def materialize(self, job):
        """Run a job from a terminal, to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "assets.materialize", job],
            env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    def events(self, asset):
        """What the ledger says became of an asset, in order."""
        return [line for line in self.home.ledger.lines() if line.get("asset") == asset]

    def steps(self):
        """How many steps of SFT its work folder knows of."""
        histories = list((self.home.root / "work" / "sft_checkpoint").glob("*/checkpoints/history.jsonl"))
        return max((path.read_bytes().count(b"\n") for path in histories), default=0)

    def processes(self, word=""):
        """The processes at work for this home whose command has the word."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                is_ours = process.environ().get("DPO_PIPELINE_HOME") == str(self.home.root)
                if is_ours and word in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def half_done(self):
        """What a training could leave behind: artifacts of SFT, published or being written, by their folders."""
        root = self.home.store.root
        return [*root.glob("sft_checkpoint/*"), *root.glob(".staging/*")]

    def told_to_mlflow(self, attempt):
        """The status MLflow shows of an attempt."""
        client, experiment = connect("", self.home.mlflow)
        found = client.search_runs([experiment], filter_string=f"tags.attempt = '{attempt}'")
        return [run.info.status for run in found]

    def curves_in_mlflow(self):
        """What MLflow tells of a training that goes on: the newest value and step of each metric, by its API."""
        client, experiment = connect("", self.home.mlflow)
        found = client.search_runs([experiment], filter_string="attributes.status = 'RUNNING'")
        return {
            name: client.get_metric_history(run.info.run_id, name)[-1] for run in found for name in run.data.metrics
        }

    def trainer(self):
        """The training's first process; None where none is at work."""
        forked = [each for each in self.processes("resources.warm") if is_warm(each.parent())]
        return next(iter([*self.processes("resources.child"), *forked]), None)

    @contextmanager
    def web_server(self):
        """Dagster's web server and daemon, as `make ui` starts them; a function that asks something in GraphQL."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "resources.webserver", "--port", str(port)]

        def ask(query, **variables):
            body = json.dumps({"query": query, "variables": variables}).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["data"]

        def is_up():
            assert server.poll() is None
            try:
                return ask("{ version }")
            except OSError:
                return None

        with (
            subprocess.Popen(command, env=self.environment) as server,
            subprocess.Popen(_DAEMON, env=self.environment),
        ):
            try:
                patiently(is_up)
                yield ask
            finally:
                for process in self.processes():
                    process.kill()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("control"))


def launch(ask):
    where = {"repositoryLocationName": "dpo-pipeline", "repositoryName": "__repository__", "jobName": "train"}
    answer = ask(LAUNCH, params={"selector": where, "runConfigData": {}})["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return answer["run"]["runId"]


def is_warm(process):
    """Whether trainings are forked from it."""
    return process is not None and "resources.warm" in process.cmdline()


def run_of(trainer):
    """The process of the run a training belongs to."""
    parent = trainer.parent()
    return parent.parent() if is_warm(parent) else parent


def family_of(trainer):
    """The training's first process, the second, multiprocessing's tracker of resources, and what it was forked from."""
    family = [trainer, *trainer.children(recursive=True)]
    assert len(family) >= 3
    return family + [parent for parent in [trainer.parent()] if is_warm(parent)]


def is_running(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.timeout(1_800)  # a dozen processes start one after another; on a busy machine that alone takes minutes
def test_terminated_in_the_ui_it_stops_and_stays_stopped_and_killed_it_leaves_nothing_running(workshop):
    """One story, for the servers start slowly: terminate a run, kill the next one's process, finish by a third."""
    with workshop.web_server() as ask:
        run = launch(ask)
        patiently(lambda: workshop.steps() > 40)
        curves = patiently(workshop.curves_in_mlflow)
        assert {"loss", "tokens_per_second", "seconds_left"} <= set(curves)
        assert 1 <= curves["loss"].step <= workshop.steps()
        assert curves["tokens_per_second"].value > 0
        assert curves["seconds_left"].value > 0
        family = family_of(workshop.trainer())
        assert ask(TERMINATE, run=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"
        patiently(lambda: not any(map(is_running, family)), seconds=10)
        status = patiently(
            lambda: (now := ask(STATUS, run=run)["runOrError"]["status"]) not in {"STARTED", "CANCELING"} and now
        )
        time.sleep(6)  # the retry policy would start it again after 2 s
        assert status == "CANCELED"
        assert [line["event"] for line in workshop.events("sft_checkpoint")] == ["started", "killed"]
        assert workshop.trainer() is None
        assert workshop.events("reference_logprobs") == []
        assert workshop.half_done() == []
        assert workshop.told_to_mlflow(workshop.events("sft_checkpoint")[0]["attempt"]) == ["KILLED"]

        before = workshop.steps()
        run = launch(ask)
        trainer = patiently(workshop.trainer)
        patiently(lambda: workshop.steps() > before + 40)
        family = family_of(trainer)
        run_of(trainer).send_signal(signal.SIGKILL)
        patiently(lambda: not any(map(is_running, family)), seconds=10)
        assert workshop.events("sft_checkpoint")[-1]["event"] == "started"  # nobody was left to write of its end
    words = workshop.materialize("train")
    assert "was left open by a killed process; it is booked as killed" in words
    events = workshop.events("sft_checkpoint")
    assert [line["event"] for line in events] == ["started", "killed"] * 2 + ["started", "finished"]
    assert events[-1]["remarks"]["resumed_from_step"] > before
    assert workshop.events("dpo_checkpoint")[-1]["event"] == "finished"
    assert workshop.home.ledger.verify() == []
