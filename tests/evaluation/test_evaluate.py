"""The stage from folders to files, with speakers in place of checkpoints: verdicts, determinism, bad input."""

import json
import math
import struct

import pyarrow.parquet as pq
import pytest

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.evaluation.report import SCHEMA, read_report
from dpo_pipeline.evaluation.schemas import REPLIES, SCORES

TABLES = ("replies", "scores", "samples", "demonstration_scores", "comparisons", "answers")
FILES = {"report.json", "report.html", "first_screen.png", *(f"{name}.parquet" for name in TABLES)}


def test_a_better_challenger_is_called_better(make_world, speakers, monkeypatch):
    world = make_world()
    outcome = world.evaluate(speakers, monkeypatch)
    report = world.report()
    assert outcome.facts["outcome"] == report["decision"]["outcome"] == "better"
    assert report["schema"] == SCHEMA
    assert {path.name for path in (world.root / "out").iterdir()} == FILES
    assert outcome.counts["held_out_pairs"] == 120
    assert outcome.counts["held_out_prompts"] == 60
    assert outcome.counts["replies"] == 240
    assert outcome.facts["dpo/passed"] > outcome.facts["sft/passed"]
    assert "seconds" in "".join(outcome.remarks)
    assert not any("seconds" in name for name in outcome.facts)


def test_the_reference_is_not_scored_again(make_world, speakers, monkeypatch):
    make_world().evaluate(speakers, monkeypatch)
    assert "score 120" in speakers["dpo"].asked
    assert "score 120" not in speakers["sft"].asked


def test_the_tables_hold_every_score_and_reply(make_world, speakers, monkeypatch):
    world = make_world()
    world.evaluate(speakers, monkeypatch)
    scores = pq.read_table(world.root / "out" / "scores.parquet")
    replies = pq.read_table(world.root / "out" / "replies.parquet")
    assert scores.schema.equals(SCORES, check_metadata=True)
    assert replies.schema.names == REPLIES.names
    assert replies.schema.metadata == REPLIES.metadata
    assert scores.num_rows == 240
    assert replies.num_rows == 240
    margins = {row["margin"] for row in scores.to_pylist() if row["model"] == "sft"}
    assert margins == {0.0}


def test_equal_inputs_give_equal_bytes(make_world, speakers, monkeypatch):
    world = make_world(pair_count=40)
    world.evaluate(speakers, monkeypatch, out="first")
    world.evaluate(speakers, monkeypatch, out="second")
    for name in FILES:
        assert sha256_of_file(world.root / "first" / name) == sha256_of_file(world.root / "second" / name), name


def test_the_same_model_twice_is_not_better(make_world, fake_speaker, monkeypatch):
    world = make_world()
    same = fake_speaker("sft", skill=0.6)
    outcome = world.evaluate({"sft": same, "dpo": same}, monkeypatch)
    assert outcome.facts["outcome"] == "not_better"
    assert world.report()["divergence"]["dpo"]["kl_per_reply"]["value"] == 0.0


def test_an_empty_held_out_set_is_no_pass_and_no_crash(make_world, speakers, monkeypatch):
    world = make_world(pair_count=0)
    outcome = world.evaluate(speakers, monkeypatch)
    assert outcome.facts["outcome"] == "not_enough_evidence"
    assert "There is no held-out pair" in world.report()["warnings"][0]
    assert "Not enough evidence" in world.page()


def test_few_prompts_are_not_enough(make_world, speakers, monkeypatch):
    outcome = make_world(pair_count=20).evaluate(speakers, monkeypatch)
    assert outcome.facts["outcome"] == "not_enough_evidence"
    assert "at least 30" in outcome.facts["reason"]


def test_nan_is_not_better_and_is_not_asked_to_reply(make_world, speakers, monkeypatch):
    world = make_world()
    speakers["dpo"].log_prob = math.nan
    outcome = world.evaluate(speakers, monkeypatch)
    assert outcome.facts["outcome"] == "not_better"
    assert "120 of 120 pairs without a finite log-prob" in outcome.facts["reason"]
    assert not any(asked.startswith("reply") for asked in speakers["dpo"].asked)
    assert "dpo has no replies." in world.report()["warnings"]
    assert "Not better" in world.page()


