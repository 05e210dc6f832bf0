"""Two profiles in one home: what one made is refused by the other where its settings are not the other's."""

import dagster as dg
import pytest
import yaml

from assets.definition import DEFINITIONS
from assets.tracked import Made, tracked
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.home import Home
from dpo_pipeline.profiles import FOLDER
from dpo_pipeline.profiles.belonging import made_under
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.settings import PipelineSettings
from resources.tracking import NoTracking


@pytest.fixture(autouse=True)
def registry():
    """The real assets stay out of these tests, and the toys out of the others."""
    real = dict(DEFINITIONS)
    DEFINITIONS.clear()
    yield
    DEFINITIONS.clear()
    DEFINITIONS.update(real)


def asset(name, **options):
    def body(step):
        (step.folder() / "file.txt").write_text(name)
        return Outcome()

    body.__name__ = name
    return tracked(Made(name, "A toy."), stage="toys", code_version="1", **options)(body)


def chain():
    table = asset("table", settings=["preferences"])
    checkpoint = asset("checkpoint", reads=["table"], settings=["model", "sft"])
    report = asset("report", reads=["checkpoint"], settings=["evaluation"])
    return table, checkpoint, report


def beside(home, _profile):
    return {"champion": home.latest("checkpoint")}


@pytest.fixture
def other(tmp_path):
    """A function that writes a profile of another name: the demo's with some values changed."""

    def write(name="other", **sections):
        values = yaml.safe_load((FOLDER / "demo.yaml").read_text())
        for section, changed in sections.items():
            values[section] = {**values.get(section, {}), **changed}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return str(path)

    return write


def run(home, assets, selection, *, profile="demo", overrides=None):
    """Materialize; None if it went well, else what the first failure says."""
    result = dg.materialize(
        list(assets),
        selection=selection,
        resources={
            "settings": PipelineSettings(profile=profile, overrides=overrides or {}),
            "home": ArtifactHome(folder=str(home.root)),
            "tracking": NoTracking(),
            "gpu": Gpu(launcher="inline"),
        },
        raise_on_error=False,
    )
    return None if result.success else result.failure_data_for_node(selection[0]).user_failure_data.description


def made(home: Home, *assets):
    assert run(home, assets, [asset.op.name for asset in assets]) is None


def test_an_evaluation_under_another_profile_refuses_a_checkpoint_it_would_not_have_made(home, other):
    assets = chain()
    made(home, *assets)
    profile, digest = other(sft={"epochs": 7}), home.latest("checkpoint").digest
    epochs = home.latest("checkpoint").manifest["settings"]["sft"]["epochs"]
    said = run(home, assets, ["report"], profile=profile)
    assert said == (
        f"checkpoint {digest[:12]} was made under the profile demo, this run's is other; they differ in "
        f"sft.epochs ({epochs} there, 7.0 here). Expected: an input made under other, or with the settings it gives. "
        "Give other a home of its own (DPO_PIPELINE_HOME), or materialize checkpoint under other first."
    )
    refused = [line for line in home.ledger.lines() if line["asset"] == "report"][-2:]
    assert [(line["event"], line.get("reason")) for line in refused] == [("started", None), ("failed", said)]


def test_made_again_under_the_other_profile_it_is_the_others_and_no_longer_the_firsts(home, other):
    assets = chain()
    made(home, *assets)
    profile = other(sft={"epochs": 7})
    assert run(home, assets, ["checkpoint"], profile=profile) is None, "the table serves both"
    assert made_under(home, home.latest("checkpoint")) == profile
    assert run(home, assets, ["report"], profile=profile) is None
    assert "was made under the profile" in run(home, assets, ["report"])


def test_editing_a_profile_or_laying_values_over_it_is_no_other_profile(home, other):
    assets = chain()
    profile = other("mine")
    assert run(home, assets, ["table"], profile=profile) is None
    assert run(home, assets, ["checkpoint"], profile=profile) is None
    assert run(home, assets, ["report"], profile=other("mine", sft={"epochs": 7})) is None
    assert run(home, assets, ["report"], profile=profile, overrides={"sft": {"epochs": 9}}) is None


def test_another_name_for_the_same_settings_is_no_other_profile(home, other):
    assets = chain()
    made(home, *assets)
    assert run(home, assets, ["report"], profile=other()) is None


def test_what_comes_beside_may_be_trained_otherwise_but_not_another_model(home, other):
    table, checkpoint, _ = chain()
    look = asset("look", also_reads=beside)
    made(home, table, checkpoint)
    assert run(home, [look], ["look"], profile=other(sft={"epochs": 7})) is None
    said = run(home, [look], ["look"], profile=other(model={"max_length": 111}))
    assert "they differ in model.max_length (" in said
