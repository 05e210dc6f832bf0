"""Four models side by side: who is heard, who is asked again, and what is said of one that is missing or a twin."""

import json

import pytest

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.evaluation.evaluate import make_panel

FOUR = ("base", "sft", "dpo", "champion")


@pytest.fixture
def four(speakers, fake_speaker):
    return {
        "base": fake_speaker("base", skill=0.1, shift=-20.0),
        **speakers,
        "champion": fake_speaker("champion", skill=0.7),
    }


def test_base_sft_dpo_and_champion_stand_side_by_side(make_world, four, monkeypatch):
    world = make_world()
    world.evaluate(four, monkeypatch)
    report = world.report()
    for figures in ("models", "preferences", "generations", "perplexity"):
        assert tuple(report[figures]) == FOUR, figures
    assert report["preferences"]["sft"]["against_reference"] is None
    assert report["preferences"]["base"]["against_reference"]["chosen_change"]["value"] < -10
    assert set(report["divergence"]) == {"base", "dpo", "champion"}
    assert "random weights" in report["models"]["base"]["words"]
    assert list(report["decisions"]) == ["sft", "champion"]
    assert "random weights" in world.page()


def test_a_report_says_from_which_champion_sft_went_on(make_world, four, monkeypatch):
    world = make_world(pair_count=20)
    path = world.root / "sft" / "training.json"
    training = json.loads(path.read_text())
    path.write_text(json.dumps({**training, "facts": {"started_from": f"champion {'ab' * 32}"}}))
    world.evaluate(four, monkeypatch)
    words = {name: each["words"] for name, each in world.report()["models"].items()}
    assert words["sft"] == "sft went on from the champion abababababab of its day, not from the base model."
    assert words["base"].startswith("The base model, before every training of this line: random weights")
    assert words["dpo"] == words["champion"] == ""
    assert words["sft"] in world.page()


def test_what_was_answered_before_is_not_asked_again(make_world, four, monkeypatch):
    """A second evaluation with another challenger asks the others nothing but to score the new one's samples."""
    world = make_world()
    world.evaluate(four, monkeypatch, out="first")
    (world.root / "dpo" / "model" / "weights").write_text("another")
    for each in four.values():
        each.asked.clear()
    world.evaluate(four, monkeypatch, out="second", known=["first"])
    assert [four[name].asked for name in ("base", "champion")] == [[], []]
    assert [asked for asked in four["sft"].asked if not asked.startswith("score 0")] == []
    assert "reply 60 at 0" in four["dpo"].asked
    assert "score 120" in four["dpo"].asked


def test_with_and_without_what_is_known_the_report_is_the_same(make_world, four, monkeypatch):
    world = make_world(pair_count=40)
    world.evaluate(four, monkeypatch, out="first")
    world.evaluate(four, monkeypatch, out="second", known=["first"])
    for name in ("report.json", "report.html", "scores.parquet", "replies.parquet", "answers.parquet"):
        assert sha256_of_file(world.root / "first" / name) == sha256_of_file(world.root / "second" / name), name


@pytest.mark.parametrize("change", [{"max_new_tokens": 7}, {"seed": 3}, {"sampling_temperature": 0.5}])
def test_other_settings_ask_for_sampled_replies_again(make_world, four, monkeypatch, change):
    world = make_world(pair_count=20)
    world.evaluate(four, monkeypatch, out="first")
    four["base"].asked.clear()
    world.evaluate(four, monkeypatch, out="second", known=["first"], **change)
    assert any(asked.startswith("reply") for asked in four["base"].asked)


def test_a_spoilt_memory_is_passed_over(make_world, four, monkeypatch):
    world = make_world(pair_count=20)
    world.evaluate(four, monkeypatch, out="first")
    (world.root / "first" / "answers.parquet").write_bytes(b"PAR1 nonsense")
    four["dpo"].asked.clear()
    world.evaluate(four, monkeypatch, out="second", known=["first"])
    assert "score 20" in four["dpo"].asked


def test_a_champion_that_is_the_challenger_is_heard_once_and_said_to_be(make_world, speakers, monkeypatch):
    world = make_world(pair_count=20)
    panel = make_panel(world.root / "sft", world.root / "dpo", world.root / "dpo", show_base=False)
    assert [voice.name for voice in panel.voices] == ["sft", "dpo"]
    assert panel.opponents == ["sft"]
    assert panel.notes == ["Today's champion is this very dpo checkpoint, so it has no column of its own."]


def test_a_base_that_cannot_be_loaded_ends_nothing(make_world, four, monkeypatch):
    world = make_world(pair_count=20)

    def gone(asked):
        raise OSError(2, "no such folder")

    monkeypatch.setattr(four["base"], "score", gone)
    world.evaluate(four, monkeypatch)
    assert tuple(world.report()["models"]) == FOUR[1:]
    assert world.report()["notes"] == ["base is missing: FileNotFoundError: it could not be loaded."]
    assert "base is missing" in world.page()


def test_any_other_model_that_cannot_be_loaded_ends_the_evaluation(make_world, four, monkeypatch):
    def gone(asked):
        raise OSError(2, "no such folder")

    monkeypatch.setattr(four["dpo"], "score", gone)
    with pytest.raises(OSError, match="no such folder"):
        make_world(pair_count=20).evaluate(four, monkeypatch)


def with_tokenizers(world, **words):
    """Give models of the world a tokenizer each; cutting and padding differ without making another one of it."""
    for at, (name, word) in enumerate(words.items()):
        values = {"model": {"vocab": {word: 0}}, "truncation": {"max_length": at}, "padding": None}
        (world.root / name / "model" / "tokenizer.json").write_text(json.dumps(values))


def test_a_champion_with_another_tokenizer_is_said_to_compare_only_roughly(make_world, four, monkeypatch):
    world = make_world(pair_count=20)
    with_tokenizers(world, sft="a", dpo="a", champion="b")
    world.evaluate(four, monkeypatch)
    report = world.report()
    [note] = [note for note in report["notes"] if "tokenizer" in note]
    assert note.startswith(
        "champion has another tokenizer than dpo: its KL and its figures per token compare only rough"
    )
    assert note in report["warnings"]
    assert note in world.page()
    assert report["models"]["champion"]["tokenizer"] != report["models"]["dpo"]["tokenizer"]


def test_one_tokenizer_for_all_is_not_worth_a_note(make_world, four, monkeypatch):
    world = make_world(pair_count=20)
    with_tokenizers(world, sft="a", dpo="a", champion="a")
    world.evaluate(four, monkeypatch)
    assert world.report()["notes"] == []
    assert len({each["tokenizer"] for each in world.report()["models"].values()}) == 1