def test_a_nan_baseline_is_no_pass(make_world, speakers, monkeypatch):
    speakers["sft"].log_prob = math.nan
    outcome = make_world().evaluate(speakers, monkeypatch)
    assert outcome.facts["outcome"] != "better"


def test_empty_replies_are_not_better(make_world, speakers, monkeypatch):
    world = make_world()
    speakers["dpo"].replies = lambda at, question: " "
    outcome = world.evaluate(speakers, monkeypatch)
    assert outcome.facts["outcome"] == "not_better"
    assert "Empty replies: 100 %" in outcome.facts["reason"]
    assert "(nothing)" in world.page()


def test_a_collapse_into_one_phrase_is_not_better(make_world, speakers, monkeypatch):
    world = make_world()
    speakers["dpo"].replies = lambda at, question: "I am sorry sorry sorry sorry sorry sorry sorry sorry"
    outcome = world.evaluate(speakers, monkeypatch)
    assert outcome.facts["outcome"] == "not_better"
    assert "repetition" in outcome.facts["reason"]
    assert world.report()["generations"]["dpo"]["greedy"]["different_replies"] == 1


def test_without_a_judge_the_verdict_rests_on_log_probs_and_says_so(make_world, speakers, monkeypatch):
    world = make_world()
    world.evaluate(speakers, monkeypatch, rubric=None)
    report = world.report()
    assert "for want of a judge" in report["target"]
    assert any("No judge" in warning for warning in report["warnings"])
    assert "Ranking accuracy:" in world.page()


def test_sampled_replies_can_be_the_ones_judged(make_world, speakers, monkeypatch):
    world = make_world()
    world.evaluate(speakers, monkeypatch, judged_decoding="sampled")
    report = world.report()
    passed = report["generations"]["dpo"]["sampled"]["passed"]["value"]
    gain = report["decision"]["gain"]["value"]
    assert gain == pytest.approx(passed - report["generations"]["sft"]["sampled"]["passed"]["value"], abs=1e-5)
    assert "sampled replies" in report["target"]
    assert "Sampled replies compared blind" in world.page()


def test_a_champion_is_shown_beside_and_decided_against(make_world, speakers, fake_speaker, monkeypatch):
    world = make_world()
    champion = fake_speaker("champion", skill=0.95)
    world.evaluate({**speakers, "champion": champion}, monkeypatch)
    report = world.report()
    assert list(report["models"]) == ["sft", "dpo", "champion"]
    assert list(report["decisions"]) == ["sft", "champion"]
    assert report["decisions"]["sft"]["outcome"] == "better"
    assert report["decisions"]["champion"]["outcome"] != "better"
    assert {judge["opponent"] for judge in report["judges"]} == {"sft", "champion"}


def test_pairs_the_challenger_cannot_score_are_counted_as_left_out(make_world, speakers, monkeypatch):
    world = make_world()
    whole = speakers["dpo"].score
    speakers["dpo"].score = lambda questions: dict(list(whole(questions).items())[1:])
    outcome = world.evaluate(speakers, monkeypatch)
    assert outcome.counts["held_out_pairs"] == 119
    assert world.report()["held_out"]["pairs_left_out"] == 1


def test_contamination_is_counted(make_world, speakers, monkeypatch):
    world = make_world()
    path = world.root / "pairs" / "pairs.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    held_out = next(row for row in rows if row["split"] == "held_out")
    rows.append({**held_out, "pair_id": "leak", "split": "train"})
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)
    world.evaluate(speakers, monkeypatch)
    assert world.report()["held_out"]["contamination"] == {
        "prompts": 60,
        "in_training_pairs": 1,
        "near_training_pairs": 1,
        "in_demonstrations": 0,
        "near_copies": None,
        "near_demonstrations": None,
        "trained_like_golden": None,
        "near_copy_jaccard": None,
    }
    assert any("were not searched for" in warning for warning in world.report()["warnings"])
    assert any("the figures flatter" in warning for warning in world.report()["warnings"])


