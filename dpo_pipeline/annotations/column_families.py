"""Columns that differ only in which response they are about: response_a / response_b, rank_1 / rank_2 / rank_3."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_BREAK = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TOKEN = re.compile(r"[a-z]+|\d+")
_LABELS = (
    tuple("abcdefgh"),
    tuple("123456789"),
    tuple("012345678"),
    ("left", "right"),
    ("first", "second", "third", "fourth"),
    ("one", "two", "three", "four"),
    ("x", "y", "z"),
)

Family = tuple[str, ...]
"""Columns in the order of their labels."""


def tokens_of(name: str) -> tuple[str, ...]:
    """The words and numbers of a column's name.

    >>> tokens_of("modelResponse 1_text")
    ('model', 'response', '1', 'text')
    """
    return tuple(_TOKEN.findall(_BREAK.sub(" ", name).casefold()))


def families_of(columns: Sequence[str]) -> list[Family]:
    """Every set of two columns or more that are called the same but for a label of one series, from its start.

    >>> families_of(["q", "answer_a", "answer_b", "rank 1", "rank 2", "rank 3"])
    [('answer_a', 'answer_b'), ('rank 1', 'rank 2', 'rank 3')]
    """
    by_tokens = {tokens_of(name): name for name in reversed(columns)}
    found: dict[Family, None] = {}
    for tokens in sorted(by_tokens, key=lambda tokens: columns.index(by_tokens[tokens])):
        for place, token in enumerate(tokens):
            for labels in _LABELS:
                if token == labels[0]:
                    found[_members(tokens, place, labels, by_tokens)] = None
    return [family for family in found if len(family) > 1]


def _members(
    tokens: tuple[str, ...], place: int, labels: Sequence[str], by_tokens: Mapping[tuple[str, ...], str]
) -> Family:
    members = []
    for label in labels:
        name = by_tokens.get((*tokens[:place], label, *tokens[place + 1 :]))
        if name is None:
            break
        members.append(name)
    return tuple(members)


def mean_length(values: Sequence[Any]) -> float:
    """The mean length of the texts among some values."""
    texts = [value for value in values if isinstance(value, str)]
    return sum(map(len, texts)) / len(texts) if texts else 0.0


def are_numbers(values: Sequence[Any]) -> bool:
    """Whether there are values and all are numbers."""
    return bool(values) and all(re.fullmatch(r"-?\d+([.,]\d+)?", str(value).strip()) for value in values)
