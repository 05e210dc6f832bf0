"""Artifacts: named by content, never half-written, never silently altered."""

import json
from collections import Counter

import pytest

from dpo_pipeline.core.artifacts import ArtifactStore, Outcome, Parent, Recipe
from dpo_pipeline.core.books import Books
from dpo_pipeline.core.errors import ArtifactError

RECIPE = Recipe("table", "1", {"beta": 0.1}, (Parent("raw/may", "raw", "0" * 64),))


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "artifacts")


def publish(store, recipe=RECIPE, text="rows", outcome=Outcome(counts={"rows": 1})):
    with store.staging() as folder:
        (folder / "table.txt").write_text(text)
        (folder / "nested").mkdir()
        (folder / "nested" / "more.txt").write_text("more")
        return store.publish(folder, recipe, outcome)


def test_equal_content_gives_the_same_digest_in_another_store(store, tmp_path):
    assert publish(store).digest == publish(ArtifactStore(tmp_path / "elsewhere")).digest


@pytest.mark.parametrize(
    "changed",
    [
        {"recipe": Recipe("table", "2", RECIPE.settings, RECIPE.parents)},
        {"recipe": Recipe("table", "1", {"beta": 0.2}, RECIPE.parents)},
        {"recipe": Recipe("table", "1", RECIPE.settings, ())},
        {"text": "other rows"},
        {"outcome": Outcome(counts={"rows": 2})},
    ],
)
def test_code_settings_parents_content_and_counts_each_change_the_digest(store, changed):
    assert publish(store).digest != publish(store, **changed).digest


def test_remarks_do_not_change_the_digest(store):
    slow = Outcome(counts={"rows": 1}, remarks={"seconds": 99.0})
    assert publish(store).digest == publish(store, outcome=slow).digest


def test_a_published_artifact_verifies_and_reads_back(store):
    books = Books(records_in=3, kept=Counter(rows=2), rejected=Counter(empty=1))
    made = publish(store, outcome=Outcome(counts={"rows": 2}, facts={"share": 0.5}, books=books))
    again = store.get("table", made.digest)
    assert again.verify() == []
    assert (again.kind, again.counts, again.facts, again.books) == ("table", {"rows": 2}, {"share": 0.5}, books)
    assert again.parents == RECIPE.parents


def test_a_flipped_byte_is_named_with_both_digests(store):
    made = publish(store)
    (made.path / "table.txt").write_text("rowz")
    [fault] = made.verify()
    claimed = {entry["name"]: entry["sha256"] for entry in made.manifest["files"]}["table.txt"]
    assert fault.startswith(f"{made.path / 'table.txt'} hashes to ")
    assert fault.endswith(f"the manifest claims {claimed}")


def test_a_missing_an_extra_and_a_linked_file_are_each_named(store, tmp_path):
    made = publish(store)
    (made.path / "nested" / "more.txt").unlink()
    (made.path / "nested" / "more.txt").symlink_to(made.path / "table.txt")
    (made.path / "stranger.txt").write_text("hello")
    faults = "\n".join(made.verify())
    assert "stranger.txt is on disk but not in the manifest" in faults
    assert "more.txt is missing or a link" in faults


def test_an_edited_manifest_no_longer_fits_its_folder(store):
    made = publish(store)
    manifest = json.loads((made.path / "manifest.json").read_text())
    manifest["counts"]["rows"] = 2
    (made.path / "manifest.json").write_text(json.dumps(manifest))
    assert "its folder is named" in store.get("table", made.digest).verify()[0]


def test_an_equal_recipe_finds_what_was_made_and_a_damaged_one_is_not_found(store):
    assert store.find(RECIPE) is None
    made = publish(store)
    assert store.find(RECIPE).digest == made.digest
    (made.path / "manifest.json").unlink()
    assert store.find(RECIPE) is None


def test_an_abandoned_staging_folder_publishes_nothing(store):
    with pytest.raises(RuntimeError), store.staging() as folder:
        (folder / "half.txt").write_text("half")
        raise RuntimeError
    assert store.find(RECIPE) is None
    assert list((store.root / ".staging").iterdir()) == []


def test_links_and_empty_folders_are_refused(store, tmp_path):
    with store.staging() as folder, pytest.raises(ArtifactError, match="empty"):
        store.publish(folder, RECIPE, Outcome())
    with store.staging() as folder, pytest.raises(ArtifactError, match=r"link\.txt is a symbolic link"):
        (folder / "link.txt").symlink_to(tmp_path)
        store.publish(folder, RECIPE, Outcome())


def test_a_missing_artifact_says_what_to_do(store):
    with pytest.raises(ArtifactError, match="materialize the asset again"):
        store.get("table", "f" * 64)


@pytest.mark.parametrize(
    "change",
    [
        [],
        {"files": [{"name": "../../x", "sha256": "0"}]},
        {"parents": [3]},
        {"parents": [{"role": "r", "kind": "../..", "digest": "0"}]},
        {"books": {"in": "many"}},
        {"counts": None},
    ],
)
def test_a_manifest_of_another_shape_is_an_error_that_names_it(store, change):
    made = publish(store)
    manifest = change if isinstance(change, list) else {**made.manifest, **change}
    (made.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=made.digest):
        store.get("table", made.digest)
