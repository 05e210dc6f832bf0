"""A home into which two small drops were read and built to pairs, as the graph does it, without Dagster."""

import shutil
from types import SimpleNamespace

import pytest

from dpo_pipeline import annotations, preferences
from dpo_pipeline.annotations.drops import copy_drop
from dpo_pipeline.annotations.read import read_drop
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.tombstones import due, with_forgotten
from dpo_pipeline.core.artifacts import Parent, Recipe
from dpo_pipeline.core.environment import describe_code, describe_environment
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.preferences.build import DropTables, build_pairs
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.sketch import sketch_drop
from dpo_pipeline.samples.scenario import generate_scenario

PLACE = {"dagster_run": "00000000-0000-4000-8000-000000000000", "profile": "demo"}
KINDS = ("judgments", "rejected_records", "demonstrations")


def publish(home, recipe, folder, outcome, partition=None):
    """Publish and write both ledger lines."""
    artifact = home.store.publish(folder, recipe, outcome)
    attempt = f"run/{artifact.digest}/{sum(1 for _ in home.ledger.lines())}"
    same = {"attempt": attempt, "asset": recipe.kind, "partition": partition, "recipe": recipe.digest}
    opening = {name: artifact.manifest[name] for name in ("settings", "code_version", "parents")}
    home.ledger.append("started", **same, **opening, **PLACE, code=describe_code(), environment=describe_environment())
    home.ledger.append("finished", **same, artifact=artifact.digest)
    return artifact


def take_in(home, drop):
    with home.store.staging() as folder:
        recipe = Recipe("raw_annotations", annotations.CODE_VERSION, {"drop": drop}, ())
        raw = publish(home, recipe, folder, copy_drop(home.inbox / drop, folder), drop)
    parents = (Parent(f"raw_annotations/{drop}", "raw_annotations", raw.digest),)
    return read(home, raw, drop, parents)


def read(home, raw, drop, parents):
    """Read a drop as the graph does, tombstones heeded; its judgments and their sketches."""
    settings = {"annotations": AnnotationSettings().model_dump(mode="json"), "drop": drop}
    forgotten = due(home, Recipe("judgments", annotations.CODE_VERSION, settings, parents))
    with home.store.staging() as one, home.store.staging() as two, home.store.staging() as three:
        outcomes = read_drop(
            raw.path,
            drop=drop,
            settings=AnnotationSettings(),
            pseudonym_key=home.pseudonym_key(),
            judgments=one,
            rejected=two,
            demonstrations=three,
            reporter=Quiet(),
            forgotten=forgotten,
        )
        for kind, folder, outcome in zip(KINDS, (one, two, three), outcomes, strict=False):
            recipe = with_forgotten(Recipe(kind, annotations.CODE_VERSION, settings, parents), forgotten)
            publish(home, recipe, folder, outcome, drop)
    judgments, taught = (home.latest(kind, drop) for kind in ("judgments", "demonstrations"))
    with home.store.staging() as folder:
        outcome = sketch_drop(
            judgments.path, folder, demonstrations=taught.path, settings=PreferenceSettings(), reporter=Quiet()
        )
        parents = tuple(Parent(f"{one.kind}/{drop}", one.kind, one.digest) for one in (judgments, taught))
        settings = {"preferences": PreferenceSettings().model_dump(mode="json"), "drop": drop}
        recipe = Recipe("pair_sketches", preferences.CODE_VERSION, settings, parents)
        return judgments, publish(home, recipe, folder, outcome, drop)


def build(home):
    """Pairs of the newest tables of every drop."""
    drops = home.partitions("judgments")
    made = [[home.latest(kind, drop) for drop in drops] for kind in ("judgments", "pair_sketches")]
    parents = [
        Parent(f"{artifact.kind}/{drop}", artifact.kind, artifact.digest)
        for tables in made
        for drop, artifact in zip(drops, tables, strict=True)
    ]
    tables = [DropTables(drop, one.path, two.path) for drop, one, two in zip(drops, *made, strict=True)]
    with home.store.staging() as folder:
        outcome = build_pairs(tables, folder, settings=PreferenceSettings(), reporter=Quiet())
        settings = {"preferences": PreferenceSettings().model_dump(mode="json")}
        recipe = Recipe("preference_pairs", preferences.CODE_VERSION, settings, tuple(parents))
        return publish(home, recipe, folder, outcome)


def again(home, *drops):
    """Read these drops again, then build the pairs again; what was built."""
    for drop in drops:
        raw = home.latest("raw_annotations", drop)
        read(home, raw, drop, (Parent(f"raw_annotations/{drop}", "raw_annotations", raw.digest),))
    return build(home)


@pytest.fixture(scope="session")
def graph():
    """The graph's steps, by name: take_in, build, again."""
    return SimpleNamespace(take_in=take_in, build=build, again=again)


@pytest.fixture
def published():
    """The function `publish`."""
    return publish


@pytest.fixture(scope="session")
def built_once(tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("lineage") / "home")
    generate_scenario(home.inbox, seed=3, scale=0.06)
    for drop in sorted(path.name for path in home.inbox.iterdir()):
        take_in(home, drop)
    build(home)
    return home


@pytest.fixture
def built(built_once, tmp_path):
    """A copy of it, to be altered."""
    shutil.copytree(built_once.root, tmp_path / "built")
    return Home(tmp_path / "built")
