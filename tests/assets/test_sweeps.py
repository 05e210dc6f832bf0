"""Sweeps through Dagster: a point is made once, a stopped sweep goes on, only points on one ground are compared."""

import functools
import json
import shutil

import dagster as dg
import pytest

from assets import terminal as module
from assets.commands import run_sweep
from assets.sweeps import SHARED, comparable_points
from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.errors import TrainingError
from dpo_pipeline.evaluation import sweep
from resources.gpu import Gpu
from resources.mlflow_tracking import NoTracking

POINTS = ["beta=0.05", "beta=0.1", "beta=0.5"]
FIGURES = ("implicit_accuracy", "kl_per_reply", "dpo/passed")


def publish(home, kind, name, *parents, partition=None, **settings):
    recipe = Recipe(kind, "1", settings or {"name": name}, parents)
    with home.store.staging() as folder:
        (folder / "name").write_text(name)
        artifact = home.store.publish(folder, recipe, Outcome())
    same = {"attempt": artifact.digest, "asset": kind, "partition": partition, "recipe": recipe.digest}
    home.ledger.append("started", **same)
    home.ledger.append("finished", **same, artifact=artifact.digest)
    return Parent(kind, kind, artifact.digest)


class Desk:
    """A home with tables and a checkpoint of no weights, and points whose training only notes that it took place."""

    def __init__(self, home):
        self.home, self.trained, self.faults = home, [], {}
        self.lay("first")

    def lay(self, name):
        pairs, sft = publish(self.home, "preference_pairs", name), publish(self.home, "sft_checkpoint", name)
        publish(self.home, "reference_logprobs", name, pairs, sft)

    def run_point(self, **given):
        beta = given["dpo"].beta
        self.trained.append(beta)
        if beta in self.faults:
            raise self.faults[beta]
        (given["out"] / "training.json").write_text(json.dumps({"beta": beta}))
        own = {"beta": beta, "learning_rate": 2e-5, "loss": "sigmoid", "epochs": given["dpo"].epochs}
        measured = {f"{name}{end}": beta for name in FIGURES for end in ("", "/low", "/high")}
        return Outcome(facts={**own, **measured, "outcome": "better", "reason": "It rose."})

    def sweep(self, points=POINTS):
        return run_sweep(self.home, "demo", points)

    def frontier(self):
        return json.loads((self.home.latest("sweep_report").path / "sweep.json").read_text())["points"]


@pytest.fixture
def desk(home, monkeypatch):
    desk, build = Desk(home), module.build_definitions
    resources = {"tracking": NoTracking(), "gpu": Gpu(launcher="inline")}
    monkeypatch.setattr(module, "build_definitions", lambda own, **more: build({**own, **resources}, **more))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("DPO_PIPELINE_HOME", str(home.root))

    @functools.wraps(sweep.run_point)
    def run_point(**given):
        return desk.run_point(**given)

    monkeypatch.setattr(sweep, "run_point", run_point)
    return desk


def test_every_point_is_made_with_its_own_values_and_the_frontier_drawn(desk):
    said = desk.sweep()
    assert said[:3] == [f"{at} of 3, {point}: done." for at, point in enumerate(POINTS, start=1)]
    assert said[3] == f"The frontier: {desk.home.latest('sweep_report').path / 'report.html'}"
    assert [row["point"] for row in desk.frontier()] == POINTS
    assert desk.home.latest("sweep_point", "beta=0.5").manifest["settings"]["dpo"]["beta"] == 0.5
    assert desk.home.ledger.verify() == []


def test_a_sweep_that_was_stopped_goes_on_where_it_stopped(desk):
    desk.faults[0.1] = dg.DagsterExecutionInterruptedError()  # what Ctrl-C becomes in a run
    said = desk.sweep()
    assert said[-1] == "STOPPED at 2 of 3, beta=0.1. The same command goes on from here."
    assert desk.trained == [0.05, 0.1]
    desk.faults.clear()
    desk.sweep()
    assert desk.trained == [0.05, 0.1, 0.1, 0.5]
    desk.sweep([*POINTS, "beta=1"])
    assert desk.trained == [0.05, 0.1, 0.1, 0.5, 1.0]
    assert len(desk.frontier()) == 4


def test_a_point_that_fails_stops_no_other_one_and_is_named(desk):
    desk.faults[0.05] = TrainingError("the loss is not a number")
    said = desk.sweep()
    assert said[0] == "1 of 3, beta=0.05: FAILED, the log above says why."
    assert [row["point"] for row in desk.frontier()] == POINTS[1:]


def test_points_are_held_up_against_the_one_made_last_and_those_that_are_gone_left_out(desk):
    def make(point, **settings):
        behind = {asset: desk.home.latest(asset) for asset in SHARED}
        parents = tuple(Parent(asset, asset, artifact.digest) for asset, artifact in behind.items())
        return publish(desk.home, "sweep_point", point, *parents, partition=point, **settings)

    for point in ("a", "b", "c"):
        make(point, epochs=1)
    assert list(comparable_points(desk.home)) == ["a", "b", "c"]
    again = make("a", epochs=2)
    assert {name: each.digest for name, each in comparable_points(desk.home).items()} == {"a": again.digest}
    shutil.rmtree(desk.home.store.path_of("sweep_point", again.digest))
    assert list(comparable_points(desk.home)) == ["a", "b", "c"]


def test_points_on_other_tables_are_not_held_up_against_todays(desk):
    desk.sweep(POINTS[:2])
    assert list(comparable_points(desk.home)) == POINTS[:2]
    desk.lay("second")
    assert comparable_points(desk.home) == {}
    desk.sweep(POINTS[2:])
    assert [row["point"] for row in desk.frontier()] == POINTS[2:]
