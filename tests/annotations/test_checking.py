"""The dry run and the proposed mapping: what a person sees before a vendor's first drop is let in."""

import csv
import json
from pathlib import Path

import openpyxl
import pytest
import yaml
from click.testing import CliRunner

from dpo_pipeline.annotations.checking import check_drop
from dpo_pipeline.annotations.findings import drop_yaml_of, proposals_of
from dpo_pipeline.annotations.proposing import NOBODY, propose_mapping
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.cli import commands
from dpo_pipeline.core.errors import SettingsError
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
    assert proposal["open_questions"] == ["What does the verdict 'hard to tell' mean?", NOBODY]


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


KWAY = "prompt,response_1,response_2,response_3,{}annotator_id\n"
TEXTS = '"Explain rain.","Rain is water that falls.","Clouds are made of vapour.","I do not know that.",'
SHEETS = {
    "ranks": (
        KWAY.format("rank_1,rank_2,rank_3,") + TEXTS + "1,2,3,ann7\n",
        {"responses": ["response_1", "response_2", "response_3"], "ranks": ["rank_1", "rank_2", "rank_3"]},
    ),
    "ratings": (
        KWAY.format("score_1,score_2,score_3,") + TEXTS + "5,4.5,1,ann7\n",
        {"responses": ["response_1", "response_2", "response_3"], "ratings": ["score_1", "score_2", "score_3"]},
    ),
    "ranking": (
        KWAY.format("ranking,") + TEXTS + "2 > 1 = 3,ann7\n",
        {"responses": ["response_1", "response_2", "response_3"], "ranking": "ranking"},
    ),
}


@pytest.mark.parametrize("name", SHEETS)
def test_a_spreadsheet_of_several_responses_gets_a_mapping_that_works(name, tmp_path):
    content, mapping = SHEETS[name]
    (tmp_path / "sheet.csv").write_text(content)
    (proposal,) = proposals_of(check_drop(tmp_path, AnnotationSettings()))
    common = {"prompt": "prompt", "annotator": "annotator_id", "dimensions": {}}
    assert proposal["mapping"] == mapping | common
    (tmp_path / "drop.yaml").write_text(drop_yaml_of([proposal]))
    assert check_drop(tmp_path, AnnotationSettings())["judgments"] == 3


def test_several_files_get_one_drop_yaml_whose_questions_are_comments(tmp_path):
    """Side in one column and strength in another; ratings per response; minutes; a workbook; an archive's member."""
    (tmp_path / "a.csv").write_text(
        "Question,Answer A,Answer B,Choice,Strength,Time (min),Tone (A),Tone (B)\n"
        "What is rain?,Water that falls from clouds.,I do not know that.,A,much,2,5,1\n"
        "What is hail?,Ice that falls from clouds.,I do not know it.,B,slightly,1,2,4\n"
        "What is fog?,A cloud that lies low.,I do not know it.,hmm,slightly,1,2,4\n"
    )
    book = openpyxl.Workbook()
    book.active.append(["prompt", "left text", "right text", "preference"])
    book.active.append(["What is snow?", "Ice that falls in flakes.", "I do not know that.", "left"])
    book.save(tmp_path / "b.xlsx")
    findings = check_drop(tmp_path, AnnotationSettings())
    text = drop_yaml_of(proposals_of(findings))
    assert "  # What does the verdict 'hmm' mean?\n" in text
    rules = yaml.safe_load(text)["files"]
    assert [rule["match"] for rule in rules] == ["a.csv", "b.xlsx"]
    assert rules[0]["time_unit"] == "minutes"
    assert rules[0]["mapping"]["strength"] == "Strength"
    assert rules[0]["mapping"]["dimensions"] == {"tone": ["Tone (A)", "Tone (B)"]}
    (tmp_path / "drop.yaml").write_text(text)
    again = check_drop(tmp_path, AnnotationSettings())
    assert again["judgments"] == 3
    assert again["rejected"] == {"unknown_verdict": 1}


