"""Where a text holds personal data: looked for in a view of its normal form, answered in places of the text itself.

Prompts are compared by their normal form, so what is personal must be found there: a number with no-break spaces, full
width digits or a zero-width space inside is the same number. The view folds further what the normal form tells apart
(hyphens, digits of other scripts) and leaves out accents and format characters. A line end counts as a space.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate

import pyarrow as pa

from dpo_pipeline.preferences.normalize import fold

FINDS_VERSION = "personal/2"
"""Names what is found; raised whenever a text would be redacted otherwise than before."""
PERSONAL_DATA = ("email", "phone", "payment_card")

# RE2, on a text as it stands: an at sign, or seven digits with nothing but blanks, marks and `+-.()` among them, or a
# character of two digits. Every text in which something can be found matches; a test holds the classes against every
# character there is.
DIGIT = r"[\p{N}\x{32c0}-\x{32cb}\x{3358}-\x{33fe}\x{1ccf0}-\x{1ccf9}]"
BETWEEN = r"(?:[^!-'*,/0-9:-~\p{L}\p{N}]|[\x{37a}\x{fc5e}-\x{fc63}\x{fe70}-\x{fe7e}\x{ff9e}\x{ff9f}])"
DIGITS = (
    r"[\x{2152}\x{2469}-\x{2473}\x{247d}-\x{2487}\x{2491}-\x{249b}\x{3251}-\x{325f}\x{32b1}-\x{32bf}"
    r"\x{32c9}-\x{32cb}\x{3362}-\x{3370}\x{33e9}-\x{33fe}]"
)
SUSPECTS = rf"[@\x{{ff20}}\x{{fe6b}}]|{DIGIT}(?:{BETWEEN}*{DIGIT}){{6}}|{DIGITS}"

DASHES = "\u2010\u2011\u2012\u2013\u2212\u02d7"
LOCAL_PART = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-")
DOMAIN = re.compile(r"@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)*\.[A-Za-z]{2,}")
SEP = r"(?: ++|[.\-])"
PHONE = re.compile(
    rf"\+(?:1{SEP}?(?:\(\d{{3}}\) *+|\d{{3}}{SEP}?)\d{{3}}{SEP}?\d{{4}}"  # +1 555 123 4567
    rf"|\d{{1,3}}{SEP}?(?:\(\d{{1,4}}\){SEP}?)?"
    rf"(?:\d{{6,12}}|\d{{1,5}}{SEP}\d{{5,8}}|\d(?:{SEP}\d\d){{4}}|\d{{2,4}}(?:{SEP}?\d{{2,4}}){{2,4}}))\b"
    r"|(?:\(\d{3}\) *+|\b\d{3}[.\-])\d{3}[.\-]\d{4}\b",
    re.ASCII,
)
LAST_GROUP = re.compile(r"[ .\-]+\d+$", re.ASCII)
MOST_PHONE_DIGITS = 15  # ITU-T E.164
CARD_SEP = r"(?: ++|-)"
CARD = re.compile(  # as printed: in one piece, in fours, or 4-6-5 and 4-6-4
    rf"\b(?=2[2-7]|3[04-9]|[456])(?:\d{{13,19}}|\d{{4}}(?:{CARD_SEP}\d{{4}}){{2}}{CARD_SEP}\d{{1,4}}(?:{CARD_SEP}\d{{1,3}})?"
    rf"|\d{{4}}{CARD_SEP}\d{{6}}{CARD_SEP}\d{{4,5}})\b",
    re.ASCII,
)
# Issuers by first digits and length (ISO/IEC 7812): Visa, Mastercard and Mir, Amex, Diners, JCB, Maestro, UnionPay.
ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5\d{15}|2[2-7]\d{14}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|35\d{14}|6\d{15,18}",
    re.ASCII,
)
BLANK = "\0"
MOST_ROUNDS = 16
"""What is found only beside what is gone is rare; a text made to need more rounds is left as it is after these."""


class _Folded(dict[int, str]):
    """What each character is in the normal form and, by `translate`, in the view; worked out when first met."""

    def __init__(self) -> None:
        super().__init__()
        self.normal: dict[str, str] = {}

    def __missing__(self, code: int) -> str:
        normal = self.normal[chr(code)] = fold(pa.array([chr(code)], pa.string()))[0].as_py()
        self[code] = "".join(map(_seen, normal))
        return self[code]

    def normal_of(self, character: str) -> str:
        """A character as the normal form has it, before white space is put together."""
        if character not in self.normal:
            self[ord(character)] = self.__missing__(ord(character))
        return self.normal[character]


def _seen(normal: str) -> str:
    """A character of the normal form as the view has it: itself, a plain digit, dash or space, or nothing."""
    category = unicodedata.category(normal)
    if category == "Nd":
        return str(unicodedata.decimal(normal))
    if category[0] == "M" or category == "Cf":
        return ""
    return "-" if normal in DASHES else normal


FOLDED = _Folded()


def view_of(text: str) -> str:
    r"""A text as personal data are looked for in it; texts with one normal form have one view but for runs of spaces.

    >>> view_of("+４９\u00a030\n12‑34\u200b56 Mu\u0308ller＠b.org")
    '+49 30 12-3456 muller@b.org'
    """
    return text.translate(FOLDED)


def finds(view: str, rule: str) -> Iterator[tuple[int, int]]:
    """Start and end of everything a rule finds in a view.

    >>> list(finds("a@b.org or +1 (555) 123-4567", "email")), list(finds("a@b.org or +1 (555) 123-4567", "phone"))
    ([(0, 7)], [(11, 28)])
    """
    return {"email": _emails, "phone": _phones, "payment_card": _cards}[rule](view)


def cuts(view: str, rules: frozenset[str]) -> list[tuple[int, int, str]]:
    """Start, end and rule of what is taken out of a view, in order; none touches another.

    E-mail addresses go first, then cards, then phones; and again, until nothing is found beside what is gone, so that
    what was redacted once is redacted.
    """
    found: list[tuple[int, int, str]] = []
    for _ in range(MOST_ROUNDS):
        before = len(found)
        for rule in ("email", "payment_card", "phone"):
            some = list(finds(view, rule)) if rule in rules else []
            view = _blanked(view, some)
            found += [(start, end, rule) for start, end in some]
        if len(found) == before:
            break
    return sorted(found)


def _blanked(view: str, places: list[tuple[int, int]]) -> str:
    parts, last = list[str](), 0
    for start, end in places:
        parts += [view[last:start], BLANK * (end - start)]
        last = end
    return "".join([*parts, view[last:]])


def cut(text: str, rules: frozenset[str], labels: dict[str, str]) -> str:
    r"""A text with what the rules find in its view replaced by labels; all else keeps its characters.

    Accents and marks on the last character go with it. Of a character that is taken apart by the normal form and found
    in part ("½" is three) the rest stays in its normal form.

    >>> cut("“x²”: a\u200b@b.org\u0301, C", frozenset({"email"}), {"email": "[EMAIL]"})
    '“x²”: [EMAIL], C'
    """
    view = view_of(text)
    found = cuts(view, rules)
    if not found:
        return text
    place = _Places(text, view)
    parts, last = list[str](), 0
    for start, end, rule in found:
        start, end = place.first(start), place.past(end)  # noqa: PLW2901
        parts += [place.kept(last, start), labels[rule]]
        last = end
    return "".join([*parts, place.kept(last, place.count)])


class _Places:
    """Positions in a view, and in the normal form of the text that it is a view of.

    Where every character stands for one, which is so in nearly all texts, they are the positions in the text.
    """

    def __init__(self, text: str, view: str) -> None:
        self._text = text
        self._is_plain = len(view) == len(text) and all(map(_is_one, set(text)))
        if self._is_plain:
            self.count = len(text)
            return
        pieces = [FOLDED.normal_of(one) for one in text]
        self._starts = [0, *accumulate(map(len, pieces))]  # of each character of the text in the normal form
        self._normal = "".join(pieces)
        self._shown = [at for at, one in enumerate(self._normal) if _seen(one)]  # of each character of the view
        self.count = len(self._normal)

    def first(self, start: int) -> int:
        """Where what stands at a place in the view begins."""
        return start if self._is_plain else self._shown[start]

    def past(self, end: int) -> int:
        """Where what ends at a place in the view ends, the marks on it included."""
        if self._is_plain:
            return end
        past = self._shown[end - 1] + 1
        until = self._shown[end] if end < len(self._shown) else self.count
        marks = (at + 1 for at in range(past, until) if unicodedata.category(self._normal[at])[0] == "M")
        return max(marks, default=past)

    def kept(self, start: int, end: int) -> str:
        """The text between two places: its own characters, and of those kept in part that part of the normal form."""
        if self._is_plain:
            return self._text[start:end]
        first, last = bisect_left(self._starts, start), bisect_right(self._starts, end) - 1
        if last < first:
            return self._normal[start:end]
        head, tail = self._normal[start : self._starts[first]], self._normal[self._starts[last] : end]
        return f"{head}{self._text[first:last]}{tail}"


def _is_one(character: str) -> bool:
    """Whether a character is one of the view, with any marks after it (those of Thai's U+0E33 stand before)."""
    return len(FOLDED[ord(character)]) == 1 and bool(_seen(FOLDED.normal_of(character)[0]))


def _emails(view: str) -> Iterator[tuple[int, int]]:
    # From the at sign to the left: a pattern that begins with the local part reads long words again and again.
    floor = 0
    for domain in DOMAIN.finditer(view):
        start = domain.start()
        while start > floor and view[start - 1] in LOCAL_PART:
            start -= 1
        if start < domain.start():
            floor = domain.end()
            yield start, floor


def _phones(view: str) -> Iterator[tuple[int, int]]:
    at = 0
    while match := PHONE.search(view, at):
        start, number = match.start(), match[0]
        if number[0] == "+" and start > at and view[start - 1].isdigit():
            at = start + 1  # a sum, not a number to call
            continue
        while _digit_count(number) > MOST_PHONE_DIGITS and (shorter := _without_last_group(number)):
            number = shorter
        at = start + len(number)
        yield start, at


def _cards(view: str) -> Iterator[tuple[int, int]]:
    at = 0
    while match := CARD.search(view, at):
        start, number = match.start(), match[0]
        is_decimal = start - at >= 2 and view[start - 1] == "." and view[start - 2].isdigit()
        while number and not is_card(number):
            number = _without_last_group(number)
        if number and not is_decimal:
            at = start + len(number)
            yield start, at
        else:
            at = match.end()


def is_card(number: str) -> bool:
    """Whether a number's first digits and length are those of payment cards, and its checksum is right (Luhn).

    >>> is_card("4111 1111 1111 1111"), is_card("4111 1111 1111 1112"), is_card("1111 1111 1111 1117")
    (True, False, False)
    """
    digits = "".join(one for one in number if one.isdigit())
    if not ISSUED.fullmatch(digits):
        return False
    values = [int(one) for one in digits]
    return (sum(values[-1::-2]) + sum(sum(divmod(2 * one, 10)) for one in values[-2::-2])) % 10 == 0


def _digit_count(text: Iterable[str]) -> int:
    return sum(one.isdigit() for one in text)


def _without_last_group(number: str) -> str:
    """A number in groups without its last one; empty where it is in one piece."""
    last = LAST_GROUP.search(number)
    return number[: last.start()] if last else ""
