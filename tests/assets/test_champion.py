"""The asset `champion`: the decision is an artifact, the promotion a ledger line, once, whatever crashes in between."""

import json

import dagster as dg
import pyarrow as pa
import pytest

from assets import champion as module
from assets.definitions import build_definitions
from assets.reconcile import reconcile
from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.digests import digest_of_json
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import champion_digest, promotions, roll_back, withdraw
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.evaluation.report import SCHEMA
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.mlflow_tracking import NoTracking
from resources.settings import PipelineSettings

PAIR_IDS = [f"{at:032x}" for at in range(40)]


def publish(home, kind, name, *parents, write=None, settings=None):
    recipe = Recipe(kind, "1", settings or {"name": name}, parents)
    with home.store.staging() as folder:
        (folder / "name").write_text(name)
        if write:
            write(folder)
        artifact = home.store.publish(folder, recipe, Outcome())
    same = {"attempt": f"{kind}/{artifact.digest}", "asset": kind, "partition": None, "recipe": recipe.digest}
    home.ledger.append(
        "started", **same, dagster_run="elsewhere", code_version="1", settings={}, parents=[], profile="demo"
    )
    home.ledger.append("finished", **same, artifact=artifact.digest)
    return artifact


def write_pairs(folder):
    sides = [*(("held_out", at) for at in PAIR_IDS), ("train", "f" * 32)]
    rows = [
        {
            "pair_id": at,
            "prompt_id": at,
            "cluster_id": at,
            "split": side,
            "prompt": [{"role": "user", "content": f"{side} word{at} other{at} third{at}"}],
        }
        for side, at in sides
    ]
    write_table(folder / "pairs.parquet", pa.Table.from_pylist(rows))


def write_report(outcome, opponents):
    def write(folder):
        verdict = {
            "outcome": outcome,
            "words": outcome,
            "reason": "It rose.",
            "gain": {"value": 0.4, "low": 0.3, "high": 0.5, "count": 40},
            "p_value": 0.001,
            "checks": [{"name": "KL per token", "found": "0.1 nats", "allowed": "at most 0.5 nats", "held": True}],
        }
        report = {
            "schema": SCHEMA,
            "baseline": "sft",
            "challenger": "dpo",
            "decisions": dict.fromkeys(opponents, verdict),
            "judged_decoding": "greedy",
            "rule": ["The target is the share of good replies."],
            "held_out": {
                "pairs": len(PAIR_IDS),
                "pairs_sha256": digest_of_json(PAIR_IDS),
                "pairs_left_out": 0,
                "prompts_replied_to": 1,
            },
        }
        (folder / "report.json").write_text(json.dumps(report))
        models = ["dpo", *opponents]
        scores = [
            {"model": model, "pair_id": at, "chosen_log_prob": -1.0, "rejected_log_prob": -2.0}
            for model in models
            for at in PAIR_IDS
        ]
        write_table(folder / "scores.parquet", pa.Table.from_pylist(scores))
        replies = [{"model": model, "decoding": "greedy"} for model in models]
        write_table(folder / "replies.parquet", pa.Table.from_pylist(replies))

    return write


