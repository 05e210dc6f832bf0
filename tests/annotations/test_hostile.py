"""Broken and hostile input: rejected with a reason, never a crash, never silent; the good records around it survive."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile

import pytest
import zstandard

from dpo_pipeline.annotations.settings import AnnotationSettings

GOOD = b'{"prompt": "Say hi.", "chosen": "Hi", "rejected": "No"}'


def reasons(result):
    return [(row["record_number"], row["reason"]) for row in result.rejected]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "caf\xe9", "chosen": "a", "rejected": "b"}', "invalid_utf8"),
        (b'{"prompt": "\xed\xa0\x80", "chosen": "a", "rejected": "b"}', "invalid_utf8"),
        (b'\xef\xbb\xbf{"prompt": "p", "chosen": "a", "rejected": "b"}', "byte_order_mark"),
        (b'{"prompt": "p\\u0000", "chosen": "a", "rejected": "b"}', "nul_character"),
        (b'{"prompt": "p\x00", "chosen": "a", "rejected": "b"}', "nul_character"),
        (b'{"prompt": "p \\ud83d", "chosen": "a", "rejected": "b"}', "lone_surrogate"),
        (b'{"prompt": NaN, "chosen": "a", "rejected": "b"}', "not_a_number"),
        (b'{"prompt": "p", "score": -Infinity, "chosen": "a", "rejected": "b"}', "not_a_number"),
        (b'{"prompt": "p", "score": 1e999, "chosen": "a", "rejected": "b"}', "not_a_number"),
        (b'{"prompt": "p", "prompt": "q", "chosen": "a", "rejected": "b"}', "duplicate_key"),
        (b'{"prompt": "p", "prompt" : "q:", "chosen": "a: b", "rejected": "b"}', "duplicate_key"),
        (b'{"prompt": "p", "chosen": "a", "rejected": "b", "x": [{"k": 1, "\\u006b": 2}]}', "duplicate_key"),
        (b"[" * 100_000, "too_deep"),
        (b'{"prompt": "p", "chosen": "a"', "invalid_json"),
        (b'{"prompt": "p", "chosen": "a", "rejected": "b"} x', "invalid_json"),
        (b"[1, 2]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b'{"prompt": "p", "chosen": "a"}', "missing_field"),
        (b'{"prompt": "p", "chosen": 5, "rejected": "b"}', "wrong_type"),
        (b'{"prompt": "p", "chosen": "\\u200b\\n ", "rejected": "  \\t"}', "empty_response"),
        (b"{}", "missing_field"),
    ],
)
def test_a_bad_line_costs_itself_only(read, line, reason):
    result = read({"export.jsonl": b"\n".join((GOOD, line, GOOD, b"")), "plain.jsonl": b"\n".join((GOOD,) * 2)})
    assert reasons(result) == [(2, reason)]
    assert [row["record_number"] for row in result.judgments] == [1, 3, 1, 2]
    assert result.books.as_dict()["in"] == 5


def test_a_number_too_large_for_a_float_costs_its_record_only(read):
    def asked(score):
        answers = [{"text": "one", "pm_score": score}, {"text": "other", "pm_score": 1}]
        return json.dumps({"question": "Which?", "answers": answers})

    result = read({"export.jsonl": "\n".join([asked(3), asked(10**400), asked(2)])})
    assert reasons(result) == [(2, "unexpected_shape")]
    assert [row["record_number"] for row in result.judgments] == [1, 3]


@pytest.mark.parametrize("text", ["a: b", 'a":b', '": "', "\\", '\\"', "\\u0000", "::", ' :" :', "x\\"])
def test_colons_and_quotes_in_texts_are_no_repeated_keys(read, text):
    record = {"prompt": text, "chosen": f"{text}1", "rejected": f"{text}2", "meta": {"a:b": [{text: 1}]}}
    result = read({"export.jsonl": json.dumps(record) + "\n" + json.dumps(record, separators=(",", ":"))})
    assert reasons(result) == []
    assert result.judgments[0]["prompt"][0]["content"] == text.strip()


def test_a_byte_order_mark_at_the_start_is_fine(read):
    assert len(read({"export.jsonl": b"\xef\xbb\xbf" + GOOD + b"\r\n" + GOOD}).judgments) == 2
    assert len(read({"export.json": b"\xef\xbb\xbf[" + GOOD + b"]"}).judgments) == 1


def test_a_line_over_the_limit_is_skipped_without_being_loaded(read):
    settings = AnnotationSettings(max_record_bytes=1_000)
    long = b'{"prompt": "' + b"x" * 5_000_000 + b'"}'
    result = read({"export.jsonl": b"\n".join((GOOD, long, GOOD, long))}, settings=settings)
    assert reasons(result) == [(2, "record_too_long"), (4, "record_too_long")]
    assert len(result.judgments) == 2
    assert all(len(row["excerpt"]) <= 200 for row in result.rejected)


def test_an_element_over_the_limit_is_skipped_without_being_loaded(read):
    settings = AnnotationSettings(max_record_bytes=1_000)
    long = b'{"prompt": "' + b"x" * 3_000_000 + b'\\"", "more": [' + b"[]," * 1_000_000 + b"{}]}"
    result = read({"export.json": b"[" + b",\n".join((GOOD, long, GOOD)) + b"]"}, settings=settings)
    assert reasons(result) == [(2, "record_too_long")]
    assert [row["record_number"] for row in result.judgments] == [1, 3]


def test_excerpts_are_bounded_escaped_and_name_nobody(read):
    line = b'{"worker_id": "W77", "email": "eve@shop.example", "ip": "x 203.0.113.9", "completed_by": {"id": 5}, "\x07'
    (row,) = read({"export.jsonl": line + b"y" * 1_000}).rejected
    assert len(row["excerpt"]) <= 200
    assert row["excerpt"].startswith('{"worker_id": <removed>, "email": <removed>, "ip": "x <removed>"')
    assert "\\x07" in row["excerpt"]


@pytest.mark.parametrize(
    ("record", "excerpt"),
    [
        ('{"reviewer": "W77", "q": 1}', '{"reviewer": <removed>, "q": 1}'),
        ('{"attempted_by": "W77"}', '{"attempted_by": <removed>}'),
        ('{"completed_by": {"is": {"id": "W77"}, "n": "W77"}, "q": 1}', '{"completed_by": <removed>, "q": 1}'),
        ('{"annotators": [["W77"], ["W}7"], 77]}', '{"annotators": <removed>}'),
        (r'{"meta": "{\"worker_id\": \"W77\"}", "q": 1}', r'{"meta": "{\"worker_id\": <removed>}", "q": 1}'),
        ("{'worker_id': 'W77', 'q': 1}", "{'worker_id': <removed>, 'q': 1}"),
        ('{"worker_id": {"id": "W7', '{"worker_id": <removed>'),
    ],
)
def test_no_id_of_an_annotator_stands_in_an_excerpt_however_it_is_written(read, record, excerpt):
    (row,) = read({"export.jsonl": record.encode()}).rejected
    assert row["excerpt"] == excerpt


COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("ending", COMPRESS)
def test_compressed_files_are_read(read, ending):
    lines = b"\n".join([GOOD] * 3)
    twice = COMPRESS[ending](lines + b"\n") + COMPRESS[ending](GOOD)
    assert len(read({f"export.jsonl{ending}": twice}).judgments) == 4


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_truncated_stream_says_so_and_keeps_what_came_before(read, ending):
    prompts = (os.urandom(300).hex() for _ in range(3_000))
    lines = [json.dumps({"prompt": prompt, "chosen": "a", "rejected": "b"}).encode() for prompt in prompts]
    content = COMPRESS[ending](b"\n".join(lines))
    result = read({f"export.jsonl{ending}": content[: len(content) // 2]})
    assert [row["reason"] for row in result.rejected] == ["truncated_file"]
    assert result.rejected[0]["record_number"] == len(result.judgments) + 1
    assert len(result.judgments) > 100


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_bomb_is_stopped_at_the_ratio(read, ending):
    bomb = COMPRESS[ending](b"[" + b" " * 60_000_000)
    result = read({f"export.json{ending}": bomb, "fine.jsonl": GOOD})
    assert [row["reason"] for row in result.rejected] == ["decompression_bomb"]
    assert len(result.judgments) == 1


def test_a_file_over_the_limit_is_stopped(read):
    lines = b"\n".join([GOOD] * 40_000)
    result = read({"export.jsonl": lines}, settings=AnnotationSettings(max_file_bytes=1_000_000))
    assert [row["reason"] for row in result.rejected] == ["file_too_large"]
    assert len(result.judgments) > 10_000


@pytest.mark.parametrize("ending", [*COMPRESS, ".zip", ".tar.gz", ".xlsx", ".parquet"])
def test_garbage_under_any_ending_is_unreadable(read, ending):
    name = f"export{ending}" if ending in {".zip", ".tar.gz", ".xlsx", ".parquet"} else f"export.jsonl{ending}"
    result = read({name: b"this is not what the name says" * 50})
    assert len(result.rejected) == 1
    assert result.rejected[0]["reason"] in {"unreadable_file", "truncated_file"}


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return stream.getvalue()


def test_zip_members_are_read_by_allow_list(read):
    link = zipfile.ZipInfo("link.jsonl")
    link.external_attr = 0o120777 << 16
    result = read(
        {
            "drop.zip": zipped(
                [
                    ("b/export.jsonl", GOOD),
                    ("a.json", b"[" + GOOD + b"]"),
                    ("packed.jsonl.gz", gzip.compress(GOOD)),
                    ("../../outside.jsonl", GOOD),
                    ("/root.jsonl", GOOD),
                    ("C:\\windows.jsonl", GOOD),
                    (link, "/etc/passwd"),
                    ("run.sh", "rm"),
                    ("inner.zip", zipped([("x.jsonl", GOOD)])),
                ]
            )
        }
    )
    assert [row["file"] for row in result.judgments] == [
        "drop.zip!a.json",
        "drop.zip!b/export.jsonl",
        "drop.zip!packed.jsonl.gz",
    ]
    assert len({row["judgment_id"] for row in result.judgments}) == 3
    assert {(row["file"], row["reason"]) for row in result.rejected} == {
        ("drop.zip!../../outside.jsonl", "unsafe_member"),
        ("drop.zip!/root.jsonl", "unsafe_member"),
        ("drop.zip!C:\\windows.jsonl", "unsafe_member"),
        ("drop.zip!link.jsonl", "unsafe_member"),
        ("drop.zip!run.sh", "unknown_file_type"),
        ("drop.zip!inner.zip", "unknown_file_type"),
    }


def test_a_zip_bomb_is_stopped_at_the_ratio(read):
    result = read({"drop.zip": zipped([("export.jsonl", b" " * 60_000_000), ("fine.jsonl", GOOD)])})
    assert [(row["file"], row["reason"]) for row in result.rejected] == [
        ("drop.zip!export.jsonl", "decompression_bomb")
    ]
    assert len(result.judgments) == 1


def tarred(members, mode="w:gz"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(content), kind, "/etc/passwd"
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(("name", "mode"), [("drop.tar.gz", "w:gz"), ("drop.tgz", "w:gz"), ("drop.tar", "w")])
def test_tar_members_are_read_without_extracting(read, name, mode):
    content = tarred(
        [
            ("a.jsonl", GOOD, tarfile.REGTYPE),
            ("link.jsonl", b"", tarfile.SYMTYPE),
            ("../up.jsonl", GOOD, tarfile.REGTYPE),
            ("device.jsonl", b"", tarfile.CHRTYPE),
            ("b.csv", b"prompt,chosen,rejected\nSay hi.,Hi,No\n", tarfile.REGTYPE),
            ("a.jsonl", GOOD, tarfile.REGTYPE),
        ],
        mode,
    )
    result = read({name: content})
    assert [row["file"] for row in result.judgments] == [f"{name}!a.jsonl", f"{name}!b.csv"]
    assert [row["reason"] for row in result.rejected] == ["unsafe_member"] * 4


def test_a_truncated_tar_says_so(read):
    content = tarred([(f"{n}.jsonl", GOOD * 3 + os.urandom(2_000), tarfile.REGTYPE) for n in range(20)])
    result = read({"drop.tar.gz": content[: len(content) // 2]})
    assert result.rejected[-1]["reason"] in {"truncated_file", "unreadable_file"}
    assert result.books.is_balanced


def test_the_same_file_twice_counts_once(read):
    result = read({"a.jsonl": GOOD, "b.jsonl": GOOD})
    assert [row["file"] for row in result.judgments] == ["a.jsonl"]
    assert [(row["file"], row["reason"]) for row in result.rejected] == [("b.jsonl", "duplicate_file")]


def test_empty_and_foreign_files_are_booked(read):
    header = b"prompt,chosen,rejected\n"
    result = read({"empty.jsonl": b"", "blank.json": b" \n", "array.json": b"[]", "head.csv": header,
                   "no.csv": b"", "README.md": b"# hi", "empty.zip": zipped([])})  # fmt: skip
    assert {(row["file"], row["reason"]) for row in result.rejected} == {
        ("empty.jsonl", "empty_file"),
        ("blank.json", "empty_file"),
        ("array.json", "empty_file"),
        ("head.csv", "empty_file"),
        ("no.csv", "duplicate_file"),
        ("README.md", "unknown_file_type"),
        ("empty.zip", "empty_file"),
    }


def test_files_without_a_known_format_are_rejected_row_by_row(read):
    result = read({"notes.csv": "title,body\nx,y\nz,w\n"})
    assert reasons(result) == [(1, "unknown_format"), (2, "unknown_format")]
    assert result.rejected[0]["detail"] == "the fields are 'title', 'body'"
    assert result.rejected[0]["source"] == "unread"


def test_csv_faults_cost_their_rows_only(read):
    rows = [
        b"prompt,chosen,rejected",
        b'"Say, hi.","Hi\nyou",No',
        b"short,row",
        b"too,many,cells,here",
        b"caf\xe9,a,b",
        b"nul\x00,a,b",
        b"",
        b"=1+1,a,b",
        b'Say ho.,"Ho ""ho""",No',
    ]
    result = read({"export.csv": b"\r\n".join(rows)})
    assert reasons(result) == [
        (2, "wrong_cell_count"),
        (3, "wrong_cell_count"),
        (4, "invalid_utf8"),
        (5, "nul_character"),
    ]
    assert [(row["record_number"], row["response_a"]) for row in result.judgments] == [
        (1, "Hi\nyou"),
        (6, "a"),
        (7, 'Ho "ho"'),
    ]


