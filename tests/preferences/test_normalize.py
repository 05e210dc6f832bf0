"""What makes two texts the same, and what training text keeps."""

import hashlib
import sys
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.core.tables import MESSAGES
from dpo_pipeline.preferences.identifiers import from_binary, from_hex, to_binary, to_hex, unique
from dpo_pipeline.preferences.normalize import normalise, prompt_keys, render, text_keys, training_text

EVERY_CHARACTER = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]


def strings(texts):
    return pa.array(texts, pa.string())


@pytest.mark.parametrize(("before", "after"), [("", ""), ("a", "\u0301")])
def test_normalise_is_idempotent_for_every_character(before, after):
    once = normalise(strings([before + character + after for character in EVERY_CHARACTER]))
    assert normalise(once).equals(once)


@given(st.lists(st.text(max_size=30), max_size=5))
def test_normalise_is_idempotent(texts):
    once = normalise(strings(texts))
    assert normalise(once).equals(once)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=8))
def test_a_text_normalises_the_same_alone_and_in_company(texts):
    together = normalise(strings(texts)).to_pylist()
    assert together == [normalise(strings([text]))[0].as_py() for text in texts]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Don’t “quote” me", 'DON\'T "QUOTE" ME'),
        ("two  spaces\r\n\tand lines ", "two spaces and lines"),
        ("caf\u00e9", "cafe\u0301"),
        ("ﬁne １２３", "fine 123"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("a\u00a0b\u2028c", "a b c"),
        ("STRASSE", "strasse"),
    ],
)
def test_spellings_of_one_text_have_one_key(one, other):
    assert (text_keys(strings([one])) == text_keys(strings([other]))).all()


@pytest.mark.parametrize(("one", "other"), [("yes", "no"), ("a b", "ab"), ("x²y", "xy"), ("1.5", "15")])
def test_different_texts_have_different_keys(one, other):
    assert (text_keys(strings([one])) != text_keys(strings([other]))).any()


@pytest.mark.parametrize(("before", "after"), [("", ""), ("a", "b"), ("", "\u0301")])
def test_training_text_is_nfc_for_every_character(before, after):
    """Arrow's own NFC does not compose; this one must agree with Python's."""
    texts = [before + character + after for character in EVERY_CHARACTER]
    expected = strings([unicodedata.normalize("NFC", text) for text in texts])
    import pyarrow.compute as pc

    assert training_text(strings(texts)).equals(pc.utf8_trim_whitespace(expected))


def test_training_text_keeps_its_characters():
    text = "Solve x² ≤ ½ “now”:\r\n\r\n```py\r\n\tprint('ﬁ')\r\n```\r\n"
    assert training_text(strings([text])).to_pylist() == ["Solve x² ≤ ½ “now”:\n\n```py\n\tprint('ﬁ')\n```"]


def prompts(*conversations):
    return pa.array([[{"role": role, "content": text} for role, text in turns] for turns in conversations], MESSAGES)


def test_prompts_differ_by_roles_and_by_where_turns_end():
    keys = prompt_keys(
        prompts(
            [("user", "a"), ("assistant", "b"), ("user", "c")],
            [("user", "a"), ("user", "b"), ("user", "c")],
            [("user", "a b"), ("user", "c")],
            [("user", "a\x1euser\x1fb"), ("user", "c")],
            [("system", "a"), ("user", "c")],
            [],
        )
    )
    assert len(unique(keys)[0]) == 6
    same = prompt_keys(prompts([("user", "Hello\r\n THERE")], [("user", "hello there")]))
    assert (same[0] == same[1]).all()


def test_render_keeps_only_the_roles_asked_for_also_in_a_slice():
    some = prompts([("system", "s"), ("user", "a")], [("user", "b"), ("assistant", "c")], [("system", "t")]).slice(1)
    assert render(some, roles=("user", "assistant"), with_roles=False).to_pylist() == ["b\x1ec", ""]


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=20))
def test_identifiers_survive_arrow_and_hexadecimal(blobs):
    array = pa.array(blobs, pa.binary(16))
    ids = from_binary(array) if blobs else np.zeros((0, 2), np.uint64)
    assert to_binary(ids).to_pylist() == blobs
    assert to_hex(ids).to_pylist() == [blob.hex() for blob in blobs]
    assert (from_hex(to_hex(ids)) == ids).all()
    distinct, first, place = unique(ids)
    assert to_binary(distinct).to_pylist() == sorted(set(blobs))
    assert [blobs[at] for at in first] == sorted(set(blobs))
    assert (distinct[place] == ids).all()


def test_from_hex_refuses_anything_else():
    with pytest.raises(ValueError, match="32 hexadecimal"):
        from_hex(pa.array(["abc"]))


def test_keys_are_pinned():
    """Keys are stored in artifacts: a change here is a change of every table."""
    assert to_hex(text_keys(strings(["Hello, World!"]))).to_pylist() == [
        hashlib.blake2b(b"hello, world!", digest_size=16).hexdigest()
    ]
