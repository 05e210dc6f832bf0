"""The reconciler tells MLflow what it missed, from ledger and spool, and names what was edited, deleted or doubled."""

import time
import uuid
from datetime import UTC, datetime

import pytest

from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import Promotion, promote, withdraw
from dpo_pipeline.lineage.witnesses import ViewAwayError
from resources.mlflow_reconcile import reconcile_mlflow
from resources.mlflow_registry import alias_of, source_of, versions_of
from resources.mlflow_tracking import MlflowTracking
from resources.mlflow_view import MlflowView
from resources.spool import Spool


def key():
    return uuid.uuid4().hex


def about(world, word):
    return [sentence for sentence in reconcile_mlflow(world.home, world.tracking).sentences if word in sentence]


def at(milliseconds):
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


@pytest.mark.parametrize(("event", "status"), [("failed", "FAILED"), ("killed", "KILLED")])
def test_an_attempt_mlflow_missed_is_told_with_its_times_and_numbers_and_once(world, event, status):
    start = world.start(key())
    spool = Spool.of(world.home, start["attempt"])
    for step in (1, 2):
        spool.add(step, {"loss": 1 / step})
    measured = [point.milliseconds for point in spool.read()[0]]
    end = world.line(start, event, reason="the disk is full")
    time.sleep(0.01)
    name = start["attempt"]
    assert about(world, name) == [f"MLflow was told of {name}: {status}"]
    assert about(world, name) == []
    [run] = world.runs(name)
    assert (run.info.status, at(run.info.start_time), at(run.info.end_time)) == (status, start["time"], end["time"])
    points = world.client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value, point.timestamp) for point in points] == [
        (1, 1.0, measured[0]),
        (2, 0.5, measured[1]),
    ]
    assert not spool.path.exists()


def test_a_finished_one_is_told_whole(world):
    start = world.start(key())
    artifact = world.publish(start["attempt"])
    world.line(start, "finished", artifact=artifact.digest, remarks={"seconds": 2.0})
    assert about(world, start["attempt"]) == [f"MLflow was told of {start['attempt']}: FINISHED"]
    [run] = world.runs(start["attempt"])
    assert (run.info.status, run.data.params["dpo.beta"], run.data.metrics["steps"]) == ("FINISHED", "0.1", 3)
    assert [version.run_id for version in versions_of(world.client, "dpo_checkpoint", artifact.digest)] == [
        run.info.run_id
    ]


