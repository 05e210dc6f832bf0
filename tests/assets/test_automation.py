"""The sensor takes in each complete drop once; the schedule trains only when the drops changed."""

import json
import os
import time

import dagster as dg
import pytest

from assets.automation import new_drops, retraining
from resources.artifact_store import ArtifactHome


def tick(home, cursor=None):
    context = dg.build_sensor_context(cursor=cursor, resources={"home": ArtifactHome(folder=str(home.root))})
    return new_drops(context)


def put(home, name, *, complete=True, age_seconds=0.0):
    folder = home.inbox / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "export.jsonl"
    path.write_text("{}")
    os.utime(path, (time.time() - age_seconds,) * 2)
    if complete:
        (folder / "_COMPLETE").touch()
    return path


def test_two_drops_at_once_are_both_requested_and_registered(home):
    put(home, "may")
    put(home, "june")
    answer = tick(home)
    assert [request.partition_key for request in answer.run_requests] == ["june", "may"]
    assert answer.dynamic_partitions_requests[0].partition_keys == ["june", "may"]


def test_a_drop_is_requested_once_and_again_when_a_file_changes(home):
    path = put(home, "may")
    first = tick(home)
    assert isinstance(tick(home, first.cursor), dg.SkipReason)
    path.write_text("{}\n{}")
    again = tick(home, first.cursor)
    assert [request.partition_key for request in again.run_requests] == ["may"]
    assert again.run_requests[0].run_key != first.run_requests[0].run_key


def test_a_drop_still_being_copied_is_left_alone_until_it_is_at_rest(home, monkeypatch):
    put(home, "may", complete=False)
    assert isinstance(tick(home), dg.SkipReason)
    put(home, "may", complete=False, age_seconds=120)
    assert isinstance(tick(home), dg.SkipReason), "an old time on a fresh copy does not mean that it is at rest"
    monkeypatch.setattr("assets.automation.QUIET_SECONDS", -1.0)
    assert tick(home).run_requests


@pytest.mark.parametrize("name", [".hidden", "with space"])
def test_folders_that_are_no_drops_are_passed_over(home, name):
    put(home, name)
    assert isinstance(tick(home), dg.SkipReason)


def test_a_linked_folder_is_passed_over(home, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "_COMPLETE").touch()
    home.inbox.mkdir(parents=True)
    (home.inbox / "may").symlink_to(outside)
    assert isinstance(tick(home), dg.SkipReason)


def made(home, asset, partition=None, parents=()):
    from dpo_pipeline.core.artifacts import Outcome, Recipe

    with home.store.staging() as folder:
        (folder / "file.txt").write_text(f"{asset} {partition}")
        artifact = home.store.publish(folder, Recipe(asset, "1", {"drop": partition}, tuple(parents)), Outcome())
    home.ledger.append("finished", asset=asset, partition=partition, artifact=artifact.digest)
    return artifact


def scheduled(home):
    return retraining(dg.build_schedule_context(resources={"home": ArtifactHome(folder=str(home.root))}))


def test_training_waits_for_a_first_drop_then_for_a_change(home):
    from dpo_pipeline.core.artifacts import Parent

    assert "no drop" in scheduled(home).skip_message
    made(home, "raw_annotations", "may")
    judged = made(home, "judgments", "may")
    assert isinstance(scheduled(home), dg.RunRequest)
    pairs = made(home, "preference_pairs", parents=[Parent("judgments/may", "judgments", judged.digest)])
    made(home, "dpo_checkpoint", parents=[Parent("preference_pairs", "preference_pairs", pairs.digest)])
    assert "already rests on all 1 drops" in scheduled(home).skip_message
    made(home, "raw_annotations", "june")
    made(home, "judgments", "june")
    assert isinstance(scheduled(home), dg.RunRequest)


def test_the_cursor_is_plain_json(home):
    put(home, "may")
    assert list(json.loads(tick(home).cursor)) == ["may"]
