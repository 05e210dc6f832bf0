"""`report compare`: any two checkpoints of a home, by asset, digest or alias; nothing of it enters the ledger."""

import shutil
from contextlib import contextmanager

import pytest

from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.errors import ArtifactError, InputError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.core.promotions import Promotion, promote
from dpo_pipeline.evaluation import hearing
from dpo_pipeline.profiles import load_profile
from dpo_pipeline.profiles.comparing import compare_checkpoints


@pytest.fixture
def home(make_world, tmp_path):
    """A home with the tables of a small world, an SFT checkpoint and two DPO checkpoints made from it."""
    world, home = make_world(pair_count=80), Home(tmp_path / "home")

    model = load_profile("demo").model.model_dump(mode="json")

    def publish(kind, folder, parents=(), partition=None):
        settings = {"model": model} if kind.endswith("_checkpoint") else {}
        with home.store.staging() as staged:
            shutil.copytree(folder, staged, dirs_exist_ok=True)
            artifact = home.store.publish(staged, Recipe(kind, "1", settings, tuple(parents)), Outcome())
        home.ledger.append("started", attempt=kind, asset=kind, partition=partition, profile="demo")
        home.ledger.append("finished", attempt=kind, asset=kind, partition=partition, artifact=artifact.digest)
        return Parent(kind, kind, artifact.digest)

    home.ledger.append("finished", attempt="r", asset="raw_annotations", partition="a", artifact="0")
    demonstrations = publish("demonstrations", world.root / "demonstrations", partition="a")
    pairs = publish("preference_pairs", world.root / "pairs")
    sft = publish("sft_checkpoint", world.root / "sft", [demonstrations, pairs])
    publish("dpo_checkpoint", world.root / "champion", [pairs, sft])
    publish("dpo_checkpoint", world.root / "dpo", [pairs, sft])
    return home


@pytest.fixture
def compare(home, speakers, fake_speaker, monkeypatch):
    by_weights = {**speakers, "champion": fake_speaker("champion", skill=0.7)}

    @contextmanager
    def fake_speaking(voice, **_):
        yield by_weights[(voice.checkpoint / "model" / "weights").read_text()]

    monkeypatch.setattr(hearing, "speaking", fake_speaking)
    profile = load_profile("demo")
    quick = profile.evaluation.model_copy(update={"bootstrap_samples": 100})
    profile = profile.model_copy(update={"evaluation": quick})

    def run(first, second, **rest):
        given = {"name": "demo", "profile": profile, **rest}
        return compare_checkpoints(home, first, second, reporter=Quiet(), **given)

    return run


def test_scores_replies_judges_and_page_of_any_two(home, compare):
    older, newer = (artifact.digest for artifact in reversed(home.all_made("dpo_checkpoint")))
    lines = sum(1 for _ in home.ledger.lines())
    found = compare(f"dpo_checkpoint/{older[:12]}", "dpo_checkpoint")
    names = [f"dpo {older[:8]}", f"dpo {newer[:8]}"]
    assert list(found.report["models"]) == names
    assert found.report["held_out"]["pairs"] == 80
    assert found.report["judges"][0]["opponent"] == names[0]
    ranked = [found.report["preferences"][name]["ranking_accuracy"]["value"] for name in names]
    assert ranked[1] > ranked[0] + 0.1
    assert found.folder == home.root / "comparisons" / f"{older[:12]}-{newer[:12]}"
    files = {"report.json", "report.html", "first_screen.png", "scores.parquet", "replies.parquet", "answers.parquet"}
    assert files <= {path.name for path in found.folder.iterdir()}
    assert sum(1 for _ in home.ledger.lines()) == lines


def test_the_champion_is_an_alias(home, compare, tmp_path):
    older = home.all_made("dpo_checkpoint")[-1].digest
    promote(home, Promotion(older, None, report="r", decision="d"))
    found = compare("champion", "dpo_checkpoint", out=tmp_path / "page")
    assert found.report["baseline"] == "champion"
    assert (tmp_path / "page" / "report.html").exists()


def test_two_names_of_one_checkpoint_are_refused(home, compare):
    digest = home.latest("dpo_checkpoint").digest
    with pytest.raises(InputError, match="are the same checkpoint"):
        compare("dpo_checkpoint", f"dpo_checkpoint/{digest[:10]}")


def test_what_is_no_checkpoint_or_was_altered_is_refused(home, compare):
    with pytest.raises(ArtifactError, match="preference_pairs is a preference_pairs"):
        compare("preference_pairs", "dpo_checkpoint")
    (home.latest("dpo_checkpoint").path / "model" / "weights").write_text("other")
    with pytest.raises(ArtifactError, match="is not what was published"):
        compare("sft_checkpoint", "dpo_checkpoint")


def test_a_checkpoint_of_another_profiles_model_is_refused_and_that_profile_is_asked_for(compare):
    other = load_profile("demo", overrides={"model": {"max_length": 111}})
    with pytest.raises(
        ArtifactError, match=r"under the profile demo, this run's is mine; they differ in model.max_len"
    ):
        compare("sft_checkpoint", "dpo_checkpoint", name="somewhere/mine.yaml", profile=other)
    with pytest.raises(ArtifactError, match=r"Name the profile it was trained under with --profile"):
        compare("sft_checkpoint", "dpo_checkpoint", name="somewhere/mine.yaml", profile=other)


def test_a_profile_that_trains_the_same_model_otherwise_may_look(compare):
    other = load_profile("demo", overrides={"sft": {"epochs": 7}, "evaluation": {"bootstrap_samples": 100}})
    assert compare("sft_checkpoint", "dpo_checkpoint", name="mine", profile=other).report["models"]


def test_a_folder_with_something_in_it_is_left_alone(compare, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="there are files in"):
        compare("sft_checkpoint", "dpo_checkpoint", out=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