@pytest.mark.parametrize(("jaccard", "near", "said"), [(0.999, 1, "1 nearly"), (0.3, 60, "60 nearly")])
def test_near_copies_in_training_stand_in_report_page_and_first_line(
    make_world, speakers, monkeypatch, jaccard, near, said
):
    """One trained prompt is a held-out one under other ids and spelling; all prompts of this world are a bit alike."""
    world = make_world()
    path = world.root / "pairs" / "pairs.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    copied = next(row for row in rows if row["split"] == "held_out")
    prompt = [{"role": "user", "content": copied["prompt"][0]["content"].upper()}]
    ids = {"pair_id": "1" * 32, "prompt_id": "2" * 32, "cluster_id": "2" * 32}
    rows.append({**copied, **ids, "prompt": prompt, "split": "train"})
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)
    manifest = {"settings": {"preferences": {"prompt_cluster_jaccard": jaccard}}}
    (world.root / "pairs" / "manifest.json").write_text(json.dumps(manifest))
    world.evaluate(speakers, monkeypatch)
    found = world.report()["held_out"]["contamination"]
    assert (found["in_training_pairs"], found["near_training_pairs"]) == (0, 0)
    assert (found["near_copies"], found["trained_like_golden"], found["near_copy_jaccard"]) == (near, 0, jaccard)
    assert f"none seen in training, {said}" in world.page()
    assert (
        f"{near} of 60 held-out prompts have a near copy among the trained ones: the figures flatter." in world.page()
    )


def test_a_near_copy_among_the_demonstrations_is_counted_and_said(make_world, speakers, monkeypatch):
    """SFT left out what is like a held-out prompt from 0.999 on only; the pair table counts from 0.8 on."""
    world = make_world()
    pairs = pq.read_table(world.root / "pairs" / "pairs.parquet").to_pylist()
    held_out = next(row for row in pairs if row["split"] == "held_out")
    asked = [row["prompt"][0]["content"] for row in pairs if row["prompt_id"] == held_out["prompt_id"]]
    path = world.root / "demonstrations" / "demonstrations.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    for words in asked:
        said = [{"role": "user", "content": f"{words} too"}, {"role": "assistant", "content": "Yes."}]
        rows.append({**rows[0], "messages": said})
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)
    manifest = {"settings": {"preferences": {"prompt_cluster_jaccard": 0.8}}}
    (world.root / "pairs" / "manifest.json").write_text(json.dumps(manifest))
    training = json.loads((world.root / "sft" / "training.json").read_text())
    training["settings"]["sft"] |= {"held_out_similarity": 0.999, "held_out_share": 0.0}
    (world.root / "sft" / "training.json").write_text(json.dumps(training))
    world.evaluate(speakers, monkeypatch)
    found = world.report()["held_out"]["contamination"]
    assert (found["in_demonstrations"], found["near_demonstrations"]) == (0, 1)
    assert "1 of 60 held-out prompts are, or have a near copy, among the demonstrations learned from" in world.page()


def test_the_picture_is_1200_by_630(make_world, speakers, monkeypatch):
    world = make_world(pair_count=40)
    world.evaluate(speakers, monkeypatch)
    header = (world.root / "out" / "first_screen.png").read_bytes()[:24]
    assert struct.unpack(">II", header[16:24]) == (1200, 630)


def test_a_checkpoint_that_hides_its_settings_is_refused(make_world, speakers, monkeypatch):
    world = make_world(pair_count=4)
    (world.root / "sft" / "training.json").write_text("{}")
    with pytest.raises(ArtifactError, match="does not say 'sft' of its training"):
        world.evaluate(speakers, monkeypatch)


def test_a_report_of_another_schema_is_refused(tmp_path):
    path = tmp_path / "report.json"
    path.write_text('{"schema": "other/9"}')
    with pytest.raises(ArtifactError, match="is of schema other/9"):
        read_report(path)