def test_csv_cells_keep_their_words(read):
    result = read({"export.csv": "prompt,chosen,rejected\n007,N/A,null\n1e5,None,nan\n"})
    assert [row["response_a"] for row in result.judgments] == ["N/A", "None"]
    assert [row["prompt"][0]["content"] for row in result.judgments] == ["007", "1e5"]


def test_a_csv_quote_that_never_ends_is_bounded(read):
    content = b'prompt,chosen,rejected\np,a,"' + b"x,y\n" * 20_000
    result = read({"export.csv": content}, settings=AnnotationSettings(max_record_bytes=10_000))
    [row] = result.rejected
    assert (row["record_number"], row["reason"]) == (1, "record_too_long")
    said = "longer than 10000 characters, from line 2 on; 19,999 lines after it are given up with it"
    assert row["detail"] == said


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_seen_in_the_header(read, delimiter):
    lines = [delimiter.join(row) for row in (("prompt", "chosen", "rejected"), ("p", "a", "b"))]
    assert len(read({"export.csv": "\n".join(lines)}).judgments) == 1


def test_a_header_that_names_a_column_twice_is_refused(read):
    result = read({"export.csv": "prompt,chosen,rejected,annotator,annotator\np,a,b,x,y\n"})
    assert reasons(result) == [(1, "duplicate_key")]


