"""Rows that are one record: what joins them, what ends them, and how they are counted."""

import json

from dpo_pipeline.annotations.formats.kway import MAX_RESPONSES
from dpo_pipeline.annotations.settings import AnnotationSettings


def row(prompt, response, helpfulness=3):
    return json.dumps({"prompt": prompt, "response": response, "helpfulness": helpfulness})


def found(result):
    return [(one["record_number"], one["response_a"], one["response_b"]) for one in result.judgments]


def test_only_rows_that_follow_one_another_are_one_record(read):
    lines = [row("p", "one"), row("q", "two"), row("p", "three"), row("p", "four")]
    result = read({"train.jsonl": "\n".join(lines)})
    assert found(result) == [(3, "three", "four")]
    assert [(one["record_number"], one["reason"]) for one in result.rejected] == [
        (1, "too_few_responses"),
        (2, "too_few_responses"),
    ]
    assert result.books.as_dict() == {
        "in": 3,
        "kept": {"judgment_records": 1},
        "merged": 0,
        "rejected": {"too_few_responses": 2},
    }


def test_a_broken_row_ends_a_record_and_is_booked_itself(read):
    result = read({"train.jsonl": "\n".join([row("p", "one"), "{", row("p", "two"), row("p", "three")])})
    assert found(result) == [(3, "two", "three")]
    assert [(one["record_number"], one["reason"]) for one in result.rejected] == [
        (1, "too_few_responses"),
        (2, "invalid_json"),
    ]


def test_a_file_of_one_prompt_is_read_in_bounded_records(read):
    lines = [row("p", f"response {number}", number % 5) for number in range(2 * MAX_RESPONSES)]
    result = read({"train.jsonl": "\n".join(lines)})
    assert {one["record_number"] for one in result.judgments} == {1, MAX_RESPONSES + 1}
    assert len(result.judgments) == 2 * (MAX_RESPONSES * (MAX_RESPONSES - 1) // 2)


def test_rows_of_a_spreadsheet_are_joined_too(read):
    sheet = "prompt,response,helpfulness,verbosity\np,one,4,1\np,two,1,3\n"
    (judgment,) = read({"train.csv": sheet}).judgments
    assert (judgment["choice"], judgment["strength"]) == ("a", -3)
    assert judgment["dimensions"] == [{"name": "verbosity", "strength": 2.0}]


def test_a_record_of_many_rows_is_no_longer_than_a_record_may_be(read):
    lines = [row("p", f"{number} " + "x" * 400) for number in range(6)]
    result = read({"train.jsonl": "\n".join(lines)}, settings=AnnotationSettings(max_record_bytes=1_000))
    assert found(result) == [
        (number, *(json.loads(lines[at])["response"] for at in (number - 1, number))) for number in (1, 3, 5)
    ]


def test_broken_rows_take_no_room_from_the_record_after_them(read):
    broken = ['{"cut": "' + "x" * 700] * 3
    lines = [*broken, row("p", "one"), row("p", "two", 1)]
    result = read({"train.jsonl": "\n".join(lines)}, settings=AnnotationSettings(max_record_bytes=1_000))
    assert found(result) == [(4, "one", "two")]
