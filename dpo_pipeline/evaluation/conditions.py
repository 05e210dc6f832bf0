"""A condition on a promotion, beside the rule: what was found, what it should be, and what to do about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Condition:
    """What was found, what it should be, what to do if it is not; `held` is None where nobody could tell.

    One that does not `forbid` is a warning: it stands in the decision and stops nobody.
    """

    name: str
    held: bool | None
    found: str
    expected: str
    advice: str
    numbers: Mapping[str, float]
    forbids: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "held": self.held,
            "found": self.found,
            "expected": self.expected,
            "advice": self.advice,
            "numbers": dict(self.numbers),
            "forbids": self.forbids,
        }


def broken(conditions: Sequence[Condition]) -> list[Condition]:
    """Those that did not hold and forbid a promotion."""
    return [each for each in conditions if each.held is False and each.forbids]


def warned_of(conditions: Sequence[Condition]) -> list[Condition]:
    """Those that did not hold and only warn."""
    return [each for each in conditions if each.held is False and not each.forbids]


def undecided(conditions: Sequence[Condition]) -> list[Condition]:
    """Those nobody could tell."""
    return [each for each in conditions if each.held is None]
