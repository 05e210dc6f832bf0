"""The sensor takes in each state of each complete drop once: after a restart, without its cursor, from any store."""

import json
import os
import shutil

import dagster as dg
import fsspec
import pytest

from assets.arrivals import is_read, new_drops
from assets.definitions import build_definitions
from assets.materialize import materialize
from dpo_pipeline.annotations.arrivals import STATE, open_inbox
from dpo_pipeline.annotations.listing import as_text, list_drops
from dpo_pipeline.core.artifacts import Outcome, Recipe
from dpo_pipeline.samples.scenario import generate_scenario
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.mlflow_tracking import NoTracking
from resources.settings import PipelineSettings

RECORD = {"prompt": "How do I reset it?", "response_a": "Hold the button.", "response_b": "No idea.", "verdict": "a"}


def tick(home, cursor=None, instance=None, **overrides):
    resources = {
        "home": ArtifactHome(folder=str(home.root), inbox=home.inbox_url),
        "settings": PipelineSettings(overrides=overrides),
    }
    with (
        dg.DagsterInstance.ephemeral() as none_yet,
        dg.build_sensor_context(instance=instance or none_yet, cursor=cursor, resources=resources) as context,
    ):
        return new_drops(context)


def put(home, name, *, complete=True, text="{}"):
    folder = home.inbox / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "export.jsonl"
    path.write_text(text)
    if complete:
        (folder / "_COMPLETE").touch()
    return path


def test_two_drops_at_once_are_both_requested_and_registered(home):
    put(home, "may")
    put(home, "june")
    answer = tick(home)
    assert [request.partition_key for request in answer.run_requests] == ["june", "may"]
    assert answer.dynamic_partitions_requests[0].partition_keys == ["june", "may"]
    assert answer.run_requests[1].tags["drop"] == "may"


def test_a_drop_is_requested_once_and_again_when_a_file_changes(home):
    path = put(home, "may")
    first = tick(home)
    assert isinstance(tick(home, first.cursor), dg.SkipReason)
    path.write_text("{}\n{}")
    again = tick(home, first.cursor)
    assert [request.partition_key for request in again.run_requests] == ["may"]
    assert again.run_requests[0].run_key != first.run_requests[0].run_key


def test_a_state_that_comes_back_after_another_was_taken_in_is_a_request_dagster_does_not_pass_over(home):
    path = put(home, "may")
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    [first] = tick(home).run_requests
    taken = tick(home)
    for number, text in enumerate(("{}\n{}", "{}")):
        home.ledger.append(
            "finished",
            asset="raw_annotations",
            partition="may",
            artifact=str(number),
            remarks={STATE: f"other {number}"},
        )
        path.write_text(text)
        os.utime(path, ns=times)
        taken = tick(home, taken.cursor)
    [back] = taken.run_requests
    assert back.tags["drop/state"] == first.tags["drop/state"]
    assert back.run_key != first.run_key


def test_a_drop_that_waits_is_named_and_taken_in_at_rest(home):
    put(home, "may", complete=False)
    assert "'may' waits: its last change was 0 s ago" in tick(home).skip_message
    assert tick(home, operation={"inbox_rest_seconds": 0}).run_requests


def test_a_folder_that_is_no_drop_is_passed_over_with_a_word(home):
    put(home, "with space")
    put(home, ".hidden")
    words = tick(home).skip_message
    assert "'with space' is passed over: its name is no drop name" in words
    assert "hidden" not in words


def test_the_cursor_is_plain_json(home):
    put(home, "may")
    assert list(json.loads(tick(home).cursor)) == ["may"]


def test_a_state_that_the_ledger_knows_is_not_requested_without_a_cursor_either(home):
    put(home, "may")
    state = open_inbox(str(home.inbox)).look_at("may").state
    line = {"asset": "raw_annotations", "partition": "may", "artifact": "x", "remarks": {"inbox_state": state}}
    home.ledger.append("finished", **line)
    assert "nothing new" in tick(home).skip_message


def definitions_of(home):
    return build_definitions(
        {
            "settings": PipelineSettings(profile="demo"),
            "home": ArtifactHome(folder=str(home.root), inbox=home.inbox_url),
            "tracking": NoTracking(),
            "gpu": Gpu(launcher="inline"),
        }
    )


def ingests(instance):
    return [run.tags.get("dagster/partition") for run in instance.get_runs() if run.job_name == "ingest"]


def test_a_changed_drop_becomes_a_new_version_and_the_old_one_is_kept_and_listed(home):
    path = put(home, "may", text=json.dumps(RECORD))
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(definitions_of(home), instance, home=home, job="ingest")
        first = home.latest("raw_annotations", "may")
        assert materialize(definitions_of(home), instance, home=home, job="ingest")
        assert ingests(instance) == ["may"], "the second time there was nothing to do"
        path.write_text(json.dumps(RECORD) + "\n{}")
        listing = list_drops(home, open_inbox(str(home.inbox)))
        assert "changed since, 1 files" in listing["drops"][0]["inbox"]
        assert materialize(definitions_of(home), instance, home=home, job="ingest")
    second = home.latest("raw_annotations", "may")
    assert second.digest != first.digest
    assert first.verify() == second.verify() == []
    [drop] = list_drops(home, open_inbox(str(home.inbox)))["drops"]
    facts = [(one["version"], one["digest"], one["records_in"]) for one in drop["versions"]]
    assert facts == [(1, first.digest, 1), (2, second.digest, 2)]
    text = as_text({"drops": [drop], "inbox": []})
    assert f"version 1, kept: {first.digest[:12]}" in text
    assert f"version 2, in use: {second.digest[:12]}" in text


