"""The whole report comes out again from the stored rows; a row that is altered changes the figures it is part of."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.dpo.settings import DpoSettings
from dpo_pipeline.evaluation import evaluate, hearing
from dpo_pipeline.evaluation.benchmark_answers import BenchmarkAnswer, figure_of
from dpo_pipeline.evaluation.benchmarks import BenchmarkRow, Taken
from dpo_pipeline.evaluation.restored import rebuilt_report
from dpo_pipeline.evaluation.settings import EvaluationSettings
from dpo_pipeline.evaluation.training import what_is_asked


@pytest.fixture
def reported(make_world, speakers, fake_speaker, monkeypatch):
    """A world with a report about four models, one of which cannot score everything."""
    world = make_world(pair_count=60)
    four = {"base": fake_speaker("base", 0.1), **speakers, "champion": fake_speaker("champion", 0.7)}
    whole = four["champion"].score
    monkeypatch.setattr(
        four["champion"],
        "score",
        lambda asked: {key: answer for key, answer in whole(asked).items() if not key.startswith(("0", "5"))},
    )
    world.evaluate(four, monkeypatch)
    return world


def again(world):
    claimed = world.report()
    settings = EvaluationSettings.model_validate(claimed["settings"])
    folders = (world.root / name for name in ("pairs", "demonstrations", "sft", "reference"))
    pairs, demonstrations, sft, reference = folders
    held_out, kept_aside = what_is_asked(pairs, [demonstrations], sft, reference, settings)
    beta = DpoSettings().beta
    return rebuilt_report(world.root / "out", claimed, held_out, kept_aside, settings=settings, beta=beta)


def alter(world, file, change):
    path = world.root / "out" / file
    table = pq.read_table(path)
    rows = [changed for row in table.to_pylist() if (changed := change(row)) is not None]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def test_every_value_of_the_report_comes_out_again(reported):
    assert reported.report()["held_out"]["pairs_left_out"] > 0
    assert again(reported) == reported.report()


def test_the_divergence_rests_on_both_log_probs_of_the_samples(reported):
    before = reported.report()["divergence"]
    alter(reported, "samples.parquet", lambda row: row | {"own_log_prob": row["own_log_prob"] + 2.0})
    found = again(reported)["divergence"]
    for name, claimed in before.items():
        assert claimed["samples"] >= 20
        assert found[name]["kl_per_reply"]["value"] == pytest.approx(claimed["kl_per_reply"]["value"] + 2.0, rel=1e-4)
    alter(reported, "samples.parquet", lambda row: row | {"reference_log_prob": row["reference_log_prob"] + 2.0})
    assert again(reported)["divergence"]["dpo"]["kl_per_reply"]["value"] == pytest.approx(
        before["dpo"]["kl_per_reply"]["value"], rel=1e-4
    )


def test_a_turned_verdict_moves_the_win_rate_of_its_judge_and_opponent_alone(reported):
    rows = pq.read_table(reported.root / "out" / "comparisons.parquet").to_pylist()
    mine = next(row for row in rows if row["opponent"] == "sft" and row["verdict"] == "second")
    alter(reported, "comparisons.parquet", lambda row: row | {"verdict": "first"} if row == mine else row)
    claimed, found = reported.report()["judges"], again(reported)["judges"]
    for before, after in zip(claimed, found, strict=True):
        lost = int(before["opponent"] == "sft")
        assert (after["wins"], after["losses"]) == (before["wins"] - lost, before["losses"] + lost)
        assert after["people"] == before["people"]


@pytest.fixture
def benchmarked(make_world, speakers, monkeypatch):
    """A world whose models took a benchmark of sixteen questions: its mean, and a figure over the whole corpus."""

    def take(model, tokenizer, **_):
        answers = [BenchmarkAnswer("colours", "acc", str(at), "d", float(at % 2), "0", "[]") for at in range(16)]
        values = figure_of([answer.value for answer in answers])
        mean = BenchmarkRow("colours", "acc", *values, 16, is_mean_of_answers=True)
        answers += [BenchmarkAnswer("colours", "bleu", str(at), "d", None, "0", "[]") for at in range(16)]
        return Taken([mean, BenchmarkRow("colours", "bleu", 31.5, None, None, 16)], answers)

    world = make_world(pair_count=20)
    monkeypatch.setattr(hearing, "run_benchmarks", take)
    monkeypatch.setattr(evaluate, "require_harness", lambda: None)
    for speaker in speakers.values():
        speaker.model = speaker.tokenizer = None
    world.evaluate(speakers, monkeypatch, benchmarks={"tasks": ["colours"]})
    return world


def test_benchmarks_that_are_means_over_questions_are_taken_from_the_answers(benchmarked):
    claimed = benchmarked.report()["benchmarks"]
    assert again(benchmarked)["benchmarks"] == claimed
    right = lambda row: row | {"value": 1.0} if (row["model"], row["item"]) == ("dpo", "0") else row  # noqa: E731
    alter(benchmarked, "benchmark_answers.parquet", right)
    found = again(benchmarked)["benchmarks"]
    assert found["sft"] == claimed["sft"]
    assert found["dpo"][0]["value"] == pytest.approx(9 / 16)
    assert found["dpo"][1] == claimed["dpo"][1]


def test_a_benchmark_of_which_answers_are_stored_cannot_be_left_out_of_the_report(benchmarked):
    path = benchmarked.root / "out" / "report.json"
    report = json.loads(path.read_text())
    del report["benchmarks"]["dpo"][0]
    path.write_text(json.dumps(report))
    found = again(benchmarked)["benchmarks"]["dpo"]
    assert {"task": "colours", "metric": "acc", "value": 0.5, "low": 0.24697, "high": 0.75303, "count": 16} in found


def test_a_reply_that_was_judged_and_is_gone_is_named(reported):
    prompt = reported.report()["shown"][0]["prompt_id"]
    gone = (prompt, "dpo", "greedy")
    alter(
        reported,
        "replies.parquet",
        lambda row: None if (row["prompt_id"], row["model"], row["decoding"]) == gone else row,
    )
    with pytest.raises(ArtifactError, match=f"replies of dpo; 1 of them .*{prompt}"):
        again(reported)
