"""One piece of JSON as an object, or the reason why it is none: strict where common decoders are lenient.

Twice the same key (a forged annotator), NaN, lone surrogates, NUL characters and bytes that are no UTF-8 are refused.
"""

import json
import re
from typing import Any

import msgspec

from dpo_pipeline.annotations.encodings import not_utf8
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable, kind_of

BOM = b"\xef\xbb\xbf"

_BEFORE_COLON = frozenset(b'" \t\r\n')
_DECODE = msgspec.json.Decoder().decode
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_NUMBERS = re.compile(rb"\b(NaN|Infinity)\b")


def decode(raw: bytes) -> Any:
    """The object a piece of JSON holds, or the `Unusable` that says why it does not hold exactly one.

    >>> decode(b'{"a": 1, "b": [2]}')
    {'a': 1, 'b': [2]}
    >>> decode(b'{"annotator": "x", "annotator": "y"}').reason.value
    'duplicate_key'
    """
    try:
        value = _DECODE(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _why_not(raw, error)
    if type(value) is not dict:
        return Unusable(Reason.NOT_AN_OBJECT, f"the record is {kind_of(value)}")
    # As many colons that may follow a key as decoded keys prove that none was given twice.
    colons = _colon_count(raw)
    if colons != len(value) and colons != _key_count(value) and (problem := _repeated_key(raw)) is not None:
        return problem
    if b"\\" in raw and b"\\u0000" in raw and _holds_nul(value):
        return Unusable(Reason.NUL_CHARACTER, "a text holds \\u0000")
    return value


def _colon_count(raw: bytes) -> int:
    """How many colons follow a quote or white space, as that of a key does."""
    count, at = 0, raw.find(b":")
    while at >= 0:
        count += raw[at - 1] in _BEFORE_COLON
        at = raw.find(b":", at + 1)
    return count


def _key_count(value: Any) -> int:
    count = 0
    if type(value) is dict:
        count = len(value)
        value = value.values()
    for item in value:
        kind = type(item)
        if kind is dict or kind is list:
            count += _key_count(item)
    return count


def _repeated_key(raw: bytes) -> Unusable | None:
    """The reason why a record with more colons than keys is unusable; None where they stand in its texts.

    A decoder that sees every key settles it, at ten times the price.
    """
    try:
        json.loads(raw, object_pairs_hook=_refuse_repeated)
    except _RepeatedKey as repeated:
        return Unusable(Reason.DUPLICATE_KEY, f"the key {str(repeated)[:60]!r} stands there twice")
    except RecursionError:
        return Unusable(Reason.TOO_DEEP, "nested too deeply to be checked")
    return None


class _RepeatedKey(Exception):  # noqa: N818 (control flow inside this module)
    pass


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise _RepeatedKey(key)
        seen.add(key)


def _holds_nul(value: Any) -> bool:
    if type(value) is str:
        return "\0" in value
    if type(value) is dict:
        return any("\0" in key for key in value) or any(_holds_nul(item) for item in value.values())
    return type(value) is list and any(_holds_nul(item) for item in value)


def _why_not(raw: bytes, error: Exception) -> Unusable:
    """The most telling reason why a piece of JSON was refused."""
    if isinstance(error, RecursionError):
        return Unusable(Reason.TOO_DEEP, "nested too deeply")
    if not _is_utf8(raw):
        return not_utf8("the record", raw)
    signs = (
        (raw.startswith(BOM), Reason.BYTE_ORDER_MARK, "the record starts with a byte order mark"),
        (b"\0" in raw, Reason.NUL_CHARACTER, "the record holds a NUL byte"),
        ("out of range" in str(error), Reason.NOT_A_NUMBER, "a number is too large"),
        (_NOT_NUMBERS.search(raw) is not None, Reason.NOT_A_NUMBER, "NaN and infinities are no JSON"),
        (_SURROGATE.search(raw) and _has_lone_surrogate(raw), Reason.LONE_SURROGATE, "half of a surrogate pair"),
    )
    for is_so, reason, detail in signs:
        if is_so:
            return Unusable(reason, detail)
    return Unusable(Reason.INVALID_JSON, str(error)[:120])


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _has_lone_surrogate(raw: bytes) -> bool:
    """Whether the JSON would be sound but for a lone surrogate, which Python's own decoder lets through."""
    try:
        json.dumps(json.loads(raw), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False
