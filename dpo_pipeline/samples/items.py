"""What is put before the annotators: plain pairs, and the copies and contradictions planted among them."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from dpo_pipeline.samples.brand import misses
from dpo_pipeline.samples.judges import ANNOTATORS, Annotator, Verdict, decided, judge
from dpo_pipeline.samples.replies import Case, Flaw, flawed, message, on_brand


class Kind(StrEnum):
    """What an item was made as; every kind but `plain` is recorded in `planted.json`."""

    PLAIN = "plain"
    TIE = "ties"
    BOTH_BAD = "both_bad"
    CONTRADICTION = "contradictory_votes"
    EXACT = "exact_duplicates"
    NORMALISED = "normalised_duplicates"
    SWAPPED = "swapped_duplicates"
    NEAR = "near_duplicates"
    REPEATED = "repeated_verdicts"
    EMPTY = "empty_responses"


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt, two responses and the verdicts on them.

    Attributes:
        kind: What it was made as.
        shown_first: a or b.
        copy_of: For copies: the prompt of the item it repeats.
    """

    kind: Kind
    prompt: str
    a: str
    b: str
    shown_first: str = "a"
    verdicts: tuple[Verdict, ...] = ()
    copy_of: str | None = None

    @property
    def is_unanimous(self) -> bool:
        """Whether every verdict is for the same side."""
        return {verdict.choice for verdict in self.verdicts} in ({"a"}, {"b"})

    @property
    def identity(self) -> Mapping[str, str]:
        """How `planted.json` names it."""
        return {"prompt": self.prompt} | ({} if self.copy_of is None else {"copy_of": self.copy_of})


@dataclass(slots=True)
class Desk:
    """Where items are judged: hands out annotators and the time of day.

    Args:
        chance: The stream all draws come from.
        start: When the first verdict of the drop is given.
        random_sides: Whether the platform shuffles the sides on screen; else a stands first.
    """

    chance: random.Random
    start: datetime
    random_sides: bool
    _minutes: float = field(default=0.0)

    def plain(self, case: Case, kind: Kind = Kind.PLAIN) -> Item:
        """A judged pair: on-brand against flawed, or two alike for ties and both-bad."""
        prompt, flaws = message(case, self.chance), list(Flaw)
        flaw = self.chance.choice(flaws)
        good, bad = on_brand(case, self.chance), flawed(case, flaw, self.chance)
        if kind is Kind.TIE:
            bad = _until(lambda: on_brand(case, self.chance), lambda text: text != good)
        elif kind is Kind.BOTH_BAD:
            good = _until(
                lambda: flawed(case, self.chance.choice(flaws), self.chance),
                lambda text: text != bad and len(misses(text)) == len(misses(bad)),
            )
        a, b = (good, bad) if self.chance.random() < 0.5 else (bad, good)
        item = self.shown(Item(kind, prompt, a, b))
        if kind is Kind.CONTRADICTION:
            return self.contradicted(item)
        return self.judged(item, self.chance.sample(ANNOTATORS, 3))

    def shown(self, item: Item) -> Item:
        """The item with its sides on screen decided."""
        return replace(item, shown_first=self.chance.choice("ab") if self.random_sides else "a")

    def judged(self, item: Item, annotators: list[Annotator]) -> Item:
        """The item with one verdict of each annotator, in order of time."""
        return replace(item, verdicts=tuple(self._verdict(item, annotator) for annotator in annotators))

    def contradicted(self, item: Item) -> Item:
        """The item with two votes for each side, at equal strength and from annotators of equal reliability."""
        first = self.chance.choice((0, 2, 4, 6))
        second = self.chance.choice([start for start in (0, 2, 4, 6) if start != first])
        annotators = [ANNOTATORS[place] for place in (first, first + 1, second, second + 1)]
        votes = [
            decided(self._verdict(item, annotator), choice)
            for annotator, choice in zip(annotators, "abab", strict=True)
        ]
        return replace(item, verdicts=tuple(votes))

    def copied(self, original: Item, kind: Kind) -> Item:
        """A planted copy of an item, judged anew by people who have not judged it yet (or, `REPEATED`, who have).

        The new verdicts go the way of the original's, so that what becomes of a copy depends on the copying alone.
        """
        a, b, prompt = original.a, original.b, original.prompt
        if kind is Kind.SWAPPED:
            a, b = b, a
        elif kind is Kind.NORMALISED:
            prompt, a = prompt.replace(". ", ".  "), a.upper() if self.chance.random() < 0.5 else f"  {a}\n"
        elif kind is Kind.NEAR:
            prompt = _with_a_word_more(prompt, self.chance)
            a = _with_a_word_more(a, self.chance)
        copy = self.shown(Item(kind, prompt, a, b, copy_of=original.prompt))
        known = {verdict.annotator for verdict in original.verdicts}
        if kind is Kind.REPEATED:
            return self.judged(copy, [original.verdicts[0].annotator])
        fresh = [annotator for annotator in ANNOTATORS if annotator not in known and not annotator.is_careless]
        side = original.verdicts[0].choice
        if kind is Kind.SWAPPED:
            side = {"a": "b", "b": "a"}[side]
        verdicts = tuple(self._verdict(copy, annotator, side) for annotator in self.chance.sample(fresh, 2))
        return replace(copy, verdicts=verdicts)

    def emptied(self, case: Case) -> Item:
        """A pair of which one response got lost on the platform."""
        item = self.plain(case)
        blank = self.chance.choice(("", "   ", "\n"))
        return replace(item, kind=Kind.EMPTY, **{self.chance.choice("ab"): blank})

    def _verdict(self, item: Item, annotator: Annotator, side: str | None = None) -> Verdict:
        """What an annotator says, drawn until it is for the given side, if one is given."""
        self._minutes += self.chance.uniform(0.5, 6)
        at = self.start + timedelta(minutes=round(self._minutes, 2))
        while True:
            found = judge(annotator, item.a, item.b, shown_first=item.shown_first, at=at, chance=self.chance)
            if side is None or found.choice == side:
                return found


def _with_a_word_more(text: str, chance: random.Random) -> str:
    words = text.split(" ")
    words.insert(chance.randrange(2, len(words) - 1), chance.choice(("now", "again", "really")))
    return " ".join(words)


def _until(draw: Callable[[], str], fits: Callable[[str], bool]) -> str:
    while not fits(text := draw()):
        pass
    return text