def test_the_command_prints_the_proposal_alone(tmp_path):
    (tmp_path / "sheet.csv").write_text(SHEETS["ranks"][0])
    result = CliRunner().invoke(commands, ["drop", "check", str(tmp_path), "--propose"])
    assert yaml.safe_load(result.output)["files"][0]["match"] == "sheet.csv"
    (tmp_path / "drop.yaml").write_text(result.output)
    result = CliRunner().invoke(commands, ["drop", "check", str(tmp_path), "--propose"])
    assert result.output == "# Every file is recognised: no drop.yaml is needed.\n"


def test_an_appen_report_without_a_mapping_is_asked_about(tmp_path):
    (tmp_path / "f1.csv").write_text(
        "_unit_id,_trust,_worker_id,_golden,_tainted,prompt,response_a,response_b,which_is_better\n"
        "1,0.9,7,false,false,What is rain?,Water that falls.,I do not know that.,response_a\n"
    )
    findings = check_drop(tmp_path, AnnotationSettings())
    assert findings["files"]["f1.csv"]["source"] == "appen"
    (proposal,) = proposals_of(findings)
    assert proposal["mapping"]["verdict"] == "which_is_better"


def test_a_bare_number_means_a_response_only_where_the_columns_are_told_apart_by_it(tmp_path):
    """0 and 1 beside response_0 and response_1 are theirs; beside text_a and text_b nobody can know."""
    rows = "Is it {n}?,It is number {n} I think.,It is certainly not {n}.,{v}\n"
    own, other = tmp_path / "own.csv", tmp_path / "other.csv"
    own.write_text("prompt,response_0,response_1,better_response\n" + rows.format(n=1, v=0) + rows.format(n=2, v=1))
    other.write_text("prompt,text_a,text_b,label\n" + rows.format(n=3, v=0) + rows.format(n=4, v=1))
    assert propose_mapping(own)["vocabulary"] == {"0": -2, "1": 2}
    proposal = propose_mapping(other)
    assert proposal["vocabulary"] == {}
    assert proposal["open_questions"] == ["What does the verdict '0' mean?", "What does the verdict '1' mean?", NOBODY]


def test_a_rule_that_lacks_what_it_needs_is_proposed_as_a_comment(tmp_path):
    (tmp_path / "notes.csv").write_text("title,body\nx,y\n")
    (tmp_path / "sheet.csv").write_text(SHEETS["ranks"][0])
    text = drop_yaml_of(proposals_of(check_drop(tmp_path, AnnotationSettings())))
    assert [rule["match"] for rule in yaml.safe_load(text)["files"]] == ["sheet.csv"]
    assert "  # - match: notes.csv\n" in text
    assert "[title, body]" in text
    (tmp_path / "drop.yaml").write_text(text)
    assert check_drop(tmp_path, AnnotationSettings())["judgments"] == 3


@pytest.mark.parametrize(
    ("golden", "expected"),
    [
        (
            "surge",
            {
                "response_a": "fields.response_a",
                "response_b": "fields.response_b",
                "prompt": "fields.prompt",
                "verdict": "data.Which response is better?",
                "justification": "data.Why?",
            },
        ),
        (
            "appen_json",
            {
                "response_a": "answer_1",
                "response_b": "answer_2",
                "prompt": "question",
                "verdict": "which_is_better",
            },
        ),
    ],
)
def test_where_a_format_needs_a_mapping_one_is_proposed_that_reads_it(golden, expected, tmp_path, read):
    """An export whose columns are the job's own, first without drop.yaml, then with what was proposed."""
    folder = Path(__file__).parent / "goldens" / golden
    [name] = [path.name for path in folder.iterdir() if path.suffix == ".jsonl"]
    content = (folder / name).read_bytes()
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / name).write_bytes(content)
    findings = check_drop(tmp_path / "drop", AnnotationSettings())
    [proposal] = proposals_of(findings)
    assert {role: column for role, column in proposal["mapping"].items() if column} == expected
    assert read({name: content, "drop.yaml": drop_yaml_of([proposal])}).judgments