def workbook(sheets):
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def test_xlsx_sheets_are_read_and_formulas_refused(read):
    head = ["prompt", "chosen", "rejected"]
    content = workbook(
        {
            "One": [head, ["Say hi.", "Hi", "No"], ["Sum?", "=1+1", "3"], [None, None, None], ["Six?", 6, "7"]],
            "Two": [head, ["Say ho.", "Ho", "No", "extra"], ["Say hu.", "Hu", "No"]],
            "Empty": [],
        }
    )
    result = read({"book.xlsx": content})
    assert [row["prompt"][0]["content"] for row in result.judgments] == ["Say hi.", "Say hu."]
    assert [(row["file"], row["record_number"], row["reason"]) for row in result.rejected] == [
        ("book.xlsx!One", 2, "formula_cell"),
        ("book.xlsx!One", 3, "wrong_type"),
        ("book.xlsx!Two", 1, "wrong_cell_count"),
        ("book.xlsx!Empty", 0, "empty_file"),
    ]


def test_parquet_rows_are_read(read):
    import pyarrow as pa
    import pyarrow.parquet as pq

    turns = [{"role": "user", "content": "Say hi."}]
    stream = io.BytesIO()
    yes, no = [{"role": "assistant", "content": "Hi"}], [{"role": "assistant", "content": "No"}]
    rows = [{"prompt": turns, "chosen": chosen, "rejected": no} for chosen in (yes, None)]
    pq.write_table(pa.Table.from_pylist(rows), stream)
    result = read({"export.parquet": stream.getvalue(), "drop.zip": zipped([("in.parquet", stream.getvalue())])})
    assert [row["file"] for row in result.judgments] == ["drop.zip!in.parquet", "export.parquet"]
    assert [row["reason"] for row in result.rejected] == ["missing_field", "missing_field"]


