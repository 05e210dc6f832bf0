"""The dry run and the proposed mapping: what a person sees before a vendor's first drop is let in."""

import pytest

from dpo_pipeline.annotations.checking import check_drop
from dpo_pipeline.annotations.proposing import propose_mapping
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.samples.scenario import SECOND, generate_scenario

CSV = "side_by_side_batch_7.csv"


@pytest.fixture(scope="module")
def drop(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    generate_scenario(home / "inbox", seed=3, scale=0.05)
    folder = home / "inbox" / SECOND
    (folder / "_COMPLETE").unlink()
    return folder


def test_the_dry_run_says_what_reading_would(drop, read):
    report = check_drop(drop, AnnotationSettings())
    result = read({path.name: path.read_bytes() for path in drop.iterdir()})
    assert report["records_in"] == result.books.records_in
    assert report["judgments"] == len(result.judgments)
    assert report["demonstrations"] == len(result.demonstrations)
    assert report["rejected"] == result.books.as_dict()["rejected"]
    file = report["files"][CSV]
    assert file["source"] == "side_by_side"
    assert sum(file["choices"].values()) == file["judgments"]
    (found,) = [one for one in file["rejected"] if one["reason"] == "empty_response"]
    assert found["sentence"] == "A response holds no text."
    assert "annotators.example" not in found["examples"][0]["excerpt"]


def test_without_a_mapping_one_is_proposed_that_works(drop, tmp_path):
    folder = tmp_path / "drop"
    folder.mkdir()
    (folder / CSV).write_bytes((drop / CSV).read_bytes())
    report = check_drop(folder, AnnotationSettings())
    assert report["judgments"] == 0
    proposal = report["files"][CSV]["proposal"]
    assert proposal["mapping"] == {
        "response_a": "response_1",
        "response_b": "response_2",
        "prompt": "conversation",
        "verdict": "overall",
        "annotator": "worker_id",
        "seconds": "time_spent_s",
        "judged_at": "submitted_at",
        "justification": "reason",
        "shown_first": "shown_left",
        "guideline_version": "guidelines",
        "dimensions": {name: name for name in ("concise", "acknowledges", "specific", "actionable", "tone")},
    }
    assert proposal["scale"] == "likert_7"
    assert proposal["vocabulary"] == {"both unusable": "both_bad"}
    write_yaml(folder / "drop.yaml", {name: proposal[name] for name in ("mapping", "scale", "vocabulary")})
    assert check_drop(folder, AnnotationSettings())["judgments"] == check_drop(drop, AnnotationSettings())["judgments"]


def write_yaml(path, values):
    import yaml

    path.write_text(yaml.safe_dump(values))


def test_words_of_a_vocabulary_are_understood_or_asked_about(tmp_path):
    words = ["A is much better", "A is slightly better", "They are about the same", "B is a bit better", "B wins",
             "both are poor", "skip", "hard to tell"]  # fmt: skip
    lines = [
        f"What is {number}?,It is the number {number}.,No idea about it.,{word}" for number, word in enumerate(words)
    ]
    path = tmp_path / "in house.csv"
    path.write_text("Question,Answer 1,Answer 2,Preference\n" + "\n".join(lines))
    proposal = propose_mapping(path)
    assert proposal["mapping"] | {"dimensions": {}} == {
        "prompt": "Question",
        "response_a": "Answer 1",
        "response_b": "Answer 2",
        "verdict": "Preference",
        "dimensions": {},
    }
    assert proposal["vocabulary"] == {
        "a is much better": -3,
        "a is slightly better": -1,
        "they are about the same": "tie",
        "b is a bit better": 1,
        "b wins": 2,
        "both are poor": "both_bad",
    }
    assert proposal["open_questions"] == ["What does the verdict 'hard to tell' mean?"]


def test_a_known_format_needs_no_mapping(tmp_path):
    path = tmp_path / "export.jsonl"
    path.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    assert propose_mapping(path) == {
        "match": "export.jsonl",
        "format": "trl_preference",
        "columns": ["prompt", "chosen", "rejected"],
        "open_questions": [],
    }


def test_nothing_to_go_by_is_said(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("title,body\nx,y\n")
    proposal = propose_mapping(path)
    assert len(proposal["open_questions"]) == 3
