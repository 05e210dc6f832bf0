"""A home into which two small drops were read and built to pairs, as the graph does it, without Dagster."""

import shutil

import pytest

from dpo_pipeline import annotations, preferences
from dpo_pipeline.annotations.drops import copy_drop
from dpo_pipeline.annotations.read import read_drop
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.core.artifacts import Parent, Recipe
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.preferences.build import DropTables, build_pairs
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.sketch import sketch_drop
from dpo_pipeline.samples.scenario import generate_scenario

KINDS = ("judgments", "rejected_records", "demonstrations")


def publish(home, recipe, folder, outcome, partition=None):
    """Publish and write both ledger lines."""
    artifact = home.store.publish(folder, recipe, outcome)
    same = {"attempt": f"run/{artifact.digest}", "asset": recipe.kind, "partition": partition, "recipe": recipe.digest}
    opening = {name: artifact.manifest[name] for name in ("settings", "code_version", "parents")}
    home.ledger.append("started", **same, **opening)
    home.ledger.append("finished", **same, artifact=artifact.digest)
    return artifact


def take_in(home, drop):
    with home.store.staging() as folder:
        recipe = Recipe("raw_annotations", annotations.CODE_VERSION, {"drop": drop}, ())
        raw = publish(home, recipe, folder, copy_drop(home.inbox / drop, folder), drop)
    parents = (Parent(f"raw_annotations/{drop}", "raw_annotations", raw.digest),)
    settings = {"annotations": AnnotationSettings().model_dump(mode="json"), "drop": drop}
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
        )
        for kind, folder, outcome in zip(KINDS, (one, two, three), outcomes, strict=False):
            publish(home, Recipe(kind, annotations.CODE_VERSION, settings, parents), folder, outcome, drop)
    judgments = home.latest("judgments", drop)
    with home.store.staging() as folder:
        outcome = sketch_drop(judgments.path, folder, settings=PreferenceSettings(), reporter=Quiet())
        parents = (Parent(f"judgments/{drop}", "judgments", judgments.digest),)
        recipe = Recipe("pair_sketches", preferences.CODE_VERSION, {"drop": drop}, parents)
        return judgments, publish(home, recipe, folder, outcome, drop)


@pytest.fixture
def published():
    """The function `publish`."""
    return publish


@pytest.fixture(scope="session")
def built_once(tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("lineage") / "home")
    generate_scenario(home.inbox, seed=3, scale=0.06)
    drops = sorted(path.name for path in home.inbox.iterdir())
    made = [take_in(home, drop) for drop in drops]
    parents = [
        Parent(f"{artifact.kind}/{drop}", artifact.kind, artifact.digest)
        for place in (0, 1)
        for drop, artifact in zip(drops, [pair[place] for pair in made], strict=True)
    ]
    tables = [DropTables(drop, one.path, two.path) for drop, (one, two) in zip(drops, made, strict=True)]
    with home.store.staging() as folder:
        outcome = build_pairs(tables, folder, settings=PreferenceSettings(), reporter=Quiet())
        settings = {"preferences": PreferenceSettings().model_dump(mode="json")}
        publish(home, Recipe("preference_pairs", preferences.CODE_VERSION, settings, tuple(parents)), folder, outcome)
    return home


@pytest.fixture
def built(built_once, tmp_path):
    """A copy of it, to be altered."""
    shutil.copytree(built_once.root, tmp_path / "built")
    return Home(tmp_path / "built")
