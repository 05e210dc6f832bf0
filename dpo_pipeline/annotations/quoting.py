"""What a record that cannot be used may quote: the ids and texts that stand in it, however it is shaped.

Such a record has no prompt and no responses by which a forgotten text could be known, but an excerpt of it is kept. So
the beginning of each forgotten text is looked for in everything it says.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from dpo_pipeline.annotations.forgotten import plain

OPENING_WORDS = 6
LEAST_WORDS = 3
"""Shorter texts ("Yes.") stand in too many records to tell anything."""
MOST_WORDS = 2_000
"""Words of one text looked through: far more than an excerpt shows."""


def leaves_of(raw: Any) -> list[str] | None:
    """Every text and whole number in a record as it came, however deep; None where it cannot be read."""
    if isinstance(raw, (bytes, bytearray)):
        raw = raw.decode("utf-8", "replace")
    if isinstance(raw, str):
        try:
            raw = _decoded(raw)
        except (ValueError, RecursionError):
            return None
    return list(_leaves(raw))


def _decoded(text: str) -> Any:
    """One piece of JSON, or one a line where several rows are one record."""
    try:
        return json.loads(text)
    except ValueError:
        lines = text.splitlines()
        if len(lines) < 2:
            raise
        return [json.loads(line) for line in lines]


def _leaves(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, (list, tuple)):
            waiting += one
        elif isinstance(one, str) or type(one) is int:
            yield str(one).strip()


def openings_of(texts: Iterable[str], key: bytes) -> set[str]:
    """Keyed digests of how each text begins, those left out that are too short to tell anything."""
    openings = (plain(text).split()[:OPENING_WORDS] for text in texts)
    return {_digest(words, key) for words in openings if len(words) >= LEAST_WORDS}


def quotes(leaves: Iterable[str], openings: frozenset[str], key: bytes) -> bool:
    """Whether one of these texts holds, anywhere in it, a text that begins like one of those.

    >>> meant = frozenset(openings_of(["How do I boil an egg?"], b"key"))
    >>> quotes(["Human: how do I  BOIL an egg? And for how long?"], meant, b"key"), quotes(["How?"], meant, b"key")
    (True, False)
    """
    for leaf in leaves:
        words = plain(leaf).split()[:MOST_WORDS]
        for start in range(len(words) - LEAST_WORDS + 1):
            for size in range(LEAST_WORDS, min(OPENING_WORDS, len(words) - start) + 1):
                if _digest(words[start : start + size], key) in openings:
                    return True
    return False


def _digest(words: list[str], key: bytes) -> str:
    said = " ".join(words).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(said, digest_size=8, key=key, person=b"forgotten words").hexdigest()
