"""The bundled profiles load, and the demo's rubric is the one its annotators were given."""

import pytest

from dpo_pipeline.core.errors import SettingsError
from dpo_pipeline.profiles import load_profile, profile_names
from dpo_pipeline.samples.brand import brand_rubric


@pytest.mark.parametrize("name", profile_names())
def test_a_bundled_profile_loads_and_survives_the_round_trip(name):
    profile = load_profile(name)
    assert type(profile).parse(profile.model_dump(mode="json"), where=name) == profile


def test_the_rubric_of_the_demo_holds_the_guidelines_of_the_scenario():
    rubric = load_profile("demo").evaluation.rubric
    assert rubric is not None
    assert {name: getattr(rubric, name) for name in brand_rubric()} == brand_rubric()


def test_overrides_are_laid_over_without_losing_their_neighbours():
    profile = load_profile("demo", overrides={"dpo": {"optimizer": {"learning_rate": 1e-4}}})
    assert profile.dpo.optimizer.learning_rate == 1e-4
    assert profile.dpo.optimizer.warmup_share == load_profile("demo").dpo.optimizer.warmup_share


def test_a_profile_of_ones_own_is_found_by_its_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("description: mine\nmodel: {path: weights}\n")
    assert load_profile(str(path)).model.path == "weights"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [", "not YAML"),
        ("- 1", "no settings"),
        ("description: x\nmodel: {}\n", "exactly one of scratch, path and hub"),
        ("description: x\nmodel: {path: a}\nsft: {epochs: 0}\ndpo: {beta: 0}\n", "sft.epochs is 0"),
    ],
)
def test_a_faulty_profile_says_what_is_wrong(tmp_path, text, fault):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=fault):
        load_profile(str(path))


def test_an_unknown_profile_names_the_bundled_ones():
    with pytest.raises(SettingsError, match="bundled are demo, hh-smoke"):
        load_profile("demmo")
