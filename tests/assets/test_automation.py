"""What starts by itself: tables after drops, trainings after change, one at a time, never past a failing check."""

import json
import time

import dagster as dg
import pytest
import yaml
from dagster import AssetKey

from assets import automation
from assets.automation import enough_new_pairs, retraining
from assets.dead_runs import LOST_SECONDS
from assets.definitions import build_definitions
from assets.materialize import materialize
from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.instance import shipped
from resources.mlflow_tracking import NoTracking
from resources.settings import PipelineSettings

TABLES = ["preference_pairs", "annotator_report"]


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:
        yield instance


def resources_of(home, **overrides):
    return {
        "home": ArtifactHome(folder=str(home.root)),
        "settings": PipelineSettings(overrides=overrides),
    }


def made(home, asset, partition=None, parents=(), counts=None):
    """An artifact of an asset as its attempt would leave it, content by name and parents."""
    with home.store.staging() as folder:
        (folder / "file.txt").write_text(f"{asset} {partition} {counts}")
        recipe = Recipe(asset, "1", {"drop": partition}, tuple(Parent(*parent) for parent in parents))
        artifact = home.store.publish(folder, recipe, Outcome(counts=counts or {}))
    home.ledger.append("finished", asset=asset, partition=partition, artifact=artifact.digest)
    return artifact


def read(home, drop, version=1):
    made(home, "raw_annotations", drop)
    return made(home, "judgments", drop, counts={"version": version})


def tables(home, *, pairs):
    drops = home.partitions("judgments")
    parents = [(f"judgments/{drop}", "judgments", home.latest("judgments", drop).digest) for drop in drops]
    return made(home, "preference_pairs", parents=parents, counts={"pairs_train": pairs})


def trained(home):
    pairs = home.latest("preference_pairs")
    return made(home, "dpo_checkpoint", parents=[("preference_pairs", "preference_pairs", pairs.digest)])


def scheduled(home, instance):
    with dg.build_schedule_context(instance=instance, resources=resources_of(home)) as context:
        return retraining(context)


def sensed(home, instance, new_pairs=100):
    operation = {"new_pairs": new_pairs} if new_pairs else {}
    resources = resources_of(home, operation=operation)
    with dg.build_sensor_context(instance=instance, resources=resources) as context:
        return enough_new_pairs(context)


def test_training_waits_for_a_first_drop_then_for_a_change(home, instance):
    assert scheduled(home, instance).skip_message == "no drop has been taken in yet"
    read(home, "may")
    first = scheduled(home, instance)
    assert first.tags["why"] == "1 new or changed drops: may"
    assert first.tags["started_by"] == "retraining"
    tables(home, pairs=50)
    trained(home)
    assert scheduled(home, instance).skip_message == "the newest checkpoint already rests on all 1 drops"
    read(home, "june")
    assert scheduled(home, instance).tags["why"] == "1 new or changed drops: june"
    read(home, "may", version=2)
    assert scheduled(home, instance).tags["why"] == "2 new or changed drops: june, may"


@pytest.mark.parametrize("job", ["train", "everything"])
@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.CANCELING])
def test_no_training_starts_while_another_is_under_way(home, instance, job, status):
    read(home, "may")
    tables(home, pairs=500)
    run = instance.create_run_for_job(dg.job(name=job)(lambda: None), status=status)
    for answer in (scheduled(home, instance), sensed(home, instance)):
        assert answer.skip_message == f"run {run.run_id} is training already; one at a time"


def test_a_training_that_was_written_down_and_never_started_holds_up_none_for_ever(home, instance, monkeypatch):
    read(home, "may")
    instance.create_run_for_job(dg.job(name="train")(lambda: None), status=dg.DagsterRunStatus.NOT_STARTED)
    assert "is training already" in scheduled(home, instance).skip_message
    now = time.time()
    monkeypatch.setattr("assets.dead_runs.time.time", lambda: now + LOST_SECONDS + 1)
    assert scheduled(home, instance).tags["why"] == "1 new or changed drops: may"


def test_a_run_of_an_asset_that_trains_counts_as_a_training_whatever_its_job(home, instance):
    read(home, "may")
    job = dg.define_asset_job("mine", ["sft_checkpoint"]).resolve(asset_graph=build_definitions().resolve_asset_graph())
    instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, asset_selection=frozenset({AssetKey("sft_checkpoint")})
    )
    assert "is training already" in scheduled(home, instance).skip_message


def checked(instance, asset, name, *, passed, severity=dg.AssetCheckSeverity.ERROR):
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(asset_key=AssetKey(asset), check_name=name, passed=passed, severity=severity)
    )


def test_no_training_starts_while_a_blocking_check_of_the_newest_data_fails(home, instance):
    read(home, "may")
    checked(instance, "judgments", "books_balance", passed=False)
    assert scheduled(home, instance).skip_message.startswith("the blocking check books_balance of judgments failed")
    checked(instance, "judgments", "books_balance", passed=True)
    tables(home, pairs=500)
    checked(instance, "preference_pairs", "split_is_clean", passed=False)
    for answer in (scheduled(home, instance), sensed(home, instance)):
        assert answer.skip_message.startswith("the blocking check split_is_clean of preference_pairs failed")
    checked(instance, "preference_pairs", "split_is_clean", passed=False, severity=dg.AssetCheckSeverity.WARN)
    assert isinstance(scheduled(home, instance), dg.RunRequest), "a warning does not block"
    checked(instance, "preference_pairs", "split_is_clean", passed=False)
    read(home, "june")
    assert isinstance(scheduled(home, instance), dg.RunRequest), "the run builds the tables anew and checks them itself"


