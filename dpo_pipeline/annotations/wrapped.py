"""A JSON file that is one object around the array of all its records, as exports and pages of an API are."""

import re

from dpo_pipeline.annotations.decoding import decode
from dpo_pipeline.annotations.records import Unusable

UNREAD_BEHIND = "more stands behind the object around the records and is not read: give each object a file of its own"
UNREAD_BESIDE = "a second list of records stands in the object around them and is not read: give it a file of its own"

_NAMES = rb'"(?:data|rows|records|results|items|examples|instances|samples|tasks|pairs|comparisons)"\s*:\s*'
_WRAPPER = re.compile(
    rb'\s*\{\s*(?:"[^"\\]*"\s*:\s*(?:"[^"\\]*"|-?[\d.]+|true|false|null)\s*,\s*)*+' + _NAMES + rb"\[(?=\s*\{)"
)
"""An object whose first list bears one of the names that exports give to all of their records."""
_NAMED = re.compile(_NAMES + rb"\Z")


def wrapper_of(head: bytes) -> int:
    """How many bytes stand before the array of a file that is one object around it; 0 where it is none.

    >>> wrapper_of(b'{"version": 2, "data": [{"id": 1}]}'), wrapper_of(b'{"messages": [{"role": "user"}]}')
    (23, 0)
    """
    found = _WRAPPER.match(head)
    if found is None:
        return 0
    first, _, rest = head.partition(b"\n")
    is_lines = bool(rest.strip()) and not isinstance(decode(first), Unusable)
    return 0 if is_lines else found.end() - 1


def names_records(before: bytes | bytearray) -> bool:
    """Whether what stands before a list ends with a name that exports give to all of their records.

    >>> names_records(b', "rows": '), names_records(b', "authors": ')
    (True, False)
    """
    return _NAMED.search(before) is not None
