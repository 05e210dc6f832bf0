"""Merged cells and sheets' names: a prompt holds for the rows below it, a sheet's name for its rows."""

import openpyxl
import pytest
import yaml
from click.testing import CliRunner

from dpo_pipeline.annotations.checking import check_drop
from dpo_pipeline.annotations.completing import filled_down
from dpo_pipeline.annotations.findings import drop_yaml_of, findings_as_text, proposals_of
from dpo_pipeline.annotations.markup import is_markup
from dpo_pipeline.annotations.proposing import propose_for
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.cli import commands

LONG = "a reply that is long enough to be one"


def saved(folder, name, sheets):
    """A workbook of sheets by name, each with its rows and the ranges that are merged."""
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for title, (rows, merged) in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
        for one in merged:
            sheet.merge_cells(one)
    folder.mkdir(exist_ok=True)
    book.save(folder / name)
    return folder


def test_a_broken_row_takes_what_stood_above_it_away():
    broken = Unusable(Reason.FORMULA_CELL, "a formula")
    title = Unusable(Reason.ABOVE_HEADER, "a title")
    rows = [title, {"q": "one", "a": 1}, {"q": "", "a": 2}, broken, {"q": None, "a": 3}, {"q": "two", "a": 4}]
    found = filled_down(((number, row, row) for number, row in enumerate(rows)), ["q"])
    assert [row if row in (broken, title) else row["q"] for _, row, _ in found] == [
        title,
        "one",
        "one",
        broken,
        None,
        "two",
    ]


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\n"])
def test_a_cell_with_nothing_to_see_is_empty(blank):
    rows = [{"q": "one", "a": 1}, {"q": blank, "a": 2}]
    found = filled_down(((number, row, row) for number, row in enumerate(rows, start=1)), ["q"])
    assert [row for _, row, _ in found] == [{"q": "one", "a": 1}, {"q": "one", "a": 2}]


def test_merged_prompts_are_proposed_and_read(tmp_path, read):
    header = ["Prompt", "Response", "Stars", "Rater"]
    groups = [(f"Question {number}?", f"rater {number % 2}") for number in range(6)]
    rows = [
        row
        for prompt, who in groups
        for row in (
            [prompt, f"Good, {LONG}", 5, who],
            [None, f"Middling, {LONG}", 3, None],
            [None, f"Bad, {LONG}", 1, None],
        )
    ]
    merged = [f"{column}{at}:{column}{at + 2}" for column in "AD" for at in range(2, 20, 3)]
    folder = saved(tmp_path / "drop", "rated.xlsx", {"Batch": ([header, *rows], merged)})
    report = check_drop(folder, AnnotationSettings())
    assert report["judgments"] == 0
    written = drop_yaml_of(proposals_of(report))
    assert "# Do empty cells of Prompt, Rater hold what stands above them, as merged cells do?" in written
    assert yaml.safe_load(written)["files"] == [
        {
            "match": "rated.xlsx",
            "fill_down": ["Prompt", "Rater"],
            "mapping": {"response": "Response", "rating": "Stars", "prompt": "Prompt", "annotator": "Rater"},
        }
    ]
    (folder / "drop.yaml").write_text(written)
    result = read({path.name: path.read_bytes() for path in folder.iterdir()})
    assert len(result.judgments) == 6 * 3
    assert {row["prompt"][0]["content"] for row in result.judgments} == {prompt for prompt, _ in groups}
    assert len({row["annotator"] for row in result.judgments}) == 2
    assert all(row["choice"] == "a" for row in result.judgments)
    assert (result.books.records_in, result.rejected) == (6, [])


def test_a_comment_that_is_seldom_written_is_not_filled(tmp_path):
    rows = [["question", "answer 1", "answer 2", "better", "comment"]]
    rows += [
        [f"Question {n}?", f"One {n}, {LONG}", f"Two {n}, {LONG}", "answer 1", "why" if n % 3 == 0 else None]
        for n in range(9)
    ]
    report = check_drop(saved(tmp_path / "drop", "plain.xlsx", {"Batch": (rows, [])}), AnnotationSettings())
    (proposal,) = proposals_of(report)
    assert proposal["fill_down"] == []