def test_strange_file_names_do_no_harm(read, tmp_path):
    result = read({"a\nb.jsonl": GOOD, "caf\udce9.jsonl": GOOD.replace(b"hi", b"ho")})
    assert [row["file"] for row in result.judgments] == ["a\\nb.jsonl", "caf\\xe9.jsonl"]


def test_a_link_in_the_raw_folder_is_booked_not_followed(tmp_path, read_folder):
    files = tmp_path / "raw" / "files"
    files.mkdir(parents=True)
    (files / "passwd.jsonl").symlink_to("/etc/passwd")
    (files / "folder").symlink_to("/etc")
    result = read_folder(files, tmp_path / "out")
    assert [row["reason"] for row in result.rejected] == ["unreadable_file"] * 2


def test_a_csv_row_over_the_limit_is_never_cut_to_a_whole_one(read):
    """A line in pieces once became a row that ended where the first piece did."""
    settings = AnnotationSettings(max_record_bytes=1_000)
    head, good = b"prompt,chosen,rejected\n", b"p,a,b\n"
    long, wide = b"p,a," + b"y" * 50_000 + b"\n", b'p,a,"' + b"y" * 900 + b'\n","' + b"z" * 900 + b'\n"\n'
    result = read(
        {"export.csv": head + good + long + good + wide + good * 2, "end.csv": head + long[:-1]}, settings=settings
    )
    found = [(row["file"], row["record_number"], row["reason"]) for row in result.rejected]
    assert ("end.csv", 1, "record_too_long") in found
    assert ("export.csv", 2, "record_too_long") in found
    assert ("export.csv", 4, "record_too_long") in found
    assert [(row["response_a"], row["record_number"]) for row in result.judgments] == [("a", 1), ("a", 3), ("a", 5)]
    assert all(len(row["excerpt"]) <= 200 for row in result.rejected)


