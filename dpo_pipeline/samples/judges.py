"""The scenario's annotators: nine people of different reliability, one of whom does not read what she judges."""

import random
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from dpo_pipeline.samples.brand import misses
from dpo_pipeline.samples.replies import Dimension


class Annotator(NamedTuple):
    """One person.

    Attributes:
        number: Id on the annotation platform.
        email: Address the platform exports; must never reach a table.
        reliability: Probability of seeing a difference the right way round.
        is_careless: Clicks mostly on what stands first, within seconds.
    """

    number: int
    email: str
    reliability: float
    is_careless: bool = False


# In twos of equal reliability, so that a contradiction can be planted that no weighing of annotators resolves.
ANNOTATORS = (
    Annotator(101, "ines@annotators.example", 0.97),
    Annotator(102, "kofi@annotators.example", 0.97),
    Annotator(103, "wei@annotators.example", 0.95),
    Annotator(104, "paula@annotators.example", 0.95),
    Annotator(105, "arjun@annotators.example", 0.92),
    Annotator(106, "signe@annotators.example", 0.92),
    Annotator(107, "luis@annotators.example", 0.88),
    Annotator(108, "tove@annotators.example", 0.88),
    Annotator(109, "bella@annotators.example", 0.5, is_careless=True),
)

REASONS = {
    Dimension.CONCISE: ("much too long", "hides the answer in padding"),
    Dimension.ACKNOWLEDGES: ("no word about the trouble", "does not show that it understood"),
    Dimension.SPECIFIC: ("could be about any order", "a form letter without the order"),
    Dimension.ACTIONABLE: ("nothing is done", "leaves the customer without a next step"),
    Dimension.TONE: ("wrong tone for our brand", "would make me leave the shop"),
}


class Verdict(NamedTuple):
    """What one annotator said of two responses.

    Attributes:
        choice: a, b, tie, both_bad or skipped.
        strength: 1..3 where choice is a or b, else 0.
        dimensions: a, b or same, per guideline.
        seconds: Time spent.
        at: When it was given, in UTC.
    """

    annotator: Annotator
    choice: str
    strength: int
    dimensions: Mapping[Dimension, str]
    justification: str
    seconds: float
    at: datetime

    @property
    def signed(self) -> int:
        """-3..3; negative: a is better."""
        return -self.strength if self.choice == "a" else self.strength


def judge(annotator: Annotator, a: str, b: str, *, shown_first: str, at: datetime, chance: random.Random) -> Verdict:
    """An annotator's verdict on two responses; how true it is depends on the annotator's reliability."""
    if annotator.is_careless:
        return _click(annotator, shown_first, at, chance)
    missed = {"a": misses(a), "b": misses(b)}
    dimensions = {
        dimension: _side(dimension in missed["a"], dimension in missed["b"], annotator, chance)
        for dimension in Dimension
    }
    choice, strength = _overall(len(missed["a"]), len(missed["b"]), annotator, chance)
    seconds = round(8 + (len(a.split()) + len(b.split())) / 4 * chance.uniform(0.8, 1.6), 1)
    return Verdict(annotator, choice, strength, dimensions, _reason(choice, missed, chance), seconds, at)


def decided(verdict: Verdict, choice: str) -> Verdict:
    """The same verdict with another choice, of middling strength: for contradictions planted on purpose."""
    return verdict._replace(choice=choice, strength=2, justification="prefer this one")


def _click(annotator: Annotator, shown_first: str, at: datetime, chance: random.Random) -> Verdict:
    other = "b" if shown_first == "a" else "a"
    choice = chance.choices((shown_first, other, "tie"), (0.75, 0.18, 0.07))[0]
    strength = 0 if choice == "tie" else chance.choice((1, 2, 3))
    dimensions = dict.fromkeys(Dimension, choice if choice in "ab" else "same")
    return Verdict(
        annotator, choice, strength, dimensions, chance.choice(("ok", "good")), round(chance.uniform(1.5, 4), 1), at
    )


def _side(a_misses: bool, b_misses: bool, annotator: Annotator, chance: random.Random) -> str:  # noqa: FBT001
    if a_misses == b_misses:
        return "same" if chance.random() < annotator.reliability else chance.choice("ab")
    better, worse = ("b", "a") if a_misses else ("a", "b")
    return better if chance.random() < annotator.reliability else chance.choice((worse, "same"))


def _overall(a_misses: int, b_misses: int, annotator: Annotator, chance: random.Random) -> tuple[str, int]:
    sees_it = chance.random() < annotator.reliability
    if a_misses == b_misses:
        even = "tie" if a_misses == 0 else "both_bad"
        return (even, 0) if sees_it else (chance.choice("ab"), 1)
    if chance.random() < 0.02:
        return chance.choice(("tie", "skipped")), 0
    better, worse = ("b", "a") if a_misses > b_misses else ("a", "b")
    return (better, chance.choice((1, 2, 2, 3))) if sees_it else (worse, chance.choice((1, 1, 2)))


def _reason(choice: str, missed: Mapping[str, frozenset[Dimension]], chance: random.Random) -> str:
    if choice not in {"a", "b"}:
        return "I see no difference that matters" if choice == "tie" else ""
    other = "b" if choice == "a" else "a"
    faults = sorted(missed[other])
    if not faults:
        return "reads a little better"
    return f"the other one: {chance.choice(REASONS[chance.choice(faults)])}"