def test_a_drop_known_already_is_read_again_when_the_readers_settings_change(home):
    put(home, "may", text=json.dumps(RECORD))
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(definitions_of(home), instance, home=home, job="ingest")
    assert is_read(home, "may", PipelineSettings())
    assert not is_read(home, "may", PipelineSettings(overrides={"annotations": {"max_record_bytes": 5_000}}))
    assert not is_read(home, "may", PipelineSettings(overrides={"preferences": {"prompt_cluster_jaccard": 0.9}}))
    shutil.rmtree(home.inbox)
    changed = {"annotations": {"max_record_bytes": 5_000}}
    definitions = build_definitions(
        {
            "settings": PipelineSettings(overrides=changed),
            "home": ArtifactHome(folder=str(home.root)),
            "tracking": NoTracking(),
        }
    )
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(definitions, instance, home=home, job="ingest"), "the raw files are enough"
    assert home.latest("judgments", "may").manifest["settings"]["annotations"]["max_record_bytes"] == 5_000
    shutil.rmtree(home.latest("judgments", "may").path)
    assert not is_read(home, "may", PipelineSettings(overrides=changed)), "tables that are gone are read again"


@pytest.mark.parametrize(("drop", "table"), [("may", "judgments"), ("june", "judgments"), ("may", "demonstrations")])
def test_tables_are_not_built_from_a_drop_whose_reading_is_half_done(home, drop, table):
    put(home, "may", text=json.dumps(RECORD))
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(definitions_of(home), instance, home=home, job="ingest")
        recipe = Recipe(table, "1", {"drop": drop}, ())
        with home.store.staging() as folder:
            shutil.copy(home.latest(table, "may").path / f"{table}.parquet", folder)
            newer = home.store.publish(folder, recipe, Outcome())
        for asset in ("raw_annotations", table):
            home.ledger.append("finished", attempt="a", asset=asset, partition=drop, artifact=newer.digest)
        result = (
            definitions_of(home)
            .resolve_job_def("train")
            .execute_in_process(
                instance=instance, asset_selection=[dg.AssetKey("preference_pairs")], raise_on_error=False
            )
        )
    description = result.failure_data_for_node("preference_pairs").user_failure_data.description
    assert description.startswith(f"the newest {table} of drop {drop}, {newer.digest}, have no sketch.")


def test_another_pseudonym_key_reads_again_and_reuses_nothing(home):
    """The key shapes the judgments, so its fingerprint, and never the key, stands in the recipe."""
    put(home, "may", text=json.dumps(RECORD))

    def readings():
        """Whether each reading so far took over an earlier one's tables, after one more ingest."""
        with dg.DagsterInstance.ephemeral() as instance:
            assert materialize(definitions_of(home), instance, home=home, job="ingest")
        return [line["remarks"].get("reused", False) for line in home.finished() if line["asset"] == "judgments"]

    assert readings() == [False]
    assert readings() == [False], "read already"
    assert is_read(home, "may", PipelineSettings())
    key = home.pseudonym_key()
    (home.root / "keys" / "pseudonym.key").unlink()
    assert not is_read(home, "may", PipelineSettings())
    assert readings() == [False, False]
    assert home.latest("judgments", "may").manifest["settings"]["pseudonyms"] == home.pseudonym_fingerprint()
    assert key.hex() not in home.ledger.path.read_text()


def test_drops_are_taken_in_from_an_object_store(tmp_path):
    from dpo_pipeline.core.home import Home

    home = Home(tmp_path / "home", "memory://bucket/inbox")
    generate_scenario(tmp_path / "made" / "inbox", seed=3, scale=0.02)
    files = fsspec.filesystem("memory")
    for path in (tmp_path / "made" / "inbox").rglob("*"):
        if path.is_file():
            files.pipe_file(f"/bucket/inbox/{path.relative_to(tmp_path / 'made' / 'inbox')}", path.read_bytes())
    answer = tick(home)
    assert [request.partition_key for request in answer.run_requests] == ["2026-09-first", "2026-10-second"]
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(definitions_of(home), instance, home=home, job="ingest")
    assert home.partitions("judgments") == ["2026-09-first", "2026-10-second"]
    assert "nothing new in memory://bucket/inbox" in tick(home).skip_message
    raw = home.latest("raw_annotations", "2026-09-first").path / "files"
    copied = {path.name: path.read_bytes() for path in raw.iterdir()}
    sent = tmp_path / "made" / "inbox" / "2026-09-first"
    assert copied == {path.name: path.read_bytes() for path in sent.iterdir() if path.name != "_COMPLETE"}


def test_the_list_of_an_empty_home_says_so_and_of_a_full_inbox_what_waits(home):
    assert as_text(list_drops(home, open_inbox(str(home.inbox)))) == (
        "No drop was taken in yet, and none lies in the inbox."
    )
    put(home, "may")
    put(home, "with space")
    text = as_text(list_drops(home, open_inbox(str(home.inbox))))
    assert "may                              complete, 1 files, 2 bytes" in text
    assert "passed over: its name is no drop name" in text


def test_the_check_of_a_drop_of_which_nothing_can_be_used_says_why_and_what_to_do(home):
    put(home, "may", text="no such format\n" * 3)
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(definitions_of(home), instance, home=home, job="ingest"), "a bad drop fails no run"
        key = dg.AssetCheckKey(dg.AssetKey("judgments"), "something_usable")
        record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    told = record.event.dagster_event.asset_check_evaluation_data
    assert (told.passed, told.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert told.description.startswith("None of the 3 records of may could be used: invalid_json 3. ")
    assert "`dpo-pipeline drop check` on the folder says why" in told.description
    assert (told.metadata["records in"].value, told.metadata["used"].value) == (3, 0)
