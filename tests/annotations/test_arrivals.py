"""What lies in the inbox: complete by marker or rest, once per state, from a folder or any fsspec URL, never half."""

import os
import time
import uuid
from pathlib import Path

import fsspec
import pytest

from dpo_pipeline.annotations import arrivals
from dpo_pipeline.annotations.arrivals import open_inbox, take_in
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.home import Home


class Local:
    """An inbox on disk, written to as people write to it."""

    def __init__(self, folder):
        self.where = str(folder)
        self.folder = folder

    def put(self, path, data=b"{}"):
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


class Memory:
    """An inbox on fsspec's memory file system."""

    def __init__(self):
        self.where = f"memory://{uuid.uuid4().hex}/inbox"
        self.files = fsspec.filesystem("memory")

    def put(self, path, data=b"{}"):
        self.files.pipe_file(f"{self.where}/{path}", data)


@pytest.fixture(params=["folder", "memory"])
def place(request, tmp_path):
    return Local(tmp_path / "inbox") if request.param == "folder" else Memory()


def seen(place, **options):
    return {delivery.name: delivery for delivery in open_inbox(place.where, **options).look()}


def test_a_marker_makes_a_drop_complete_and_is_not_part_of_it(place, tmp_path):
    place.put("may/a.jsonl", b"12")
    place.put("may/part/b.csv", b"345")
    place.put("may/_COMPLETE", b"")
    place.put("may/.DS_Store", b"x")
    found = seen(place)["may"]
    assert (found.hindrance, found.files, found.bytes) == (None, 2, 5)
    outcome = take_in(open_inbox(place.where), "may", tmp_path / "out")
    files = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")
    }
    assert files == {"files/a.jsonl": b"12", "files/part/b.csv": b"345"}
    assert outcome.counts == {"files": 2, "bytes": 5}
    assert outcome.remarks == {"inbox_state": found.state}


def test_without_a_marker_it_waits_until_nothing_changed_for_the_set_time(place):
    place.put("may/a.jsonl")
    found = seen(place)["may"]
    assert found.is_waiting
    assert "0 s ago and _COMPLETE is not there" in found.hindrance
    assert seen(place, rest_seconds=-1)["may"].hindrance is None


def test_an_old_time_on_a_fresh_copy_does_not_mean_that_it_is_at_rest(tmp_path):
    Local(tmp_path).put("may/a.jsonl")
    os.utime(tmp_path / "may" / "a.jsonl", (time.time() - 9_999,) * 2)
    assert open_inbox(str(tmp_path)).look_at("may").is_waiting


def test_the_state_changes_with_a_files_content_name_or_number_and_with_nothing_else(place):
    place.put("may/_COMPLETE", b"")
    place.put("may/a.jsonl", b"1")
    states = [seen(place)["may"].state]
    assert seen(place)["may"].state == states[0]
    place.put("june/a.jsonl")
    assert seen(place)["may"].state == states[0]
    for path, data in (("may/a.jsonl", b"2"), ("may/b.jsonl", b""), ("may/b.jsonl", b"3")):
        time.sleep(0.002)
        place.put(path, data)
        states.append(seen(place)["may"].state)
    assert len(set(states)) == 4


@pytest.mark.parametrize("name", ["with space", "-dash", "x" * 129, "ümlaut"])
def test_a_name_that_is_no_drop_name_is_passed_over_with_a_word(place, name):
    place.put(f"{name}/a.jsonl")
    place.put(f"{name}/_COMPLETE", b"")
    found = seen(place)[name]
    assert "its name is no drop name" in found.hindrance
    assert not found.is_waiting


def test_lone_files_and_empty_drops_are_passed_over_with_a_word_and_hidden_entries_without(place):
    place.put("export.jsonl")
    place.put(".incoming-1/a.jsonl")
    place.put("may/_COMPLETE", b"")
    assert {name: found.hindrance for name, found in seen(place).items()} == {
        "export.jsonl": "it is not a folder",
        "may": "it holds no files",
    }


def test_an_inbox_that_is_not_there_is_empty(tmp_path):
    assert open_inbox(str(tmp_path / "none")).look() == []
    assert open_inbox("memory://none-such").look() == []


