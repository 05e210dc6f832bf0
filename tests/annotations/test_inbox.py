"""A delivery is in the inbox whole and marked complete, or not at all."""

import shutil

import pytest

from dpo_pipeline.annotations.inbox import add_drop
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.home import Home


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def delivery(tmp_path):
    folder = tmp_path / "delivery"
    (folder / "files").mkdir(parents=True)
    (folder / "a.jsonl").write_text("{}")
    (folder / "files" / "b.csv").write_text("x")
    return folder


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_becomes_a_complete_drop(home, delivery):
    assert add_drop(delivery, home, name="may") == home.inbox / "may"
    assert names_in(home.inbox) == ["may/_COMPLETE", "may/a.jsonl", "may/files/b.csv"]
    assert names_in(delivery) == ["a.jsonl", "files/b.csv"]


def test_a_single_file_becomes_a_drop(home, delivery):
    add_drop(delivery / "a.jsonl", home, name="may")
    assert names_in(home.inbox) == ["may/_COMPLETE", "may/a.jsonl"]


def test_no_drop_replaces_another(home, delivery):
    add_drop(delivery, home, name="may")
    with pytest.raises(InputError, match="there is a drop 'may' in"):
        add_drop(delivery, home, name="may")


@pytest.mark.parametrize("name", ["../may", ".may", "", "a/b", "x" * 129])
def test_a_name_that_could_point_elsewhere_is_refused(home, delivery, name):
    with pytest.raises(InputError, match="is not a drop name"):
        add_drop(delivery, home, name=name)


def test_nothing_is_left_behind_by_a_delivery_that_cannot_be_taken(home, delivery, monkeypatch):
    (delivery / "trick.jsonl").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="is a link or a special file"):
        add_drop(delivery, home, name="may")
    assert list(home.inbox.iterdir()) == []

    (delivery / "trick.jsonl").unlink()
    monkeypatch.setattr(shutil, "copyfile", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        add_drop(delivery, home, name="may")
    assert list(home.inbox.iterdir()) == []
