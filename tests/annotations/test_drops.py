"""Copying a drop in, and what its drop.yaml may say."""

import os

import pytest

from dpo_pipeline.annotations.drops import copy_drop, load_rules
from dpo_pipeline.annotations.read import checked_rules
from dpo_pipeline.core.errors import InputError, SettingsError


@pytest.fixture
def inbox(tmp_path):
    folder = tmp_path / "inbox" / "may"
    (folder / "part").mkdir(parents=True)
    (folder / "a.jsonl").write_text("{}")
    (folder / "part" / "b.csv").write_text("x,y\n")
    return folder


def test_files_are_copied_with_their_sub_paths(inbox, tmp_path):
    (inbox / "_COMPLETE").touch()
    (inbox / ".DS_Store").write_text("x")
    (inbox / ".git").mkdir()
    (inbox / ".git" / "config").write_text("x")
    out = tmp_path / "out"
    out.mkdir()
    outcome = copy_drop(inbox, out)
    assert outcome.counts == {"files": 2, "bytes": 6}
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "files/a.jsonl",
        "files/part/b.csv",
    ]


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo])
def test_links_and_special_files_are_refused(inbox, tmp_path, make):
    make(inbox / "part" / "trick.jsonl")
    with pytest.raises(InputError, match=r"trick\.jsonl is a link or a special file"):
        copy_drop(inbox, tmp_path)


def test_a_drop_without_files_is_refused(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "_COMPLETE").touch()
    with pytest.raises(InputError, match="holds no files"):
        copy_drop(folder, tmp_path)


def rules(tmp_path, text):
    (tmp_path / "drop.yaml").write_text(text)
    return load_rules(tmp_path)


def test_no_drop_yaml_means_defaults(tmp_path):
    assert load_rules(tmp_path).rule_for("x.csv").format is None
    assert rules(tmp_path, "").rule_for("x.csv").mapping is None


def test_words_stay_what_the_author_wrote(tmp_path):
    found = rules(tmp_path, "vocabulary: {yes: 2, No: -2, 007: tie, 1.0: skipped, null: both_bad}")
    assert found.vocabulary == {"yes": 2, "no": -2, "007": "tie", "1.0": "skipped", "null": "both_bad"}


def test_the_first_matching_pattern_holds_else_the_top(tmp_path):
    found = rules(
        tmp_path,
        """
sft_allowed: false
files:
  - {match: "*.csv", source: vendor}
  - {match: "part/*", ignore: true}
""",
    )
    assert found.rule_for("part/x.csv").source == "vendor"
    assert found.rule_for("part/x.jsonl").ignore is True
    assert found.rule_for("y.jsonl").sft_allowed is False


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("format: [", "it is not YAML"),
        ("formt: trl_preference", "formt is not a known setting"),
        ("a: &x 1\nb: *x", "aliases are not read"),
        ("source: a\nsource: b", "source stands there twice"),
        ("- 1", "the whole is"),
        ("vocabulary: {much: -4}", "strengths lie in -3..3"),
        ("vocabulary: {much: nonsense}", "vocabulary.much"),
        ("mapping: {prompt: p}", "give either response_a, response_b and verdict, or responses"),
        ("mapping: {prompt: p, response_a: a, response_b: b}", "give either"),
        ("mapping: {prompt: p, responses: [a, b], ranks: [r]}", "2 responses need as many ranks"),
        ("source: " + "x" * 1_000_001, "at most 1000000 are read"),
        ("[" * 100_000, "it is not YAML"),
    ],
)
def test_faults_in_drop_yaml_are_named(tmp_path, text, fault):
    with pytest.raises(SettingsError) as caught:
        rules(tmp_path, text)
    assert fault in str(caught.value)


def test_all_faults_come_together(tmp_path):
    with pytest.raises(SettingsError) as caught:
        rules(tmp_path, "scale: likert_9\nfiles: [{match: x, ignore: maybe}]")
    assert len(caught.value.faults) == 2


def test_a_stated_format_must_be_known(tmp_path):
    (tmp_path / "drop.yaml").write_text("files: [{match: '*', format: label_studo}]")
    with pytest.raises(SettingsError, match="format is 'label_studo': known are alpaca, alpaca_eval, appen"):
        checked_rules(tmp_path)