def test_a_drop_that_is_not_complete_is_not_copied(place, tmp_path):
    place.put("may/a.jsonl")
    with pytest.raises(InputError, match=r"is not taken in: its last change was .*Wait and run it again"):
        take_in(open_inbox(place.where), "may", tmp_path / "out")
    with pytest.raises(InputError, match="there is no folder of that name"):
        take_in(open_inbox(place.where), "june", tmp_path / "out")
    for name in ("../may", "", "a/b"):
        with pytest.raises(InputError, match="is no drop name"):
            take_in(open_inbox(place.where), name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_drop_that_changes_while_it_is_copied_is_not_taken_in(place, tmp_path, monkeypatch):
    place.put("may/a.jsonl")
    place.put("may/_COMPLETE", b"")
    inbox = open_inbox(place.where)
    real = inbox.copy

    def copy(name, out):
        outcome = real(name, out)
        place.put("may/late.jsonl")
        return outcome

    monkeypatch.setattr(type(inbox), "copy", lambda self, name, out: copy(name, out))
    with pytest.raises(InputError, match="changed while it was copied"):
        take_in(inbox, "may", tmp_path / "out")


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/hostname"), os.mkfifo])
def test_links_and_special_files_keep_a_drop_out(tmp_path, make):
    Local(tmp_path).put("may/_COMPLETE", b"")
    Local(tmp_path).put("may/part/a.jsonl")
    make(tmp_path / "may" / "part" / "trick.jsonl")
    found = open_inbox(str(tmp_path)).look_at("may")
    assert found.hindrance == "it holds part/trick.jsonl, a link or a special file"


def test_a_linked_folder_is_not_a_drop(tmp_path):
    Local(tmp_path / "outside").put("may/a.jsonl")
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "may").symlink_to(tmp_path / "outside" / "may")
    assert open_inbox(str(tmp_path / "inbox")).look_at("may").hindrance == "it is not a folder"


@pytest.mark.parametrize("path", ["../../evil.jsonl", "a\\b.jsonl", "a//b.jsonl", "new\nline.jsonl", "./a.jsonl"])
def test_a_name_on_a_store_that_points_elsewhere_keeps_the_drop_out(path, monkeypatch):
    inbox = open_inbox("memory://hostile/inbox")
    listing = {f"/hostile/inbox/may/{path}": {"size": 1, "type": "file", "created": 1.0}}
    monkeypatch.setattr(type(inbox._files), "find", lambda self, folder, **_: listing)
    [found] = inbox.look()
    assert "a name that points elsewhere" in found.hindrance


@pytest.mark.parametrize(
    "facts",
    [{"type": "link"}, {"type": "directory"}, {"islink": True}, {"size": None}],
    ids=lambda facts: next(iter(facts)),
)
def test_what_is_not_a_plain_file_on_a_store_keeps_the_drop_out(facts, monkeypatch):
    inbox = open_inbox("memory://hostile/inbox")
    listing = {"/hostile/inbox/may/a": {"size": 1, "type": "file", "created": 1.0, **facts}}
    monkeypatch.setattr(type(inbox._files), "find", lambda self, folder, **_: listing)
    assert inbox.look()[0].hindrance.startswith("it holds 'a'")


def test_an_object_that_is_also_a_folder_keeps_the_drop_out(monkeypatch):
    inbox = open_inbox("memory://hostile/inbox")
    info = {"size": 1, "type": "file", "created": 1.0}
    listing = {"/hostile/inbox/may/a": info, "/hostile/inbox/may/a/b": info}
    monkeypatch.setattr(type(inbox._files), "find", lambda self, folder, **_: listing)
    assert inbox.look()[0].hindrance.startswith("it holds 'a/b'")


def test_a_file_shorter_than_the_store_said_is_not_kept(tmp_path, monkeypatch):
    place = Memory()
    place.put("may/a.jsonl", b"12345")
    place.put("may/_COMPLETE", b"")
    inbox = open_inbox(place.where)
    monkeypatch.setattr(type(inbox._files), "get_file", lambda self, source, target: Path(target).write_bytes(b"12"))
    with pytest.raises(InputError, match=r"has 2 bytes, memory://.* listed 5"):
        take_in(inbox, "may", tmp_path / "out")


def test_a_store_that_tells_no_times_needs_the_marker(monkeypatch):
    inbox = open_inbox("memory://timeless/inbox", rest_seconds=0)
    listing = {"/timeless/inbox/may/a": {"size": 1, "type": "file"}}
    monkeypatch.setattr(type(inbox._files), "find", lambda self, folder, **_: listing)
    assert inbox.look()[0].hindrance == "this store tells no times, so it needs _COMPLETE"


def test_a_store_that_cannot_be_reached_is_named(monkeypatch):
    inbox = open_inbox("memory://away/inbox")

    def away(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(type(inbox._files), "find", away)
    with pytest.raises(InputError, match=r"cannot be listed: ConnectionError: no route to host.*credentials"):
        inbox.look()
    with pytest.raises(InputError, match="cannot be opened"):
        open_inbox("no-such-protocol://x/y")


def test_times_are_read_in_every_spelling_stores_use():
    from dpo_pipeline.annotations.remote_inbox import _time_of

    assert _time_of({"LastModified": "1970-01-01T00:01:00+00:00"}) == 60.0
    assert _time_of({"mtime": 60}) == 60.0
    assert _time_of({"updated": "soon"}) is None
    assert _time_of({}) is None


def test_the_ledger_tells_which_state_was_taken_in_last(tmp_path):
    home = Home(tmp_path)
    assert arrivals.states_taken_in(home) == {}
    for state in ("one", "two"):
        line = {"asset": "raw_annotations", "partition": "may", "artifact": state, "remarks": {"inbox_state": state}}
        home.ledger.append("finished", **line)
    assert arrivals.states_taken_in(home) == {"may": "two"}