class Stage:
    """A home with a challenger and a report about it, and the asset materialized in it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.instance = dg.DagsterInstance.ephemeral()

    def challenge(self, name, outcome="better"):
        pairs = publish(self.home, "preference_pairs", "pairs", write=write_pairs)
        behind = Parent("preference_pairs", "preference_pairs", pairs.digest)
        sft = publish(self.home, "sft_checkpoint", name, behind, settings={"sft": {}, "model": {"seed": 1}})
        checkpoint = publish(
            self.home, "dpo_checkpoint", name, behind, Parent("sft_checkpoint", "sft_checkpoint", sft.digest)
        )
        parents, opponents = [behind, Parent("dpo_checkpoint", "dpo_checkpoint", checkpoint.digest)], ["sft"]
        if (champion := champion_digest(self.home)) not in {None, checkpoint.digest}:
            parents.append(Parent("champion", "dpo_checkpoint", champion))
            opponents.append("champion")
        publish(self.home, "evaluation_report", name, *parents, write=write_report(outcome, opponents))
        return checkpoint.digest

    def materialize(self, word=None, **champion):
        definitions = build_definitions(
            {
                "settings": PipelineSettings(profile="demo", overrides={"champion": champion}),
                "home": ArtifactHome(folder=str(self.home.root)),
                "tracking": NoTracking(),
                "gpu": Gpu(launcher="inline"),
            }
        )
        job = definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            {"ops": {"champion": {"config": word}}} if word else None,
            asset_selection=[dg.AssetKey("champion")],
            instance=self.instance,
            raise_on_error=False,
        )


@pytest.fixture
def stage(home):
    return Stage(home)


def failure(result):
    [event] = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.user_failure_data.description


def test_a_better_challenger_is_promoted_and_the_page_shows_why(stage):
    challenger = stage.challenge("first")
    result = stage.materialize()
    assert result.success
    [change] = promotions(stage.home)
    decision = stage.home.latest("champion")
    assert (change.champion, change.decision, change.mode.value) == (challenger, decision.digest, "auto")
    [event] = result.asset_materializations_for_node("champion")
    assert event.metadata["ruling"].value == "promoted"
    assert event.metadata["decision"].value.startswith("## Promoted\n")
    assert stage.home.ledger.verify() == []


@pytest.mark.parametrize("outcome", ["not_better", "not_enough_evidence"])
def test_one_that_is_not_better_leaves_the_history_as_it_is(stage, outcome):
    stage.challenge("first", outcome)
    assert stage.materialize().success
    assert promotions(stage.home) == []
    assert stage.home.latest("champion").facts["ruling"] == outcome


def test_materialized_again_nothing_is_promoted_twice(stage):
    first = stage.challenge("first")
    for _ in range(3):
        assert stage.materialize().success
    decision = stage.home.latest("champion")
    assert stage.home.all_made("champion") == [decision]  # a second run makes nothing new
    second = stage.challenge("second")
    for _ in range(2):
        assert stage.materialize().success
    assert [change.champion for change in promotions(stage.home)] == [first, second]


@pytest.mark.parametrize("mender", ["a retry", "the reconciler"])
def test_a_crash_between_decision_and_promotion_neither_loses_nor_doubles_it(stage, monkeypatch, mender):
    challenger = stage.challenge("first")

    def crash(*_):
        raise RuntimeError("the plug was pulled")

    with monkeypatch.context() as patched:
        patched.setattr(module, "promote", crash)
        assert not stage.materialize().success
    assert stage.home.latest("champion").facts["ruling"] == "promoted"
    assert promotions(stage.home) == []
    if mender == "a retry":
        assert stage.materialize().success
    else:
        deeds = reconcile(stage.home, stage.instance, NoTracking()).deeds
        assert any(f"champion is now {challenger}" in deed for deed in deeds)
    assert [change.champion for change in promotions(stage.home)] == [challenger]
    reconcile(stage.home, stage.instance, NoTracking())
    stage.materialize()
    assert [change.champion for change in promotions(stage.home)] == [challenger]


def test_a_rolled_back_champion_stays_rolled_back_and_the_next_is_compared_with_the_one_before(stage):
    first = stage.challenge("first")
    stage.materialize()
    stage.challenge("second")
    stage.materialize()
    roll_back(stage.home, reason="worse in production", person="Ada")
    stage.challenge("second")
    assert stage.materialize().success
    assert champion_digest(stage.home) == first
    assert stage.home.latest("champion").facts["ruling"] == "rolled_back_before"
    third = stage.challenge("third")
    assert stage.materialize().success
    assert promotions(stage.home)[-1].before == first
    assert champion_digest(stage.home) == third


def test_after_a_withdrawal_the_next_is_compared_with_sft_and_the_one_withdrawn_stays_away(stage):
    first = stage.challenge("first")
    stage.materialize()
    second = stage.challenge("second")
    withdraw(stage.home, reason="it has seen the golden set", person="Ada")
    result = stage.materialize()
    assert f"compares with {first}; today's champion is none" in failure(result)
    stage.challenge("first")
    assert stage.materialize().success
    assert stage.home.latest("champion").facts["ruling"] == "rolled_back_before"
    assert champion_digest(stage.home) is None
    stage.challenge("second")
    assert stage.materialize().success
    assert promotions(stage.home)[-1].before is None
    assert champion_digest(stage.home) == second


def test_by_hand_without_a_reason_is_refused_with_a_sentence_and_stands_in_the_ledger(stage):
    stage.challenge("first")
    result = stage.materialize({"promote": True, "reason": "", "person": "Ada"}, promotion="manual")
    assert not result.success
    assert failure(result).startswith("a promotion by hand was asked for without a reason.")
    assert promotions(stage.home) == []
    assert [line["event"] for line in stage.home.ledger.lines()][-2:] == ["started", "failed"]


def test_manual_promotion_waits_until_a_person_says_why(stage):
    challenger = stage.challenge("first")
    assert stage.materialize(promotion="manual").success
    assert stage.home.latest("champion").facts["ruling"] == "waits_for_a_person"
    assert promotions(stage.home) == []
    word = {"promote": True, "reason": "Read 50 replies: on brand.", "person": "Ada"}
    assert stage.materialize(word, promotion="manual").success
    [change] = promotions(stage.home)
    assert (change.champion, change.reason, change.person) == (challenger, "Read 50 replies: on brand.", "Ada")


def test_a_report_about_another_checkpoint_than_the_newest_decides_nothing(stage):
    stage.challenge("first")
    newer = publish(stage.home, "dpo_checkpoint", "newer")
    result = stage.materialize()
    assert f"the newest is {newer.digest}" in failure(result)
    assert promotions(stage.home) == []


def test_the_words_a_person_may_say_are_described_in_the_ui():
    fields = build_definitions().resolve_assets_def("champion").op.config_schema.config_type.fields
    assert set(fields) == {"promote", "reason", "person"}
    assert all(field.description and not field.is_required for field in fields.values())
