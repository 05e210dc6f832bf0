"""A whole ranking in one cell, `B > A = C`, as one rank per response."""

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable, kind_of, shown

_STEP = re.compile(r"\s*(?:>|≻|,|;|\|)\s*")
_TIE = re.compile(r"\s*[=~≈]\s*")
_TOKEN = re.compile(r"[a-z]+|\d+")


def names_of(columns: Sequence[str]) -> dict[str, int]:
    """What a ranking may call each response: its column, what tells its column from the others, its letter, its number.

    >>> names_of(["response_0", "response_1"])
    {'response_0': 0, '0': 0, 'response_1': 1, '1': 1, 'a': 0, 'b': 1, '2': 1}
    """
    names: dict[str, int] = {}
    tokens = [_TOKEN.findall(column.casefold()) for column in columns]
    shared = set.intersection(*map(set, tokens))
    for place, column in enumerate(columns):
        names.setdefault(column.casefold(), place)
        own = [token for token in tokens[place] if token not in shared]
        if len(own) == 1:
            names.setdefault(own[0], place)
    for start in ("a", "1"):
        for place in range(len(columns)):
            names.setdefault(chr(ord(start) + place) if start == "a" else str(place + 1), place)
    return names


def ranks_of(value: Any, names: dict[str, int], count: int) -> list[float | None]:
    """The rank of each of `count` responses, 1 for the best, None for those the ranking does not name.

    >>> ranks_of("B > A = C", names_of(["answer_a", "answer_b", "answer_c"]), 3)
    [2.0, 1.0, 2.0]

    Raises:
        Unusable: If it is empty, names something else or a response twice.
    """
    if type(value) is str and value.lstrip().startswith(("[", "{")):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Unusable(Reason.UNKNOWN_VERDICT, f"the ranking is {shown(value)}, which is no JSON") from error
    if isinstance(value, dict):
        return _given_ranks(value, names, count)
    steps = _steps(value, names)
    ranks: list[float | None] = [None] * count
    for rank, step in enumerate(steps, start=1):
        for name in step:
            place = _place(name, names)
            if ranks[place] is not None:
                raise Unusable(Reason.UNKNOWN_VERDICT, f"the ranking names {shown(name)} twice")
            ranks[place] = float(rank)
    if ranks == [None] * count:
        raise Unusable(Reason.MISSING_FIELD, "the ranking names no response")
    return ranks


def _steps(value: Any, names: dict[str, int]) -> list[list[Any]]:
    """The names in their order, those that tie together."""
    if value is None or value in ("", []):
        raise Unusable(Reason.MISSING_FIELD, "the ranking is empty")
    if isinstance(value, list):
        return [one if isinstance(one, list) else [one] for one in value]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise Unusable(Reason.WRONG_TYPE, f"the ranking is {kind_of(value)}, a text or a list was expected")
    text = str(value).strip()
    letters = text.casefold()
    if letters not in names and len(letters) > 1 and all(letter in names for letter in letters):
        return [[letter] for letter in letters]  # "BAC", "213"
    return [_TIE.split(step) for step in _STEP.split(text)]


def _given_ranks(ranks: dict[Any, Any], names: dict[str, int], count: int) -> list[float | None]:
    found: list[float | None] = [None] * count
    for name, rank in ranks.items():
        if not isinstance(rank, int | float) or isinstance(rank, bool) or not math.isfinite(rank):
            raise Unusable(Reason.UNKNOWN_VERDICT, f"the rank of {shown(name)} is {shown(rank)}")
        found[_place(name, names)] = float(rank)
    if not ranks:
        raise Unusable(Reason.MISSING_FIELD, "the ranking is empty")
    return found


def _place(name: Any, names: dict[str, int]) -> int:
    place = names.get(str(name).strip().casefold())
    if place is None:
        raise Unusable(Reason.UNKNOWN_VERDICT, f"the ranking names {shown(name)}, which is no response")
    return place
