"""Cutting a stream into records: the same cuts whatever the size of the blocks, and a broken element costs itself."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.annotations.decoding import decode
from dpo_pipeline.annotations.json_records import read_json_lines, read_json_values
from dpo_pipeline.annotations.reading import _json_entries
from dpo_pipeline.annotations.records import Unusable
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.streams import Bounded

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab":{}[]\\é', max_size=4), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.lists(st.dictionaries(st.text('kl":,{', max_size=3), JSON, max_size=4), max_size=6)
NO_NUL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)


class InBlocks(Bounded):
    """Hands out the content in blocks of a given size."""

    def __init__(self, content, size):
        super().__init__(io.BytesIO(content), AnnotationSettings(), None)
        self._size = size

    def read(self, size=-1):
        return super().read(min(self._size, size if size >= 0 else self._size))


def values(reader, content, size, limit=100_000):
    return [
        value.reason.value if isinstance(value, Unusable) else value
        for _, value, _ in reader(InBlocks(content, size), max_record_bytes=limit)
    ]


@given(OBJECTS, st.integers(1, 40), st.sampled_from([None, 1, 4]))
def test_array_elements_come_out_as_they_went_in(objects, size, indent):
    assert values(read_json_values, json.dumps(objects, indent=indent).encode(), size) == objects


@given(OBJECTS, st.integers(1, 40), st.booleans())
def test_objects_in_a_row_come_out_as_they_went_in(objects, size, ascii_only):
    content = "\n".join(json.dumps(one, indent=2, ensure_ascii=ascii_only) for one in objects).encode()
    assert values(read_json_values, content, size) == objects


@given(OBJECTS, st.integers(1, 40), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_lines_come_out_as_they_went_in(objects, size, end):
    content = end.join(json.dumps(one) for one in objects).encode()
    assert values(read_json_lines, content, size) == objects


@given(st.binary(max_size=300) | st.text('{}[]",:\\ \nab1', max_size=120).map(str.encode), st.integers(1, 30))
def test_no_bytes_raise_and_blocks_do_not_matter(content, size):
    for reader in (read_json_lines, read_json_values):
        assert values(reader, content, size, limit=50) == values(reader, content, 1 << 20, limit=50) or size < 64
        values(reader, content, size)


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'[{"a": 1}, {"b": }, {"c": 3}]', [{"a": 1}, "invalid_json", {"c": 3}]),
        (b'[{"a": 1}\n{"b": "x}\n, {"c": 3}]', [{"a": 1}, "invalid_json", {"c": 3}]),
        (b'[{"a": [1, {"b": 2}, {"c": 3}]', ["truncated_file"]),
        (b'[{"a": 1}, {"b": [2}, {"c": 3}]', [{"a": 1}, "invalid_json", {"c": 3}]),
        (b'[{"a": 1}, 7, {"c": 3}, x]', [{"a": 1}, "invalid_json", {"c": 3}, "invalid_json"]),
        (b'[{"a": 1}] {"b": 2} x', [{"a": 1}, {"b": 2}, "invalid_json"]),
        (b'[{"a": 1}, {"b": "', [{"a": 1}, "truncated_file"]),
        (b'[{"a": 1},', [{"a": 1}, "truncated_file"]),
        (b"[1, 2]", ["invalid_json"]),
        (b"[[1], {}]", ["not_an_object", {}]),
        (b"null", ["invalid_json"]),
        (b"[]", []),
    ],
)
def test_broken_arrays(content, expected, size):
    assert values(read_json_values, content, size) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a": 1,\n "b": 2}', [{"a": 1, "b": 2}]),
        (b'{\n "a": 1\n}\n{\n "a": 2\n}', [{"a": 1}, {"a": 2}]),
        (b'{"a": 1,\n{"a": 2}\n', ["invalid_json", {"a": 2}]),
        (b'{"a": 1, {\n{"a": 2}\n{"a": 3}', ["invalid_json", {"a": 2}, {"a": 3}]),
        (b'{"a": 1}\n{"a": 2}', [{"a": 1}, {"a": 2}]),
        (b'\n [{"a": 1}]', [{"a": 1}]),
    ],
)
def test_lines_and_spread_objects_are_told_apart(content, expected):
    def read(stream, max_record_bytes):
        return _json_entries(stream, max_record_bytes)

    assert values(read, content, 1 << 20) == expected


@given(st.dictionaries(NO_NUL, JSON, max_size=5), st.integers(0, 5), st.booleans(), st.booleans())
def test_a_repeated_key_is_found_wherever_it_stands(record, place, spaced, nested):
    record = {**record, "key": 1}
    inner = json.dumps(record)
    forged = inner[:-1] + ', "\\u006bey"' + (" \t:" if spaced else ":") + " 2}"
    content = f'{{"list": [{forged}], "t": ": : :"}}' if nested else forged
    assert decode(content.encode()).reason.value == "duplicate_key"
    assert decode(inner.encode()) == record


RECORDS = [{"prompt": f"Is it {number}?", "chosen": f"Yes, {number}.", "rejected": "No."} for number in range(3)]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda records: {"data": records},
        lambda records: {"version": "1.0", "count": 3, "ok": True, "rows": records},
        lambda records: {"results": records, "meta": {"pages": [1, 2]}, "next": "]}"},
    ],
)
def test_an_object_around_all_records_is_read_like_the_array_in_it(read, wrap, indent):
    result = read(
        {"export.json": json.dumps(wrap(RECORDS), indent=indent), "bom.json": "\ufeff" + json.dumps(wrap(RECORDS))}
    )
    assert [(row["file"], row["record_number"]) for row in result.judgments] == [
        (name, number) for name in ("bom.json", "export.json") for number in (1, 2, 3)
    ]
    assert result.rejected == []


def test_a_wrapped_array_larger_than_a_record_may_be_is_read(read):
    records = [{"prompt": f"{number} " + "x" * 300, "chosen": "a", "rejected": "b"} for number in range(50)]
    content = json.dumps({"data": records, "total": 50})
    result = read({"export.json": content}, settings=AnnotationSettings(max_record_bytes=1_000))
    assert len(result.judgments) == 50
    assert result.rejected == []


def test_lines_and_records_with_lists_are_no_wrappers(read):
    """One object a line stays one record a line, whatever its lists are called."""
    line = {"data": [{"x": 1}], **RECORDS[0]}
    lines = "\n".join(json.dumps(line | {"prompt": f"Is it {number}?"}) for number in range(2))
    messages = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    result = read({"lines.jsonl": lines, "one.json": json.dumps(messages, indent=2)})
    assert [row["record_number"] for row in result.judgments] == [1, 2]
    assert len(result.demonstrations) == 1


def test_a_wrapped_array_that_is_never_closed_says_so(read):
    content = json.dumps({"data": RECORDS})
    result = read({"export.json": content[: content.rindex("]")]})
    assert [row["reason"] for row in result.rejected] == ["truncated_file"]
    assert len(result.judgments) == 3


@pytest.mark.parametrize(
    ("behind", "reason", "detail"),
    [
        ("]}", None, None),
        ('], "authors": [{"name": "]"}]}\n', None, None),
        (']}\n{\n "data": [{"a": 1}]}', "invalid_json", "more stands behind"),
        ("]} and more", "invalid_json", "more stands behind"),
        ('], "n": 2, "examples" : [{"a": 1}]}', "invalid_json", "a second list of records"),
        ('], "n": [1, 2]', "truncated_file", "the object around the records is never closed"),
    ],
)
def test_what_is_not_read_behind_a_wrapped_array_is_said(read, behind, reason, detail):
    """Pages of an API put one behind the other, or two lists in one object, never lose a record in silence."""
    inner = json.dumps({"data": RECORDS}, indent=1).rpartition("]")[0]
    result = read({"export.json": inner + behind})
    assert [row["record_number"] for row in result.judgments] == [1, 2, 3]
    found = [(row["record_number"], row["reason"], row["detail"][: len(detail or "")]) for row in result.rejected]
    assert found == ([] if reason is None else [(4, reason, detail)])