EDITS = {
    "params more": (lambda client, run: client.log_param(run, "more", "1"), "params more 1", "nothing"),
    "a metric": (lambda client, run: client.log_metric(run, "accuracy", 0.99), "metrics accuracy 0.99", "0.9"),
    "a metric nobody measured": (lambda client, run: client.log_metric(run, "won", 1.0), "metrics won 1.0", "nothing"),
    "the code": (
        lambda client, run: client.set_tag(run, "code.git_commit", "bad"),
        "tags code.git_commit bad",
        "c0ffee",
    ),
    "a tag": (lambda client, run: client.delete_tag(run, "profile"), "tags profile nothing", "demo"),
    "the digest": (lambda client, run: client.set_tag(run, "artifact.digest", "forged"), "artifact forged", None),
    "the status": (lambda client, run: client.set_terminated(run, "FAILED"), "status FAILED", "FINISHED"),
    "the asset": (lambda client, run: client.set_tag(run, "dagster.asset", "x"), "asset x", "dpo_checkpoint"),
    "it, by deleting": (lambda client, run: client.delete_run(run), "status DELETED", "FINISHED"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_run_is_named_with_both_values_and_left_as_it_is(world, edit):
    told = world.finished(key())
    assert about(world, told.key) == []
    change, found, expected = EDITS[edit]
    change(world.client, told.run.run_id)
    sentence = (
        f"MLflow run {told.run.run_id} says {found}, the ledger says {expected or told.artifact.digest} ({told.key})"
    )
    assert sentence in about(world, told.key)
    assert sentence in about(world, told.key)


def test_a_moved_time_and_another_input_are_named(world):
    """Not possible through MLflow's interface; whoever writes into its database can."""
    from resources.mlflow_compare import attempts_of, record_of

    told = world.finished(key())
    run = world.client.get_run(told.run.run_id)
    run.info._start_time += 1
    [tag] = [tag for tag in run.inputs.dataset_inputs[0].tags if tag.key == "sha256"]
    tag._value = "ef" * 32
    assert [name for name, *_ in record_of(run, world.home, attempts_of(world.home)).differs] == [
        "start",
        "inputs judgments/may",
    ]


def test_a_second_run_of_an_attempt_and_one_nobody_attempted_are_named(world):
    told = world.finished(key())
    double = world.client.create_run(world.experiment, tags={"attempt": told.key})
    [sentence] = about(world, told.key)
    assert sentence.startswith(f"MLflow shows 2 runs of {told.key} (run ")
    world.client.delete_run(double.info.run_id)
    assert "2 runs" in about(world, told.key)[0]
    world.client.create_run(world.experiment, tags={"attempt": f"invented {told.key}", "dagster.asset": "dpo"})
    assert f"the ledger has no attempt invented {told.key}" in about(world, "invented")[-1]


def test_a_run_left_running_is_closed_and_one_still_at_work_left_alone(world):
    dead, live = world.start(key()), world.start(key())
    for start in (dead, live):
        world.begin(start)
    world.line(dead, "killed", reason="its process ended without a word")
    reconcile_mlflow(world.home, world.tracking)
    assert [world.runs(start["attempt"])[0].info.status for start in (dead, live)] == ["KILLED", "RUNNING"]


def test_an_attempt_whose_process_lives_and_is_just_telling_is_left_to_it(world):
    import psutil

    parent = psutil.Process().parent()
    process = {**world.start(key())["process"], "pid": parent.pid, "started": parent.create_time()}
    start = world.start(key(), process=process)
    world.line(start, "failed", reason="x")
    assert about(world, start["attempt"]) == []


def test_a_checkpoint_is_one_version_by_reference_and_digest_however_often_it_is_made(world):
    told = world.finished(key())
    again = world.start(key())
    run = world.begin(again)
    run.end(world.line(again, "finished", artifact=told.artifact.digest, remarks={"reused": True}), told.artifact)
    [version] = versions_of(world.client, "dpo_checkpoint", told.artifact.digest)
    assert (version.source, version.run_id, version.status) == (
        source_of("dpo_checkpoint", told.artifact.digest),
        told.run.run_id,
        "READY",
    )
    assert version.tags["folder"] == str(told.artifact.path)
    assert version.tags["attempt"] == told.key


def test_an_altered_deleted_or_invented_version_is_named(world):
    told = world.finished(key())
    digest = told.artifact.digest
    world.client.create_model_version("dpo_checkpoint", source="dpo-pipeline:/elsewhere", tags={"digest": digest})
    sentences = about(world, digest)
    assert any("has the source dpo-pipeline:/elsewhere, the ledger says" in sentence for sentence in sentences)
    assert any(f"both say digest {digest}" in sentence for sentence in sentences)
    for each in versions_of(world.client, "dpo_checkpoint", digest):
        world.client.delete_model_version("dpo_checkpoint", str(each.version))
    assert about(world, digest) == [f"MLflow had no version of dpo_checkpoint with digest {digest}; registered"]
    invented = world.client.create_model_version("dpo_checkpoint", source="x:/y", tags={"digest": "ff" * 32})
    assert f"says digest {'ff' * 32}; the ledger knows no such dpo_checkpoint: forged" in about(world, "ff" * 32)[0]
    world.client.delete_model_version("dpo_checkpoint", str(invented.version))


def test_a_forged_run_does_not_become_the_maker_of_a_version(world):
    told = world.finished(key())
    digest = told.artifact.digest
    for tags in ({}, {"attempt": "nobody's"}):
        forged = world.client.create_run(world.experiment, start_time=1, tags={"artifact.digest": digest, **tags})
        world.client.set_terminated(forged.info.run_id)
    [version] = versions_of(world.client, "dpo_checkpoint", digest)
    world.client.delete_model_version("dpo_checkpoint", str(version.version))
    assert f"MLflow had no version of dpo_checkpoint with digest {digest}; registered" in about(world, digest)
    [version] = versions_of(world.client, "dpo_checkpoint", digest)
    assert (version.run_id, version.tags["attempt"]) == (told.run.run_id, told.key)


def test_the_alias_follows_the_ledgers_promotions_and_an_edit_of_it_is_named_and_undone(world):
    one, two = world.finished(key()), world.finished(key())
    digests = [told.artifact.digest for told in (one, two)]
    promote(world.home, Promotion(digests[0], None, "report", "decision 1"))
    world.tracking.move_alias("dpo_checkpoint", "champion", digests[0], home=world.home, warn=pytest.fail)
    world.tracking.move_alias("dpo_checkpoint", "champion", digests[0], home=world.home, warn=pytest.fail)
    assert about(world, "alias") == []
    promote(world.home, Promotion(digests[1], digests[0], "report", "decision 2"))
    [sentence] = about(world, "alias")
    assert sentence == (
        f"MLflow's alias champion of dpo_checkpoint points at {digests[0]}, "
        f"the ledger's promotions say {digests[1]}; moved"
    )
    assert alias_of(world.client, "dpo_checkpoint", "champion") == digests[1]
    world.client.delete_registered_model_alias("dpo_checkpoint", "champion")
    assert about(world, "alias") == [f"MLflow's alias champion was set to {digests[1]}, as the ledger says"]
    assert about(world, "alias") == []


def test_the_alias_is_taken_away_with_the_champion(world):
    digest = world.finished(key()).artifact.digest
    promote(world.home, Promotion(digest, None, "report", "decision 1"))
    world.tracking.move_alias("dpo_checkpoint", "champion", digest, home=world.home, warn=pytest.fail)
    withdraw(world.home, reason="it insults customers", person="Ada")
    [sentence] = about(world, "alias")
    assert sentence == (
        f"MLflow's alias champion of dpo_checkpoint points at {digest}, "
        "the ledger's promotions say nobody is champion; taken away"
    )
    assert alias_of(world.client, "dpo_checkpoint", "champion") is None
    assert about(world, "alias") == []
    world.tracking.move_alias("dpo_checkpoint", "champion", digest, home=world.home, warn=pytest.fail)
    world.tracking.move_alias("dpo_checkpoint", "champion", None, home=world.home, warn=pytest.fail)
    world.tracking.move_alias("dpo_checkpoint", "champion", None, home=world.home, warn=pytest.fail)
    assert alias_of(world.client, "dpo_checkpoint", "champion") is None


def test_an_alias_to_a_version_mlflow_lacks_is_a_warning(world):
    warnings = []
    world.tracking.move_alias("sft_checkpoint", "champion", "ab" * 32, home=world.home, warn=warnings.append)
    [sentence] = warnings
    assert sentence.startswith(f"MLflow's alias champion of sft_checkpoint was not moved to {'ab' * 32}")


def test_the_view_shows_each_run_and_registry_faults_of_the_artifacts_asked_about(world, monkeypatch):
    told = world.finished(key())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", world.tracking.uri)
    shown = {record.attempt: record for record in MlflowView().records(world.home)}
    assert (shown[told.key].status, shown[told.key].digest, shown[told.key].differs) == (
        "FINISHED",
        told.artifact.digest,
        (),
    )
    world.client.log_metric(told.run.run_id, "accuracy", 0.99)
    shown = {record.attempt: record for record in MlflowView().records(world.home)}
    assert shown[told.key].differs == (("metrics accuracy", "0.99", "0.9"),)
    double = world.client.create_model_version("dpo_checkpoint", source="x:/y", tags={"digest": told.artifact.digest})
    other_source, two = MlflowView().faults(world.home, {told.artifact.digest})
    assert "has the source x:/y" in other_source
    assert f"both say digest {told.artifact.digest}" in two
    assert MlflowView().faults(world.home, {"00" * 32}) == []
    world.client.delete_model_version("dpo_checkpoint", str(double.version))


def test_without_mlflow_the_view_says_why_it_cannot_be_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for ask in (MlflowView().records, lambda home: MlflowView().faults(home, ())):
        with pytest.raises(ViewAwayError, match=r"there is no .*mlflow\.db"):
            ask(Home(tmp_path))


def test_a_server_that_is_away_is_said_and_nothing_is_raised(tmp_path):
    [sentence] = reconcile_mlflow(Home(tmp_path), MlflowTracking(uri="http://127.0.0.1:9")).faults
    assert sentence.startswith("MLflow cannot be reached, what is missing there is told to it another time")