def test_a_nested_export_of_ones_own_is_proposed_by_paths(tmp_path, read):
    rows = [
        {
            "task": {
                "question": f"How far is it to town {at}?",
                "answers": {"a": "Ten miles or so, by train.", "b": "Quite far away, they say."},
            },
            "annotation": {"choice": "a" if at % 2 else "tie", "by": {"annotator": f"w{at}"}},
        }
        for at in range(4)
    ]
    content = "\n".join(map(json.dumps, rows))
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "own.jsonl").write_text(content)
    [proposal] = proposals_of(check_drop(tmp_path / "drop", AnnotationSettings()))
    text = drop_yaml_of([proposal])
    judgments = read({"own.jsonl": content, "drop.yaml": text}).judgments
    assert [row["choice"] for row in judgments] == ["tie", "a", "tie", "a"]
    assert {row["annotator"] for row in judgments} != {None}


def test_a_sheet_with_one_response_a_row_is_proposed_and_read(tmp_path, read):
    sheet = "question,model,answer,score,labeler\n" + "".join(
        f"What is number {item}?,m{model},It is surely number {item + model}.,{5 - model},w1\n"
        for item in range(3)
        for model in range(2)
    )
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "long.csv").write_text(sheet)
    [proposal] = proposals_of(check_drop(tmp_path / "drop", AnnotationSettings()))
    text = drop_yaml_of([proposal])
    assert "# Do the rows to be compared, of one prompt by one annotator, follow one another?" in text
    judgments = read({"long.csv": sheet, "drop.yaml": text}).judgments
    assert [(row["record_number"], row["choice"], row["strength"]) for row in judgments] == [
        (1, "a", -1),
        (3, "a", -1),
        (5, "a", -1),
    ]


@pytest.mark.parametrize(
    ("mapping", "fault"),
    [
        ({"prompt": "p", "response": "r"}, "response needs one of rating and rank"),
        ({"prompt": "p", "response": "r", "rating": "s", "rank": "t"}, "response needs one of rating and rank"),
        ({"prompt": "p", "response": "r", "rating": "s", "response_a": "a"}, "give either response_a, response_b"),
        ({"prompt": "p", "rating": "s"}, "give either response_a, response_b"),
    ],
)
def test_a_mapping_of_two_ways_or_of_none_is_refused(read, mapping, fault):
    with pytest.raises(SettingsError, match=fault):
        read({"x.csv": "p,r,s\n", "drop.yaml": json.dumps({"mapping": mapping})})


def proposed(tmp_path, header, rows):
    path = tmp_path / "sheet.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return propose_mapping(path)


def sentences(verdicts):
    return [
        [f"What is {n}?", f"It is the number {n}.", f"No idea, {n}.", verdict] for n, verdict in enumerate(verdicts)
    ]


AB = ["prompt", "response_a", "response_b", "preference"]


def test_a_number_in_front_of_a_verdict_is_a_place_on_a_scale_and_no_side(tmp_path):
    """`-1 - rather` once became "response a is better" for its 1, and `-2 - quite` the contrary."""
    found = proposed(tmp_path, AB, sentences(f"{n} - word {'abcdefg'[n]}x" for n in range(-3, 4)))
    assert found["scale"] == "signed_3"
    assert sorted(found["vocabulary"].values()) == [-3, -2, -1, 0, 1, 2, 3]
    assert all(int(word.split(" - ")[0]) == meaning for word, meaning in found["vocabulary"].items())
    assert (
        "Is the number in front of each verdict on the scale signed_3, lower for response_a?" in found["open_questions"]
    )


def test_words_behind_a_number_go_before_it(tmp_path):
    words = ["1 - b is much better", "2 - b is better", "3: same", "4. a is better", "5 = a is much better"]
    found = proposed(tmp_path, AB, sentences(words))
    assert (found["scale"], found["vocabulary"]) == (None, dict(zip(words, (3, 2, "tie", -2, -3), strict=True)))