def test_enough_new_pairs_start_a_training_once_per_table(home, instance):
    assert "no operation.new_pairs" in sensed(home, instance, new_pairs=None).skip_message
    read(home, "may")
    assert "the tables are not built from the newest drops yet" in sensed(home, instance).skip_message
    tables(home, pairs=99)
    message = "99 training pairs have come since the newest checkpoint; training starts at 100"
    assert sensed(home, instance).skip_message == message
    trained(home)
    read(home, "june")
    newest = tables(home, pairs=199)
    request = sensed(home, instance)
    assert (request.run_key, request.tags["started_by"]) == (newest.digest, "enough_new_pairs")
    trained(home)
    assert "already rests on all 2 drops" in sensed(home, instance).skip_message


def test_the_clock_is_the_profiles(tmp_path, monkeypatch):
    bundled = yaml.safe_load((shipped("dpo_pipeline") / "profiles" / "demo.yaml").read_text())
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        yaml.safe_dump({**bundled, "operation": {"retraining_cron": "30 6 * * 1", "time_zone": "Asia/Tokyo"}})
    )
    monkeypatch.setenv("DPO_PIPELINE_PROFILE", str(mine))
    schedule = automation._schedule()
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 6 * * 1", "Asia/Tokyo")
    monkeypatch.setenv("DPO_PIPELINE_PROFILE", str(tmp_path / "none.yaml"))
    assert automation._schedule().cron_schedule == "0 3 * * *", (
        "a profile with a fault must not hide the whole location"
    )


def test_a_cron_line_that_is_none_is_a_fault_of_the_profile():
    from dpo_pipeline.core.errors import SettingsError
    from dpo_pipeline.profiles import load_profile

    for operation in ({"retraining_cron": "every night"}, {"time_zone": "Middle/Earth"}):
        with pytest.raises(SettingsError, match="operation"):
            load_profile("demo", overrides={"operation": operation})


def test_nothing_is_on_before_somebody_switches_it_on():
    definitions = build_definitions()
    on = {sensor.name for sensor in definitions.sensors if sensor.default_status == dg.DefaultSensorStatus.RUNNING}
    assert not on & {"new_drops", "tables_follow_drops", "enough_new_pairs"}
    assert [schedule.default_status for schedule in definitions.schedules] == [dg.DefaultScheduleStatus.STOPPED]


def test_the_instance_lets_one_training_run_at_a_time_and_repeats_only_killed_ones():
    settings = yaml.safe_load(shipped("dagster.yaml").read_text())
    assert settings["concurrency"]["runs"]["tag_concurrency_limits"] == [{"key": "dpo-pipeline/trains", "limit": 1}]
    assert settings["run_retries"]["retry_on_asset_or_op_failure"] is False
    tags = {job.name: job.tags for job in automation.JOBS}
    assert {name for name, found in tags.items() if "dpo-pipeline/trains" in (found or {})} == {"train", "everything"}


RECORD = {"prompt": "How do I reset it?", "chosen": "Hold the button for ten seconds.", "rejected": "No idea, sorry."}


def put(home, drop, *prompts):
    (home.inbox / drop).mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({**RECORD, "prompt": prompt}) for prompt in prompts]
    (home.inbox / drop / "pairs.jsonl").write_text("\n".join(lines))
    (home.inbox / drop / "_COMPLETE").touch()


def test_tables_follow_drops_at_once_in_order_and_only_when_data_changed(home, instance):
    definitions = build_definitions(
        {**resources_of(home), "tracking": NoTracking(), "gpu": Gpu(launcher="inline")},
    )
    cursor = None

    def follow():
        """Tick until nothing is requested any more; what was requested, tick by tick."""
        nonlocal cursor
        asked = []
        while True:
            selection = dg.AssetSelection.assets(*TABLES)
            answer = dg.evaluate_automation_conditions(definitions, instance, asset_selection=selection, cursor=cursor)
            cursor = answer.cursor
            wanted = [AssetKey(name) for name in TABLES if answer.get_num_requested(AssetKey(name))]
            if not wanted:
                return asked
            asked.append([key.to_user_string() for key in wanted])
            job = definitions.resolve_implicit_global_asset_job_def()
            assert job.execute_in_process(instance=instance, asset_selection=wanted).success

    assert follow() == [], "without a drop there is nothing to build"
    put(home, "may", "How do I reset the kettle?", "Where is my parcel?")
    put(home, "june", "Can I change the address?")
    assert materialize(definitions, instance, home=home, job="ingest")
    assert follow() == [["preference_pairs"], ["annotator_report"]], "two drops, one build"
    instance.add_dynamic_partitions("drops", ["broken"])
    assert follow() == []
    again = definitions.resolve_job_def("ingest")
    assert again.execute_in_process(instance=instance, partition_key="may").success
    assert follow() == [], "the same data came out"
    put(home, "may", "How do I reset the kettle?", "Where is my parcel?", "Do you ship abroad?")
    assert materialize(definitions, instance, home=home, job="ingest")
    assert follow() == [["preference_pairs"], ["annotator_report"]], "a drop that never came in holds up no other"