def test_blank_lines_and_a_separator_before_the_header_of_a_csv(read):
    for start in ("\r\n\n", "sep=;\n", '"sep=;"\r\n', "\n\nsep=;\n"):
        assert [
            row["response_b"] for row in read({"e.csv": f"{start}prompt;chosen;rejected\np;a,a;b\n"}).judgments
        ] == ["b"]


@pytest.mark.parametrize("name", ["e.jsonl", "e.json", "e.csv", "e.parquet", "e.jsonl.gz"])
def test_what_stands_in_place_of_a_file_is_named(read, name):
    """What people send without noticing: the pointer of an unfetched file, the page of a login."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 12\n"
    page = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>"
    pack = gzip.compress if name.endswith(".gz") else bytes
    found = read({name: pack(pointer), f"other{name}": pack(page)}).rejected
    assert [row["reason"] for row in found] == ["unreadable_file"] * 2
    assert "git lfs pull" in found[0]["detail"]
    assert "web page" in found[1]["detail"]


def test_hidden_members_of_an_archive_are_booked_as_ignored(read):
    content = zipped(
        [
            ("export.jsonl", GOOD),
            ("__MACOSX/._export.jsonl", b"\0\5\x16\7"),
            (".DS_Store", b"\0"),
            ("a/.b/c.jsonl", GOOD),
        ]
    )
    result = read({"drop.zip": content})
    assert [row["reason"] for row in result.rejected] == ["ignored_file"] * 3
    assert len(result.judgments) == 1


def test_utf_16_without_a_mark_is_named(read):
    (row,) = read({"e.csv": "prompt,chosen,rejected\np,a,b\n".encode("utf-16-le")}).rejected
    assert (row["reason"], row["detail"].split(";")[0]) == (
        "invalid_utf8",
        "the header is not UTF-8: it looks like utf-16-le",
    )