def test_ratings_of_both_responses_are_no_verdict(tmp_path):
    group = [None, "Response A", None, "Response B", None, "Verdict"]
    names = ["Question", "Text", "Score", "Text", "Score", "Better"]
    rows = [
        [f"Question {n}?", f"One {n}, {LONG}", n % 5, f"Two {n}, {LONG}", 3, ["Response A", "Response B"][n % 2]]
        for n in range(9)
    ]
    folder = saved(tmp_path / "drop", "grouped.xlsx", {"Batch": ([group, names, *rows], ["B1:C1", "D1:E1"])})
    (proposal,) = proposals_of(check_drop(folder, AnnotationSettings()))
    assert proposal["mapping"]["verdict"] == "Better"
    assert proposal["mapping"]["dimensions"] == {"response_score": ["Response A Score", "Response B Score"]}


def test_each_sheet_may_be_one_persons_whose_name_stays_out_of_the_tables(tmp_path, read):
    header = ["question", "answer 1", "answer 2", "better"]
    row = ["Where is it?", f"Here, {LONG}", f"There, {LONG}", "answer 1"]
    folder = saved(tmp_path / "drop", "people.xlsx", {who: ([header, row], []) for who in ("Alice Doe", "Bob Roe")})
    report = check_drop(folder, AnnotationSettings())
    written = drop_yaml_of(proposals_of(report))
    asked = "If each sheet is one person's, add `sheet_column: sheet` here and `annotator: sheet` to the mapping."
    assert asked in written
    (rule,) = yaml.safe_load(written)["files"]
    rule["mapping"]["annotator"] = "sheet"
    (folder / "drop.yaml").write_text(yaml.safe_dump({"files": [rule | {"sheet_column": "sheet"}]}))
    result = read({path.name: path.read_bytes() for path in folder.iterdir()})
    assert [row["file"] for row in result.judgments] == ["people.xlsx!sheet 1", "people.xlsx!sheet 2"]
    assert len({row["annotator"] for row in result.judgments}) == 2
    for path in sorted((tmp_path / "out1").rglob("*")):
        assert path.is_dir() or b"Alice" not in path.read_bytes()
    assert "by 1 annotator" in findings_as_text(check_drop(folder, AnnotationSettings()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>Yes.</p>\n<p>It is.</p>", True),
        ('<div class="ql-editor"><b>Yes</b></div>', True),
        ("Tom &amp; Ann&nbsp;went", True),
        ("&lt;p&gt;Yes&lt;/p&gt;", True),
        ("<p> is the tag for a paragraph", False),
        ("Write `&nbsp;` for a space", False),
        ("```html\n<p>Hi</p>\n```", False),
        ("AT&T; 3 < 4", False),
        ("<think>Hm</think> Yes.", False),
        ("", False),
    ],
)
def test_markup_is_told_from_text_about_markup(text, expected):
    assert is_markup(text) is expected


def test_the_check_says_who_judged_and_what_is_html(tmp_path):
    folder = tmp_path / "drop"
    folder.mkdir()
    arena = (
        '{"question_id": "1", "model_a": "x", "model_b": "y", "winner": "model_a", "judge": "arena_user_9", '
        '"conversation_a": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], '
        '"conversation_b": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hu"}], "turn": 1}\n'
    )
    (folder / "arena.jsonl").write_text(arena)
    (folder / "pairs.jsonl").write_text('{"prompt": "Hi", "chosen": "<p>Ho</p>", "rejected": "Hu"}\n')
    said = CliRunner().invoke(commands, ["drop", "check", str(folder)]).output
    assert "by 1 annotator; the judge or the session stands for the annotator" in said
    assert "no annotator is named" in said
    assert "1 judgments are on responses in HTML" not in said
    assert "1 judgment is on responses in HTML" in said


@pytest.mark.parametrize("blank", ["", " ", "\u00a0"])
def test_cells_with_nothing_to_see_are_proposed_to_be_filled(blank):
    rows = [
        {"Prompt": f"Question {number}?" if first else blank, "Response": f"{kind} {number}, {LONG}", "Stars": stars}
        for number in range(6)
        for first, kind, stars in ((True, "Good", "5"), (False, "Bad", "1"))
    ]
    assert propose_for(rows)["fill_down"] == ["Prompt"]
