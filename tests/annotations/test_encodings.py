"""Files that are not UTF-8: read where a byte order mark or drop.yaml tells how, else refused with what to do."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.annotations.checking import check_drop
from dpo_pipeline.annotations.encodings import ENCODINGS, as_utf8, guess_encoding
from dpo_pipeline.annotations.findings import drop_yaml_of, findings_as_text, proposals_of
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.streams import Bounded
from dpo_pipeline.core.errors import SettingsError

ROWS = [("Wie heißt er?", "Er heißt Jürgen.", "Weiß nicht."), ("Wo ist es?", "Bei Köln.", "Weg.")]
SHEET = "\r\n".join(";".join(row) for row in (("prompt", "chosen", "rejected"), *ROWS)) + "\r\n"
LINES = "\n".join(
    json.dumps(dict(zip(("prompt", "chosen", "rejected"), row, strict=True)), ensure_ascii=False) for row in ROWS
)


def rows_of(result):
    return [(row["prompt"][0]["content"], row["response_a"], row["response_b"]) for row in result.judgments]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16-le", "utf-16-be", "mac-roman", "CP1252"])
@pytest.mark.parametrize(
    ("name", "text"),
    [("export.csv", SHEET), ("export.jsonl", LINES), ("export.json", f"[{LINES.replace(chr(10), ',')}]")],
)
def test_a_stated_encoding_is_read(read, encoding, name, text):
    result = read({name: text.encode(encoding), "drop.yaml": f"encoding: {encoding}\n"})
    assert rows_of(result) == ROWS
    assert result.rejected == []


@pytest.mark.parametrize("name", ["export.csv", "export.tsv", "export.jsonl"])
@pytest.mark.parametrize("stated", ["", "encoding: cp1252\n"])
def test_a_byte_order_mark_is_believed_before_what_is_stated(read, name, stated):
    """Excel's "Unicode Text" is UTF-16 with tabs; a mark cannot be mistaken."""
    text = LINES if name.endswith("jsonl") else SHEET.replace(";", "\t" if name.endswith("tsv") else ";")
    for encoding in ("utf-16", "utf-8-sig"):
        assert rows_of(read({name: text.encode(encoding), "drop.yaml": stated})) == ROWS


def test_a_row_that_is_not_utf_8_costs_itself_and_says_what_to_do(read):
    plain = SHEET.replace("Bei Köln", "Bei Bonn").encode("cp1252")
    result = read({"export.csv": plain, "more.jsonl": LINES.encode("cp1252")})
    advice = "save the file as UTF-8 or state its encoding in drop.yaml"
    assert [(row["file"], row["record_number"], row["detail"]) for row in result.rejected] == [
        ("export.csv", 1, f"a cell is not UTF-8: byte 0xdf would be 'ß' in cp1252; {advice}"),
        ("more.jsonl", 1, f"the record is not UTF-8: byte 0xdf would be 'ß' in cp1252; {advice}"),
        ("more.jsonl", 2, f"the record is not UTF-8: byte 0xf6 would be 'ö' in cp1252; {advice}"),
    ]
    assert len(result.judgments) == 1


def test_what_is_no_character_of_the_stated_encoding_costs_its_row(read):
    sheet = SHEET.encode("cp1252") + b"a\x81;b;c\r\n"  # 0x81 means nothing in cp1252
    result = read({"export.csv": sheet, "drop.yaml": "encoding: cp1252\n"})
    assert [(row["record_number"], row["reason"]) for row in result.rejected] == [(3, "invalid_utf8")]
    assert len(result.judgments) == 2


def test_drop_check_proposes_the_encoding_beside_the_mapping(tmp_path):
    rows = ["Frage;Antwort A;Antwort B;Besser", "Wie heißt er?;Er heißt Jürgen.;Ich weiß es nicht.;A"]
    rows.append("Wo liegt Köln?;Am schönen Rhein.;Ich weiß es nicht.;B")
    (tmp_path / "vendor.csv").write_bytes("\r\n".join(rows).encode("cp1252"))
    findings = check_drop(tmp_path, AnnotationSettings())
    (proposal,) = proposals_of(findings)
    assert proposal["encoding"] == "cp1252"
    assert proposal["mapping"]["response_a"] == "Antwort A"
    assert "encoding: cp1252" in findings_as_text(findings)


def test_drop_check_proposes_the_encoding_alone_where_the_format_is_known(tmp_path, read):
    drop = tmp_path / "drop"
    drop.mkdir()
    (drop / "export.csv").write_bytes(SHEET.encode("cp1252"))
    text = drop_yaml_of(proposals_of(check_drop(drop, AnnotationSettings())))
    assert text == (
        "files:\n"
        "  # Is it cp1252? Look at a few letters in the tables: nothing else tells.\n"
        "  - {match: export.csv, encoding: cp1252}\n"
    )
    assert rows_of(read({"export.csv": SHEET.encode("cp1252"), "drop.yaml": text})) == ROWS
    (drop / "drop.yaml").write_text(text)
    assert proposals_of(check_drop(drop, AnnotationSettings())) == []


def test_an_encoding_nobody_reads_is_refused(read):
    with pytest.raises(SettingsError, match="'rot13' is not read; known are utf-8, utf-16"):
        read({"export.csv": SHEET, "drop.yaml": "encoding: rot13\n"})


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("naïve, “quoted” – größer, œuvre, €5", "cp1252"),
        ("zażółć gęślą jaźń", "cp1250"),
        ("Который ответ лучше?", "cp1251"),
        ("どちらの回答が良いですか。", "cp932"),
        ("어느 답변이 더 좋습니까", "euc-kr"),
        ("哪个回答更好？", "gb18030"),
        ("Which is better? größer", "utf-16-le"),
    ],
)
def test_an_encoding_is_guessed_by_usual_letters(text, encoding):
    assert guess_encoding(text.encode(encoding)) == encoding


@given(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters='\0\r\n",;|\t\ufeff'), min_size=1),
    st.sampled_from(ENCODINGS),
)
def test_every_encoding_that_may_be_stated_gives_back_the_text(text, encoding):
    """Law: what can be written in an encoding is read as it was, whatever the size of the pieces."""
    try:
        raw = text.encode(encoding)
    except UnicodeEncodeError:
        return
    if raw.decode(encoding, "replace") != text:
        return
    if raw.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")) and encoding != "utf-16":
        return  # it would be taken for a byte order mark
    stream = as_utf8(Bounded(io.BytesIO(raw), AnnotationSettings(), None), encoding)
    assert b"".join(iter(lambda: stream.read(3), b"")).decode() == text
