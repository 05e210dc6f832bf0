"""What counts as personal data, in every spelling that the normal form sees through, and what does not."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import random
import re
import sys
import unicodedata

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpo_pipeline.preferences import personal_finds
from dpo_pipeline.preferences.normalize import fold, normalise
from dpo_pipeline.preferences.personal_data import LABELS, Suspects, redact
from dpo_pipeline.preferences.personal_finds import PERSONAL_DATA, cuts, is_card, view_of

EVERY = frozenset(PERSONAL_DATA)


def redacted(text, rules=EVERY):
    return redact(pa.array([text]), rules=rules)[0].as_py()


def normal(text):
    return normalise(pa.array([text]))[0].as_py()


PLAIN = {
    "+49 30 12345678": "[PHONE]",
    "+1 (555) 123-4567": "[PHONE]",
    "(555) 123-4567": "[PHONE]",
    "555.123.4567": "[PHONE]",
    "+33 1 23 45 67 89": "[PHONE]",
    "+44 20 7946 0958": "[PHONE]",
    "+7 495 123-45-67": "[PHONE]",
    "+86 138 0013 8000": "[PHONE]",
    "+49 (0) 30 1234567": "[PHONE]",
    "4111 1111 1111 1111": "[CARD]",
    "4111-1111-1111-1111": "[CARD]",
    "5555555555554444": "[CARD]",
    "3782 822463 10005": "[CARD]",
    "3056 930902 5904": "[CARD]",
    "anna.muster@example.org": "[EMAIL]",
}
SPELLINGS = {
    "no-break spaces": str.maketrans(" ", "\u00a0"),
    "thin spaces": str.maketrans(" ", "\u202f"),
    "double spaces": str.maketrans({" ": "  "}),
    "line ends": str.maketrans({" ": "\r\n"}),
    "full width": {code: chr(code + 0xFEE0) for code in range(0x21, 0x7F)} | {0x20: "\u3000"},
    "zero width": {code: f"{chr(code)}\u200b" for code in range(0x21, 0x7F)},
    "soft hyphens": {code: f"{chr(code)}\u00ad" for code in range(0x21, 0x7F)},
    "non-breaking hyphens": str.maketrans("-", "\u2011"),
    "en dashes": str.maketrans("-", "\u2013"),
    "Arabic digits": {0x30 + digit: chr(0x660 + digit) for digit in range(10)},
    "keycaps": {0x30 + digit: f"{digit}\ufe0f\u20e3" for digit in range(10)},
    "capitals": str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("text", "label"), PLAIN.items())
def test_personal_data_are_found_in_every_spelling_of_the_same_and_all_else_is_kept(text, label, spelling):
    spelt = text.translate(SPELLINGS[spelling])
    assert redacted(f"“x²” \u00a0{spelt} — Ｙ.") in {
        f"“x²” \u00a0{label} — Ｙ.",
        f"“x²” \u00a0{label}{spelt[-1]} — Ｙ.",
    }
    (rule,) = (name for name, said in LABELS.items() if said == label)
    assert Suspects(pa.array([f"call {spelt}", "fine"])).found(rule).tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("müller@web.de, é", "[EMAIL], é"),
        ("mu\u0308ller@web.de", "[EMAIL]"),
        ("a@b.org\u0301!", "[EMAIL]!"),
        ("½@b.org", "1⁄[EMAIL]"),
        ("\u202aa@b.org\u202c", "\u202a[EMAIL]\u202c"),
        ("Tel. +49 30 1234567\n2024-05-01: paid", "Tel. [PHONE]\n2024-05-01: paid"),
        ("+1 555 123 4567\n12 apples", "[PHONE]\n12 apples"),
        ("+44 20 7946 0958\n2024-05-01", "[PHONE]\n2024-05-01"),
        ("4111 1111 1111 1111 123", "[CARD] 123"),
        ("Order 2024 4111 1111 1111 1111", "Order 2024 [CARD]"),
        ("4111111111111111,5555555555554444", "[CARD],[CARD]"),
        ("+49 30 1234567\n+49 30 7654321", "[PHONE]\n[PHONE]"),
    ],
)
def test_what_is_taken_out_ends_where_it_ends(text, expected):
    assert redacted(text) == expected


NEGATIVES = [
    "2024-05-01",
    "2024-05-01T12:34:56+00:00",
    "2024-05-01 12:34:56.123456+0200",
    "20240501123456",
    "01.05.2024 12:34",
    "1700000000000",
    "v1.22.333-4444",
    "1.2.3.4.5.6.7.8.9",
    "192.168.100.200",
    "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
    "DE89 3704 0044 0532 0130 00",
    "GB29NWBK60161331926819",
    "ISBN 978-3-16-148410-0",
    "order 4711-2024-0001",
    "0.4111111111111111",
    "3.141592653589793",
    "12345678+87654321=99999999",
    "x = 2 +12 -34",
    "1 2 3 4 5 6 7 8 9 10 11 12",
    "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14",
    "2001\n2002\n2003\n2004\n2005",
    "100 200 300 400 500 600 700",
    "550e8400-e29b-41d4-a716-446655440000",
    "@user said @other",
    "foo@bar",
    "@media (max-width: 1200px)",
    "10:00 - 11:30, 12:00 - 13:30",
    "1,234,567.89 + 2,345,678.90",
    "0x41111111111111111",
    "f(123) + g(456) - 7890",
    "[1] 12 34 56 78 [2]",
    "-1 -2 -3 -4 -5 -6 -7 -8",
    "± 0.5 +0.25 +0.125 +0.0625",
    "12.345.678.901,23",
    "³²²³²¹²³³",
]


@pytest.mark.parametrize("text", NEGATIVES)
@pytest.mark.parametrize("blank", [" ", "\n", "\u00a0"])
def test_figures_and_code_are_not_personal_data(text, blank):
    assert redacted(text.replace(" ", blank)) == text.replace(" ", blank)


def test_few_rows_of_figures_pass_for_cards_by_chance():
    """One checksum in ten is right; one number in two begins like a card. 200 rows of six numbers of four digits."""
    draw = random.Random(7)
    rows = ["\n".join(str(draw.randint(1000, 9999)) for _ in range(6)) for _ in range(200)]
    assert sum(redacted(row) != row for row in rows) <= 20


ALPHABET = st.one_of(
    st.sampled_from(
        list("0123456789+-.()@ab \n\t\u00a0\u200b\u00ad\u0301\u0327\u2011\u2013½⒈ēﬁ＠０９（）＋ำ\u2028¨\u20e3´⑳")
    ),
    st.characters(exclude_categories=["Cs"]),
)
PIECES = st.sampled_from([*PLAIN, *(text.translate(how) for how in SPELLINGS.values() for text in PLAIN)])
TEXTS = st.lists(st.one_of(st.text(ALPHABET, max_size=6), PIECES), max_size=6).map("".join)


@given(TEXTS, st.sets(st.sampled_from(PERSONAL_DATA), min_size=1))
@example("a@b.orgำ", {"email"})
@example("a@b.or\u200bg\u200b\u0301\u0327", {"email"})
@example("+4930123456+4930123456.4111111111111111+4930123456", {"phone", "payment_card"})
def test_redacting_and_normalising_can_be_done_in_either_order_and_twice_is_once(text, rules):
    rules = frozenset(rules)
    once = redacted(text, rules)
    assert normal(once) == normal(redacted(normal(text), rules))
    assert redacted(once, rules) == once


@given(TEXTS)
def test_a_text_has_the_view_of_its_normal_form(text):
    assert re.sub(" +", " ", view_of(text)).strip(" ") == re.sub(" +", " ", view_of(normal(text))).strip(" ")


@given(TEXTS)
def test_whatever_is_found_was_suspected(text):
    found = bool(cuts(view_of(text), EVERY))
    assert not found or Suspects(pa.array([text])).mask[0]


def test_the_classes_of_suspects_hold_every_character_there_is():
    every = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) != "Cs"]
    texts = pa.array(every)
    normal_forms = fold(texts).to_pylist()
    views = ["".join(map(personal_finds._seen, one)) for one in normal_forms]
    matches = {
        name: pc.match_substring_regex(texts, f"^(?s:{getattr(personal_finds, name)})$").to_pylist()
        for name in ("DIGIT", "BETWEEN", "DIGITS")
    }
    for at, view in enumerate(views):
        digits = sum(one in "0123456789" for one in view)
        fraction = re.fullmatch("[0-9]⁄[0-9]?", view) is not None
        if digits:
            assert matches["DIGIT"][at], hex(ord(every[at]))
        if digits > 1 and not fraction:
            assert matches["DIGITS"][at], hex(ord(every[at]))
        if not set(view) - set(" +-.()"):
            assert matches["BETWEEN"][at], hex(ord(every[at]))
        if "@" in view:
            assert every[at] in "@\uff20\ufe6b"


@pytest.mark.parametrize("number", ["5555555555554444", "378282246310005", "6011 1111 1111 1117", "2223003122003222"])
def test_cards_have_an_issuers_digits_and_a_checksum(number):
    assert is_card(number)
    assert not is_card(number[:-1] + str((int(number[-1]) + 1) % 10))
    assert not is_card(f"1{number}")


SLOW = [
    "@" * 20_000,
    "a" * 20_000,
    "+1" * 10_000,
    "1 " * 10_000,
    "+49" + " " * 20_000 + "x",
    "@a" + ".1" * 10_000,
    "+4930123456" * 2_000,
    "(555) " * 4_000,
    "4111 " * 4_000,
]


@pytest.mark.parametrize("text", SLOW, ids=range(len(SLOW)))
def test_long_texts_made_to_be_slow_are_read_through(text):
    """A pattern that reads them again from every place would take minutes: 20,000 squared."""
    assert isinstance(redacted(text), str)
