"""Text files that are not UTF-8: read as what `drop.yaml` states or a byte order mark shows; else a guess for people.

Nothing but a byte order mark is believed without being stated: other encodings look alike, and a wrong one would put
wrong letters into the training text without a trace.
"""

import codecs
from collections.abc import Callable

from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable
from dpo_pipeline.annotations.streams import Bounded, Peeked

ENCODINGS = (
    *("utf-8", "utf-16", "utf-16-le", "utf-16-be"),
    *(f"cp125{number}" for number in range(9)),
    *(f"iso-8859-{number}" for number in (*range(1, 12), *range(13, 17))),
    *("latin-1", "mac-roman", "koi8-r", "koi8-u", "cp437", "cp850", "cp874"),
    *("cp932", "shift_jis", "euc-jp", "gb18030", "gbk", "big5", "cp949", "euc-kr"),
)
"""What `encoding` in `drop.yaml` may be."""

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_WRONG_BYTES = "dpo_pipeline.annotations.wrong_bytes"
# What is no character of the stated encoding becomes a byte that is no UTF-8, so it costs its own record only.
codecs.register_error(_WRONG_BYTES, lambda error: ("\udc80", getattr(error, "end", 0)))


class _Transcoded(Bounded):
    """A stream in another encoding, as UTF-8."""

    def __init__(self, stream: Bounded, encoding: str) -> None:
        self._inner = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors=_WRONG_BYTES)
        self._ready, self._is_over = b"", False

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes of UTF-8; none at the end.

        Raises:
            Unusable: If the stream is broken or over a bound.
        """
        most = size if size >= 0 else 1 << 20
        while not self._ready and not self._is_over:
            block = self._inner.read(most)
            self._is_over = not block
            self._ready = self._decoder.decode(block, final=self._is_over).encode("utf-8", "surrogateescape")
        given, self._ready = self._ready[:most], self._ready[most:]
        return given


def as_utf8(stream: Bounded, encoding: str | None) -> Bounded:
    """The stream, from the encoding its byte order mark shows or else the one stated, as UTF-8."""
    peeked = Peeked(stream)
    head = peeked.head(4)
    shown = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    encoding = shown or encoding or "utf-8"
    return peeked if encoding == "utf-8" else _Transcoded(peeked, encoding)


def not_utf8(what: str, raw: bytes) -> Unusable:
    """Why something cannot be read, and what to do.

    >>> print(not_utf8("a cell", "café".encode("cp1252")).detail)
    a cell is not UTF-8: byte 0xe9 would be 'é' in cp1252; save the file as UTF-8 or state its encoding in drop.yaml

    Args:
        what: What it is.
        raw: Its bytes, some of which are no UTF-8.
    """
    do = "save the file as UTF-8 or state its encoding in drop.yaml"
    guess = guess_encoding(raw)
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        likely = "" if guess is None else f" would be {raw[error.start :].decode(guess, 'replace')[:1]!r} in {guess}"
        found = f"byte 0x{raw[error.start]:02x}{likely or ' is none'}"
    else:
        found = f"it looks like {guess}"
    return Unusable(Reason.INVALID_UTF8, f"{what} is not UTF-8: {found}; {do}")


def guess_encoding(raw: bytes) -> str | None:
    """What bytes that are no UTF-8 may be, judged by whether they spell usual letters; None where nothing fits.

    >>> guess_encoding("größer".encode("cp1252")), guess_encoding("лучше".encode("cp1251")), guess_encoding(b"a")
    ('cp1252', 'cp1251', None)
    """
    if raw.count(0) * 3 > len(raw):
        return "utf-16-le" if raw[1:2] == b"\0" else "utf-16-be"
    for encoding, is_usual in _GUESSES:
        try:
            letters = [letter for letter in raw.decode(encoding) if not letter.isascii()]
        except UnicodeDecodeError:
            continue
        if letters and sum(map(is_usual, letters)) >= 0.9 * len(letters):
            return encoding
    return None


def _among(letters: str) -> Callable[[str], bool]:
    return frozenset(letters).__contains__


def _between(*ranges: tuple[str, str]) -> Callable[[str], bool]:
    return lambda letter: any(first <= letter <= last for first, last in ranges)


_QUOTES = "’‘“”„–—…•€£°«»§ \u00a0"
_WESTERN = "äöüßéèêëàâáãåæçïîíñóôòõøœùûúÄÖÜÉÈÀÇÑÅÆØ¿¡" + _QUOTES
_CENTRAL = "ąćęłńśźżčďěňřšťůžőűáéíóúýäöüăâîșțĄĆĘŁŃŚŹŻČŘŠŽÁÉÍÓÚÖÜ" + _QUOTES
_GUESSES = (
    ("cp1252", _among(_WESTERN)),
    ("cp1250", _among(_CENTRAL)),
    ("mac-roman", _among(_WESTERN)),
    ("cp1251", _between(("А", "я"), ("ё", "ё"), ("«", "»"), ("–", "…"))),
    ("cp932", _between(("ぁ", "ヿ"), ("一", "龥"), ("、", "」"), ("！", "～"))),
    ("euc-kr", _between(("가", "힣"))),
    ("gb18030", _between(("一", "龥"), ("、", "」"), ("！", "～"), ("‘", "”"))),
)
"""Tried in this order, with what is usual in the language each is used for."""
