"""Rankings and ratings of K responses as pairs, by one stated rule.

Every two responses become a pair, in the order they are listed. Ranks: the strength is the distance of the ranks, at
most 3; of only two responses it is 2, as in every source that does not say how much better. A response without a rank
lies below those that have one, by 2, and is not compared with others of its kind: naming the best of K makes K - 1
pairs. Ratings: the strength is the difference in steps (1 unless `drop.yaml` says otherwise), rounded up, at most 3.
Equal ranks or ratings are ties. The pairs of one ranking share a group id.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import msgspec

from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Judgment, Part, Turns, Unusable, clean
from dpo_pipeline.annotations.rules import signed

MAX_RESPONSES = 32
ROUNDING = 1e-6
"""Parts of a step that are an error of rounding."""


def pairs_by_rank(
    prompt: Turns, responses: Sequence[str], ranks: Sequence[float | None], *, group: str, **fields: Any
) -> list[Part]:
    """The pairs of a ranking; rank 1 (or 0) is best, equal ranks are ties, None is below all.

    >>> [part.strength for part in pairs_by_rank((("user", "?"),), ["x", "y", "z"], [1, 2, 3], group="g")]
    [-1, -2, -1]
    >>> [part.strength for part in pairs_by_rank((("user", "?"),), ["x", "y", "z"], [None, 1, None], group="g")]
    [2, -2]

    Raises:
        Unusable: If there are fewer than two responses with a text, or too many.
    """
    is_only_order = sum(bool(response.strip()) for response in responses) == 2

    def strength(first: int, second: int) -> int | None:
        one, other = ranks[first], ranks[second]
        if one is None or other is None:
            return None if one is other else 2 if one is None else -2
        distance = one - other
        return whole(math.copysign(2, distance) if is_only_order and distance else distance)

    return _pairs(prompt, responses, strength, group, fields)


def pairs_by_rating(
    prompt: Turns, responses: Sequence[str], ratings: Sequence[float], *, group: str, step: float = 1.0, **fields: Any
) -> list[Part]:
    """The pairs of a rating; higher is better, equal ratings are ties.

    >>> [part.strength for part in pairs_by_rating((("user", "?"),), ["x", "y", "z"], [4.5, 4.25, 1], group="g")]
    [-1, -3, -3]

    Raises:
        Unusable: If there are fewer than two responses with a text, or too many.
    """

    def strength(first: int, second: int) -> int:
        return whole((ratings[second] - ratings[first]) / step)

    return _pairs(prompt, responses, strength, group, fields)


def with_differences(
    parts: Sequence[Part], responses: Sequence[str], aspects: Sequence[Mapping[str, float]]
) -> list[Part]:
    """The pairs of `pairs_by_rating` with how much more the second has of each aspect that both have, at most 3.

    Args:
        parts: What `pairs_by_rating` gave.
        responses: As given to it.
        aspects: Per response a number per aspect.
    """
    usable = [place for place, response in enumerate(responses) if clean(response)]
    pairs = [part for part in parts if isinstance(part, Judgment)]
    described: list[Part] = []
    for pair, (first, second) in zip(pairs, combinations(usable, 2), strict=True):
        shared = [name for name in aspects[first] if name in aspects[second]]
        found = ((name, aspects[second][name] - aspects[first][name]) for name in shared)
        dimensions = tuple((name, max(-3.0, min(3.0, value))) for name, value in found)
        described.append(msgspec.structs.replace(pair, dimensions=dimensions))
    return [*described, *(part for part in parts if not isinstance(part, Judgment))]


def whole(difference: float) -> int:
    """A difference as a strength: away from zero to the next whole number, at most 3.

    What arithmetic adds to a whole number (4.4 - 3.4 is more than 1) or 32-bit floats to a third is no further step.

    >>> whole(4.4 - 3.4), whole(-1.25), whole(0.0)
    (1, -2, 0)
    """
    return int(math.copysign(min(3, math.ceil(abs(difference) - ROUNDING)), difference))


def _pairs(
    prompt: Turns,
    responses: Sequence[str],
    strength: Callable[[int, int], int | None],
    group: str,
    fields: dict[str, Any],
) -> list[Part]:
    texts = [clean(response) for response in responses]
    usable = [place for place, text in enumerate(texts) if text]
    if len(usable) > MAX_RESPONSES:
        raise Unusable(Reason.TOO_MANY_RESPONSES, f"{len(usable)} responses; at most {MAX_RESPONSES} become pairs")
    if len(usable) < 2:
        raise Unusable(Reason.TOO_FEW_RESPONSES, f"{len(usable)} of {len(texts)} responses hold a text")
    parts: list[Part] = []
    for first, second in combinations(usable, 2):
        difference = strength(first, second)
        if difference is None:
            continue
        choice, value = signed(difference)
        parts.append(Judgment(prompt, texts[first], texts[second], choice, value, group_id=group, **fields))
    if not parts:
        raise Unusable(Reason.NO_VERDICT, "no two responses are compared")
    parts += [
        Unusable(Reason.EMPTY_RESPONSE, f"response {place + 1} of {len(texts)} is empty")
        for place, text in enumerate(texts)
        if not text
    ]
    return parts
