"""Spreadsheets as people save them: titles above the header, the header twice, quotes that are never closed."""

import csv
import io

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_pipeline.annotations.csv_rows import read_csv
from dpo_pipeline.annotations.records import Unusable
from dpo_pipeline.annotations.settings import AnnotationSettings

HEADER = ["prompt", "chosen", "rejected"]


def sheet(rows, **options):
    stream = io.StringIO()
    csv.writer(stream, **options).writerows(rows)
    return stream.getvalue()


def entries(text, *, limit=4_000_000, **options):
    return list(read_csv(io.BytesIO(text.encode()), max_record_bytes=limit, **options))


def found(text, **options):
    """Each row as its cells, or the detail of why there is none."""
    return [
        value.detail if isinstance(value, Unusable) else list(value.values())
        for _, value, _ in entries(text, **options)
    ]


def workbook(tmp_path, *sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        page = book.create_sheet(f"s{number}")
        for row in rows:
            page.append(row)
    book.save(tmp_path / "book.xlsx")
    return (tmp_path / "book.xlsx").read_bytes()


LINES = st.text(alphabet="xy \n", min_size=1, max_size=8).filter(lambda text: text.strip() and text[0] != "\n")
"""None starts with a line's end: a quote that opens before one cannot be told from a quote that closes there."""
ROWS = st.lists(st.tuples(LINES, LINES, LINES), min_size=1, max_size=8)


@settings(max_examples=1000)
@given(rows=ROWS, data=st.data(), quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
def test_a_quote_that_is_never_closed_gives_no_row_that_was_not_written(rows, data, quoting):
    """Planted: one cell of one row loses its closing quote. That row is lost, at most one more, and said to be."""
    broken = data.draw(st.integers(0, len(rows) - 1))
    place = data.draw(st.integers(0, 2))
    lines = [sheet([row], quoting=quoting) for row in rows]
    cells = [sheet([[cell]], quoting=csv.QUOTE_ALL).removesuffix("\r\n") for cell in rows[broken]]
    cells[place] = cells[place][:-1]
    lines[broken] = ",".join(cells) + "\r\n"
    read = found(sheet([HEADER]) + "".join(lines))
    rows = [list(row) for row in rows]
    assert [row for row in read if isinstance(row, list)] in (
        rows[:broken] + rows[broken + 1 :],
        rows[:broken] + rows[broken + 2 :],
    )
    assert any(isinstance(row, str) for row in read)


@pytest.mark.parametrize("cell", ['"b', '"b, c", d'])
def test_where_rows_are_lines_an_unclosed_quote_costs_its_own_only(cell):
    rows = [["p", "a", cell] if n == 12 else [f"q{n}", "c, d", "e"] for n in range(30)]
    text = sheet([HEADER]) + "".join(sheet([row]) if row[2] != cell else f"p,a,{cell}\n" for row in rows)
    detail = f"a quote opened in line 14 is not closed {SHOULD_END}" if cell == '"b' else "4 cells, the header has 3"
    assert found(text) == [*rows[:12], detail, *rows[13:]]


SHOULD_END = "where the row should end"


def test_a_quote_opened_in_the_last_cell_does_not_swallow_the_rest_of_the_file():
    """The row would have as many cells as it should, the last one holding everything below."""
    rows = [["p", "a", '"b'], *([f"q{n}", "c", "d"] for n in range(50))]
    text = sheet([HEADER]) + "".join(",".join(row) + "\n" for row in rows)
    assert found(text) == [f"a quote opened in line 2 is not closed {SHOULD_END}", *rows[1:]]


def test_what_is_left_of_a_broken_row_is_no_row_though_it_looks_like_one():
    """Cells have lines of their own here, and the third line of the broken row has as many commas as a row."""
    good = [["p\nq", f"a{n}", "b"] for n in range(5)]
    text = sheet([HEADER, *good[:2]]) + 'p,"a\nwell,\nyes,you,may\nso\n' + sheet(good[2:])
    detail = f"a quote opened in line 6 is not closed {SHOULD_END}; 5 lines after it are given up with it"
    assert found(text) == [*good[:2], detail, *good[3:]]


def test_quotes_that_are_made_to_be_gone_through_again_and_again_are_given_up():
    """Each line closes the quote of the one before and opens another; 8 GB would be gone through."""
    text = sheet([HEADER]) + 'x","\n' * 400_000
    [row] = found(text, limit=20_000)
    assert row.endswith("; 399,999 lines after it are given up with it")


def test_a_line_over_the_limit_behind_a_quote_that_is_never_closed_is_booked_by_itself():
    good = [["q", "c", str(n)] for n in range(12)]
    text = sheet([HEADER, *good]) + 'p,a,"b\n' + "q,c,d\n" + "w" * 500 + ",x,y\n" + "r,e,f\n"
    detail = f"a quote opened in line 14 is not closed {SHOULD_END}"
    assert found(text, limit=100) == [*good, detail, ["q", "c", "d"], "longer than 100 characters", ["r", "e", "f"]]


def test_a_header_whose_quote_is_never_closed_is_said():
    assert found('prompt,chosen,"rejected\np,a,b\nq,c,d\n') == [f"a quote opened in line 1 is not closed {SHOULD_END}"]


def test_a_file_that_ends_inside_a_cell_gives_no_cut_text():
    detail = f"a quote opened in line 3 is not closed {SHOULD_END}"
    assert found(sheet([HEADER]) + 'p,a,b\nq,c,"d and then') == [["p", "a", "b"], detail]


TITLED = [
    ["Batch 12", "", ""],
    [],
    ["", "Responses", ""],
    HEADER,
    ["p", "a", "b"],
    HEADER,
    ["q", "c", "d"],
]
SAID = [
    (0, "above_header", "it says 'Batch 12'"),
    (0, "above_header", "it says 'Responses'"),
    (2, "repeated_header", "the names of the columns once more"),
]


@pytest.mark.parametrize("kind", ["csv", "csv with a bare title", "csv of semicolons", "tsv", "xlsx"])
def test_titles_above_the_header_and_the_header_again_are_booked_and_not_read(read, tmp_path, kind):
    rows = [[*row, "", ""] if row else row for row in TITLED]
    wide = [*(row and [*row, "x", "y"] for row in TITLED)]
    wide[3] = [*HEADER, "annotator", "note"]
    wide[5] = wide[3]
    for at in (0, 2):
        wide[at] = rows[at]
    if kind == "csv with a bare title":
        wide[0] = ["Batch 12"]
    delimiter = {"tsv": "\t", "csv of semicolons": ";"}.get(kind, ",")
    content = workbook(tmp_path, wide) if kind == "xlsx" else sheet(wide, delimiter=delimiter)
    result = read({f"export.{kind.split()[0]}": content})
    assert [(row["prompt"][0]["content"], row["record_number"]) for row in result.judgments] == [("p", 1), ("q", 3)]
    assert [(row["record_number"], row["reason"], row["detail"]) for row in result.rejected] == SAID
    assert result.books.as_dict()["rejected"] == {"above_header": 2, "repeated_header": 1}


def test_groups_of_columns_tell_names_apart_that_stand_there_twice(read, tmp_path):
    rows = [
        ["", "Response 1", "", "Response 2", "", ""],
        ["prompt", "Text", "Stars", "Text", "Stars", "Better"],
        ["p", "a", 4, "b", 2, "1"],
    ]
    mapping = "mapping: {prompt: prompt, response_a: Response 1 Text, response_b: Response 2 Text, verdict: Better, "
    rules = mapping + "dimensions: {stars: [Response 1 Stars, Response 2 Stars]}}\nvocabulary: {1: -2, 2: 2}\n"
    for name, content in (("e.xlsx", workbook(tmp_path, rows)), ("e.csv", sheet(rows))):
        (row,) = read({name: content, "drop.yaml": rules}).judgments
        assert (row["response_a"], row["response_b"], row["choice"]) == ("a", "b", "a")
        assert row["dimensions"] == [{"name": "stars", "strength": -2.0}]


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_the_row_that_names_the_columns_can_be_stated(read, tmp_path, kind):
    """A line of remarks as full as the rows below it is taken for the header, until drop.yaml says otherwise."""
    rows = [["made by", "Ada", "in November"], HEADER, ["p", "a", "b"]]
    content = sheet(rows) if kind == "csv" else workbook(tmp_path, rows)
    assert read({f"e.{kind}": content}).judgments == []
    result = read({f"e.{kind}": content, "drop.yaml": "header_row: 2\n"})
    assert [row["response_a"] for row in result.judgments] == ["a"]
    assert [row["detail"] for row in result.rejected] == ["it says 'made by Ada in November'"]
    beyond = read({f"e.{kind}": content, "drop.yaml": "header_row: 9\n"})
    assert "drop.yaml says that row 9 names the columns; there is no such row" in [
        row["detail"] for row in beyond.rejected
    ]


def test_a_stated_row_far_down_tells_what_delimits_the_cells():
    rows = [["p", "a", "b"], ["q", "a", "b"]]
    text = "".join(f"Note {number}\n" for number in range(24)) + sheet([HEADER, *rows], delimiter=";")
    assert found(text, header_row=25) == [*(f"it says 'Note {number}'" for number in range(24)), *rows]


def test_a_row_fuller_than_its_header_is_no_header():
    """Two names and eight cells: the texts below are none that could name columns."""
    wide = [
        "My lamp came broken, and nobody at your shop answers the phone. What am I supposed to do about it now?"
    ] * 8
    assert found(sheet([["prompt", "chosen"], wide, wide])) == ["8 cells, the header has 2"] * 2


@pytest.mark.parametrize("ending", ["\r", "\n", "\r\n"])
def test_lines_of_json_may_end_as_on_any_machine(read, ending):
    lines = [f'{{"prompt": "p{n}", "chosen": "a", "rejected": "b\\r\\nc"}}' for n in range(3)]
    result = read({"e.jsonl": ending.join(lines)}, settings=AnnotationSettings(max_record_bytes=1_000))
    assert [(row["record_number"], row["prompt"][0]["content"]) for row in result.judgments] == [
        (1, "p0"),
        (2, "p1"),
        (3, "p2"),
    ]


@pytest.mark.parametrize("title", ["Batch 12,,", "Batch 12"])
@pytest.mark.parametrize(
    ("rows", "kept"), [('"Q1?,Good.,Bad.\nQ2?,Good.,Bad.\n', 0), ('Q1?,Good.,Bad.\n"Q2?,Good.,Bad.\n', 1)]
)
def test_a_title_is_told_in_a_very_short_file_with_an_open_quote(read, title, rows, kept):
    result = read({"short.csv": f"{title}\nprompt,chosen,rejected\n{rows}"})
    assert [row["prompt"][0]["content"] for row in result.judgments] == ["Q1?"][:kept]
    assert [row["reason"] for row in result.rejected] == ["above_header", "invalid_csv"]
    if not kept:
        assert result.rejected[1]["detail"].endswith("; 1 line after it is given up with it")
