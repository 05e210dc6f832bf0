"""Reports side by side, and the gate's decision from what two evaluations left on disk."""

import pytest

from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.evaluation.compare import compare_reports, comparison_text, decide_between
from dpo_pipeline.evaluation.settings import EvaluationSettings

SETTINGS = EvaluationSettings(bootstrap_samples=200)


@pytest.fixture
def two_reports(make_world, speakers, fake_speaker, monkeypatch):
    """A world with the report of a poor challenger in `old` and of a good one in `new`."""
    world = make_world()
    world.evaluate({**speakers, "dpo": fake_speaker("poor", skill=0.5)}, monkeypatch, out="old")
    world.evaluate(speakers, monkeypatch, out="new")
    return world


def test_each_figure_says_who_is_better_or_that_it_is_noise(two_reports):
    found = compare_reports(two_reports.report("old"), two_reports.report("new"))
    better = {row["figure"]: row["better"] for row in found["rows"]}
    assert found["same_held_out"]
    assert better["Replies that meet every rule"] == "second"
    same = compare_reports(two_reports.report("new"), two_reports.report("new"))
    assert {row["better"] for row in same["rows"]} == {"neither"}


def test_the_table_names_both_and_warns_of_different_pairs(two_reports):
    old, new = two_reports.report("old"), two_reports.report("new")
    old["held_out"]["pairs_sha256"] = "another"
    text = comparison_text(compare_reports(old, new), names=("september", "october"))
    assert "september" in text.splitlines()[0]
    assert "The held-out pairs differ" in text


def test_a_figure_missing_on_one_side_is_said_to_be(two_reports):
    old, new = two_reports.report("old"), two_reports.report("new")
    old["generations"]["dpo"] = {}
    rows = {row["figure"]: row["better"] for row in compare_reports(old, new)["rows"]}
    assert rows["Replies that meet every rule"] is None
    assert "not measured" in comparison_text(compare_reports(old, new))


def test_the_gate_decides_from_the_folders(two_reports):
    new, old = two_reports.root / "new", two_reports.root / "old"
    assert decide_between(new, old, settings=SETTINGS).promotes
    back = decide_between(old, new, settings=SETTINGS)
    assert back.outcome == "not_better"
    assert not decide_between(new, new, settings=SETTINGS).promotes


def test_the_gate_from_folders_agrees_with_the_report(two_reports, monkeypatch, speakers):
    """dpo against sft, read back from disk, is the decision the report states."""
    folder = two_reports.root / "new"
    stated = two_reports.report("new")["decision"]
    sft, dpo = (_evidence(folder, model) for model in ("sft", "dpo"))
    from dpo_pipeline.evaluation.gate import decide_promotion

    again = decide_promotion(dpo, sft, SETTINGS.gate, seed=SETTINGS.seed, samples=200)
    assert again.gain.as_dict() == stated["gain"]
    assert [check.held for check in again.checks] == [check["held"] for check in stated["checks"]]


def _evidence(folder, model):
    from dpo_pipeline.evaluation.compare import _evidence_of

    return _evidence_of(folder, model, model)


def test_a_folder_without_a_report_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"report\.json cannot be read"):
        decide_between(tmp_path, tmp_path, settings=SETTINGS)