def test_numbers_that_lie_on_no_scale_are_asked_about_and_no_scale_is_spoken_of(tmp_path):
    found = proposed(tmp_path, AB, sentences("012012"))
    assert found["scale"] is None
    assert found["open_questions"] == [f"What does the verdict '{n}' mean?" for n in "012"] + [NOBODY]


def test_words_that_were_given_the_same_strength_for_want_of_an_adverb_are_asked_about(tmp_path):
    found = proposed(tmp_path, AB, sentences(["a wins", "a wins narrowly", "b wins", "tie"]))
    assert found["vocabulary"] == {"a wins": -2, "a wins narrowly": -2, "b wins": 2}
    assert (
        "How much better is each of 'a wins', 'a wins narrowly'? No word in them was understood to say so."
        in (found["open_questions"])
    )


def test_columns_whose_names_say_nothing_are_known_by_what_they_hold_and_asked_about(tmp_path):
    found = proposed(tmp_path, ["Q", "T a", "T b", "Z"], sentences(["a better", "b better", "a better"]))
    assert {name: found["mapping"][name] for name in ("prompt", "verdict")} == {"prompt": "Q", "verdict": "Z"}
    assert found["open_questions"][:2] == [
        "Is Q the prompt? Its name does not say so.",
        "Is Z the verdict? Its name does not say so.",
    ]


def test_days_that_can_only_come_first_are_proposed_so(tmp_path):
    rows = [[*row, date] for row, date in zip(sentences("abab"), ("1/2/2026", "13/2/2026", "3/2/2026"), strict=False)]
    found = proposed(tmp_path, [*AB, "date"], rows)
    assert (found["mapping"]["judged_at"], found["day_first"]) == ("date", True)


def test_no_order_of_days_is_proposed_for_a_column_that_holds_none(tmp_path):
    rows = [[*row, "see below"] for row in sentences("abab")]
    assert "judged_at" not in (found := proposed(tmp_path, [*AB, ""], rows))["mapping"]
    assert found["day_first"] is None
    found = proposed(tmp_path, [*AB[:-1], ""], [[*row[:-1], "see below"] for row in sentences("abab")])
    assert not any("What does the verdict" in question for question in found["open_questions"])


def test_the_fields_of_json_in_cells_are_proposed_by_their_paths(tmp_path):
    asked = [{"role": "user", "content": "Which tents do you sell?"}]
    task = {"conversation": asked, "response_a": "We sell three tents.", "response_b": "None that I know of."}
    rows = [
        [json.dumps(task), json.dumps({"preference": side, "why": "It is.", "spent": {"seconds": 31}}), f"w{number}"]
        for number, side in enumerate("abba")
    ]
    mapping = proposed(tmp_path, ["task", "result", "worker_id"], rows)["mapping"]
    assert mapping | {"dimensions": {}} == {
        "prompt": "task.conversation",
        "response_a": "task.response_a",
        "response_b": "task.response_b",
        "verdict": "result.preference",
        "annotator": "worker_id",
        "seconds": "result.spent.seconds",
        "justification": "result.why",
        "dimensions": {},
    }


def test_a_sheet_beside_the_one_a_mapping_is_for_asks_for_no_other(tmp_path):
    book = openpyxl.Workbook()
    for row in [AB, *sentences("abab")]:
        book.active.append(row)
    for row in (["Annotator", "Tasks"], ["Ada", 4]):
        (book["Sums"] if "Sums" in book.sheetnames else book.create_sheet("Sums")).append(row)
    book.save(tmp_path / "batch.xlsx")
    found = check_drop(tmp_path, AnnotationSettings())
    assert found["judgments"] == 0
    (tmp_path / "drop.yaml").write_text(drop_yaml_of(proposals_of(found)))
    found = check_drop(tmp_path, AnnotationSettings())
    assert (found["judgments"], found["rejected"]) == (4, {"unknown_format": 1})
    assert proposals_of(found) == []
