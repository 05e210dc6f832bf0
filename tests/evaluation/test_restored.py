"""The whole report comes out again from the stored rows; a row that is altered changes the figures it is part of."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.dpo.settings import DpoSettings
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
