"""A sweep's grid: names that say all about a point, profiles made from the name alone, a time said before it starts."""

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.core.artifacts import Outcome, Recipe
from dpo_pipeline.core.errors import SettingsError
from dpo_pipeline.profiles import load_profile, sweep_commands
from dpo_pipeline.profiles.sweep_commands import sweep
from dpo_pipeline.profiles.sweeps import about_how_long, points_of, profile_of_point, values_of

DEMO = load_profile("demo")


def test_a_grid_is_every_combination_once_in_the_order_of_the_axes():
    grid = {"loss": ["sigmoid", "ipo"], "beta": ["0.05", "0.050", "0.5"]}
    assert points_of(grid) == [
        "beta=0.05 loss=sigmoid",
        "beta=0.05 loss=ipo",
        "beta=0.5 loss=sigmoid",
        "beta=0.5 loss=ipo",
    ]
    with pytest.raises(SettingsError, match="nothing is varied"):
        points_of({"beta": []})


def test_a_points_profile_differs_from_the_profile_in_its_values_alone():
    point = profile_of_point(DEMO, "beta=0.3 learning_rate=1e-05 loss=sigmoid_norm epochs=2")
    assert (point.dpo.beta, point.dpo.loss.value, point.dpo.epochs) == (0.3, "sigmoid_norm", 2.0)
    assert point.dpo.optimizer.learning_rate == 1e-5
    assert point.dpo.optimizer.warmup_share == DEMO.dpo.optimizer.warmup_share
    own = {name: getattr(DEMO.dpo, name) for name in ("beta", "loss", "epochs")}
    assert (
        point.model_copy(update={"dpo": point.dpo.model_copy(update={**own, "optimizer": DEMO.dpo.optimizer})}) == DEMO
    )


@pytest.mark.parametrize("name", ["", "beta", "beta=", "gamma=3", "beta=1 beta=2", "beta=0.1  loss=ipo"])
def test_what_is_no_name_of_a_point_is_refused(name):
    with pytest.raises(SettingsError, match="a point is named like"):
        profile_of_point(DEMO, name)


def test_a_value_that_does_not_fit_is_named():
    with pytest.raises(SettingsError, match=r"dpo.beta is '-1'"):
        profile_of_point(DEMO, "beta=-1")
    with pytest.raises(SettingsError, match=r"dpo.loss is 'squared'"):
        profile_of_point(DEMO, "loss=squared")


@given(beta=st.lists(st.floats(1e-3, 10), min_size=1, max_size=3), losses=st.lists(st.sampled_from(["ipo", "hinge"])))
def test_law_a_points_name_can_be_read_back_and_no_two_points_are_the_same(beta, losses):
    points = points_of({"beta": [repr(value) for value in beta], "loss": losses})
    assert len(set(points)) == len(points)
    for point in points:
        assert " ".join(f"{name}={value}" for name, value in values_of(point).items()) == point


def made(home, asset, settings, seconds, **remarks):
    recipe = Recipe(asset, "1", settings, ())
    with home.store.staging() as folder:
        (folder / "file").write_text(asset)
        artifact = home.store.publish(folder, recipe, Outcome())
    home.ledger.append(
        "finished",
        attempt=asset,
        asset=asset,
        partition=None,
        artifact=artifact.digest,
        remarks={"seconds": seconds, **remarks},
    )


def test_the_time_is_reckoned_from_what_training_and_evaluation_took_here(home):
    points = points_of({"beta": ["0.1", "0.5"], "epochs": ["1", "6"]})
    assert about_how_long(home, DEMO, points).startswith("How long a point takes is not known")
    made(home, "dpo_checkpoint", {"dpo": {"epochs": 3.0}}, 60.0)
    made(home, "evaluation_report", {}, 20.0)
    made(home, "evaluation_report", {"again": 1}, 0.1, reused=True)
    expected = "About 6 min: in this home 3 epochs of DPO took 60 s, an evaluation 20 s."  # 2 x (20 + 20 + 120 + 20)
    assert about_how_long(home, DEMO, points) == expected


def test_the_command_takes_several_values_after_one_flag_and_says_what_it_would_make(home, monkeypatch):
    monkeypatch.setenv("DPO_PIPELINE_HOME", str(home.root))
    result = CliRunner().invoke(sweep, ["--beta", "0.05", "0.5", "--loss", "ipo", "--plan"])
    assert result.exit_code == 0, result.output
    first, *points = result.output.splitlines()
    assert first.startswith("2 points. How long a point takes is not known")
    assert points == ["beta=0.05 loss=ipo", "beta=0.5 loss=ipo"]


def test_the_command_hands_the_points_on_and_fails_if_one_failed(home, monkeypatch):
    monkeypatch.setenv("DPO_PIPELINE_HOME", str(home.root))
    asked = []

    def sweeper(where, profile, points):
        asked.append((where.root, profile, list(points)))
        return ["1 of 1, beta=0.2: FAILED, the log above says why."]

    monkeypatch.setattr(sweep_commands, "installed_sweeper", lambda: sweeper)
    result = CliRunner().invoke(sweep, ["--beta", "0.2", "--profile", "demo"])
    assert asked == [(home.root, "demo", ["beta=0.2"])]
    assert result.exit_code == 1
