"""`<home>/dagster/dagster.yaml`: ours until somebody edits it, never half-written."""

import logging
import os
import threading

import pytest
import yaml

from dpo_pipeline.core.errors import SettingsError
from resources import instance
from resources.instance import prepare_instance


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


def prepared(home):
    os.environ.pop("DAGSTER_HOME", None)
    prepare_instance(home)
    return home.root / "dagster" / "dagster.yaml"


def test_the_limits_stand_in_it_and_the_state_lies_in_the_home(home):
    settings = yaml.safe_load(prepared(home).read_text())
    assert settings["concurrency"]["pools"] == {"default_limit": 1}
    assert settings["run_retries"]["enabled"] is True
    assert not settings.keys() & {"storage", "local_artifact_storage", "compute_logs"}
    assert os.environ["DAGSTER_HOME"] == str(home.root / "dagster")


def test_an_edited_file_is_kept_and_what_it_lacks_is_said(home, caplog):
    path = prepared(home)
    edited = path.read_text().replace("default_limit: 1", "default_limit: 2")
    path.write_text(edited)
    with caplog.at_level(logging.WARNING):
        assert prepared(home).read_text() == edited
        assert caplog.messages == []
        path.write_text("telemetry: {enabled: false}\n")
        assert prepared(home).read_text() == "telemetry: {enabled: false}\n"
    [sentence] = caplog.messages
    assert (
        "it does not say that we wrote it and lacks the sections concurrency, run_monitoring, run_retries" in sentence
    )


def test_a_file_from_before_our_first_line_is_kept_and_all_that_differs_is_said(home, caplog):
    """As an earlier version wrote it: nobody can tell it from one that was edited."""
    path = prepared(home)
    _, _, ours = path.read_text().partition("\n")
    path.write_text(ours)
    with caplog.at_level(logging.WARNING):
        assert prepared(home).read_text() == ours
        assert caplog.messages == [], "equal sections are nothing to speak of"
        older = ours.replace("default_limit: 1", "default_limit: 2").partition("run_retries")[0]
        path.write_text(older)
        assert prepared(home).read_text() == older
    [sentence] = caplog.messages
    assert f"{path} is left as it is: it does not say that we wrote it and lacks the sections run_retries" in sentence
    assert "; and has another concurrency. To get the one of " in sentence
    path.unlink()
    assert prepared(home).read_text().startswith("# Written by dpo-pipeline")


@pytest.mark.parametrize(("text", "fault"), [("concurrency: [\n", "is not YAML"), ("- pools\n", "found a list")])
def test_an_edit_that_broke_the_file_is_said_with_its_path(home, text, fault):
    path = prepared(home)
    path.write_text(text)
    with pytest.raises(SettingsError) as told:
        prepared(home)
    assert str(path) in str(told.value)
    assert fault in str(told.value)
    assert path.read_text() == text


def test_a_file_nobody_edited_follows_what_is_shipped(home, tmp_path, monkeypatch):
    path = prepared(home)
    newer = tmp_path / "newer.yaml"
    newer.write_text("run_monitoring: {enabled: true, poll_interval_seconds: 7}\n")
    monkeypatch.setattr(instance, "shipped", lambda _name: newer)
    assert yaml.safe_load(prepared(home).read_text())["run_monitoring"]["poll_interval_seconds"] == 7
    written = path.stat().st_mtime_ns
    assert prepared(home).stat().st_mtime_ns == written, "what is there already is not written again"


def test_a_reader_never_meets_half_a_file(home, tmp_path, monkeypatch):
    path, halves, done = prepared(home), [], threading.Event()

    def read():
        while not done.is_set():
            settings = yaml.safe_load(path.read_text())
            if not (isinstance(settings, dict) and "end" in settings):
                halves.append(settings)

    def laid(number):
        shipped = tmp_path / "shipped.yaml"
        shipped.write_text(yaml.safe_dump({"a": ["x"] * 2_000, "b": number, "end": True}))
        monkeypatch.setattr(instance, "shipped", lambda _name: shipped)
        return prepared(home)

    laid(0)
    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 60):
        laid(number)
    done.set()
    reader.join()
    assert halves == []
    assert list(path.parent.glob(".dagster.yaml.*")) == []


def test_an_operators_own_instance_is_left_alone(home, tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    assert "DAGSTER_HOME" not in prepare_instance(home)
    assert not (home.root / "dagster").exists()
