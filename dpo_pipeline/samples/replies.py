"""Customers' messages and agents' replies, on-brand or with a named flaw, composed from the catalog by chance."""

import random
from enum import StrEnum
from typing import NamedTuple

from dpo_pipeline.samples import catalog


class Dimension(StrEnum):
    """What Fernhill's guidelines ask of a reply; annotators judge each, the rubric checks each."""

    CONCISE = "concise"
    ACKNOWLEDGES = "acknowledges"
    SPECIFIC = "specific"
    ACTIONABLE = "actionable"
    TONE = "tone"


class Flaw(StrEnum):
    """A way to miss the guidelines."""

    VERBOSE = "verbose"
    COLD = "cold"
    GENERIC = "generic"
    IDLE = "idle"
    RUDE = "rude"
    HYPED = "hyped"

    @property
    def breaks(self) -> Dimension:
        """The guideline a reply with this flaw is sure to miss."""
        return _BREAKS[self]


_BREAKS = {
    Flaw.VERBOSE: Dimension.CONCISE,
    Flaw.COLD: Dimension.ACKNOWLEDGES,
    Flaw.GENERIC: Dimension.SPECIFIC,
    Flaw.IDLE: Dimension.ACTIONABLE,
    Flaw.RUDE: Dimension.TONE,
    Flaw.HYPED: Dimension.TONE,
}

ACKNOWLEDGEMENTS = (
    "I am sorry that {what}.",
    "I understand how tiring it is that {what}.",
    "Thank you for telling us that {what}.",
)
NEXT_STEPS = (
    "You will get a confirmation by email within the hour.",
    "Reply here at any time and I will pick it up.",
    "I will check on it again tomorrow morning.",
)
PADDING = (
    "At Fernhill we take great pride in the quality of our service and of everything we offer to our customers.",
    "As you may know, our company was founded many years ago with the simple idea of making shopping pleasant.",
    "There are many possible reasons why a situation of this kind can come about in the world of modern logistics.",
    "It goes without saying that we always strive to go the extra mile in each and every one of our interactions.",
    "Before we come to the details, allow me to give you a little background on how our processes usually work.",
    "We would also like to take this opportunity to point out our newsletter with its many offers and stories.",
)
FORMULAS = (
    "Dear customer, I am sorry for any inconvenience. I have forwarded your request to the right department.",
    "Dear valued customer, thank you for telling us about your matter. I have sent your message to our team.",
    "To whom it may concern, I understand how you feel. I have booked your request into our queue.",
)
SHRUGS = (
    "These things happen now and then.",
    "There is nothing more to say at this point.",
    "Perhaps it will sort itself out.",
)
RUDENESS = (
    "You should have read the terms before complaining.",
    "Frankly, that is your own fault.",
    "Calm down, other people have real problems.",
    "I will not explain this again.",
)
HYPE = (
    "OMG, what a total bummer!!!",
    "Whoa, no way, that is super crazy!!!",
    "Yikes!!! We are so gonna fix that, buddy!",
)


# What the agents on duty tend to write, by channel and by the customer's mood; where nothing stands, on-brand replies.
# A model trained on the logs alone takes these habits over, so that preferences have something to change.
HABITS = {
    ("email", "annoyed"): Flaw.COLD,
    ("email", "furious"): Flaw.GENERIC,
    ("chat", "calm"): Flaw.HYPED,
    ("chat", "furious"): Flaw.RUDE,
    ("phone", "calm"): Flaw.VERBOSE,
    ("phone", "worried"): Flaw.VERBOSE,
    ("phone", "annoyed"): Flaw.IDLE,
}
SHARE_BY_HABIT = 0.75


class Case(NamedTuple):
    """What a conversation is about; equal cases may still be worded differently."""

    product: str
    issue: str
    order: str
    name: str
    mood: str
    channel: str

    @property
    def combination(self) -> tuple[str, str]:
        """Product and issue."""
        return self.product, self.issue


def draw_case(chance: random.Random, combinations: list[tuple[str, str]]) -> Case:
    """A case about one of the given product-issue combinations."""
    product, issue = chance.choice(combinations)
    return Case(
        product,
        issue,
        f"#{chance.choice(catalog.ORDER_WORDS)}-{chance.randrange(10, 100)}",
        chance.choice(catalog.NAMES),
        chance.choice(list(catalog.MOODS)),
        chance.choice(list(catalog.CHANNELS)),
    )


def message(case: Case, chance: random.Random) -> str:
    """What the agent sees: the ticket's head, then what the customer writes, in one of several orders.

    The head repeats order and name: a model of this size learns to copy what it meets twice, not what it meets once.
    """
    opening = chance.choice(catalog.MOODS[case.mood])
    issue = chance.choice(catalog.ISSUES[case.issue].phrasings).format(product=case.product)
    order = chance.choice(catalog.ORDER_MENTIONS).format(order=case.order)
    ask = chance.choice(catalog.ASKS)
    middle = chance.choice(((issue, order, ask), (order, issue, ask), (issue, ask, order)))
    signed = chance.choice(catalog.SIGN_OFFS).format(name=case.name)
    return " ".join((f"[{case.channel} {case.order} {case.name}]", opening, *middle, signed))


def on_brand(case: Case, chance: random.Random) -> str:
    """A reply that keeps every guideline."""
    return " ".join(_sentences(case, chance))


def flawed(case: Case, flaw: Flaw, chance: random.Random) -> str:
    """A reply that misses the guideline `flaw.breaks`; what else it keeps depends on the flaw."""
    greeting, acknowledgement, action, next_step = _sentences(case, chance)
    if flaw is Flaw.VERBOSE:
        padding = chance.sample(PADDING, 4)
        return " ".join((greeting, *padding[:2], acknowledgement, action, *padding[2:], next_step))
    if flaw is Flaw.COLD:
        return " ".join((greeting, action, next_step))
    if flaw is Flaw.GENERIC:
        return " ".join((chance.choice(FORMULAS), next_step))
    if flaw is Flaw.IDLE:
        shrug = catalog.ISSUES[case.issue].shrug.format(order=case.order)
        return " ".join((greeting, acknowledgement, shrug, chance.choice(SHRUGS)))
    if flaw is Flaw.RUDE:
        return " ".join((greeting, chance.choice(RUDENESS), action))
    return " ".join((greeting, chance.choice(HYPE), acknowledgement, action))


def logged(case: Case, chance: random.Random) -> str:
    """What an agent once replied: mostly by the team's habit, else on-brand or with any flaw."""
    flaw = HABITS.get((case.channel, case.mood))
    if chance.random() >= SHARE_BY_HABIT:
        flaw = chance.choice(list(Flaw)) if chance.random() < 0.5 else None
    return on_brand(case, chance) if flaw is None else flawed(case, flaw, chance)


def _sentences(case: Case, chance: random.Random) -> tuple[str, str, str, str]:
    """Greeting, acknowledgement, action and next step of an on-brand reply."""
    issue = catalog.ISSUES[case.issue]
    what = issue.acknowledged.format(product=case.product)
    return (
        f"{catalog.CHANNELS[case.channel]} {case.name},",
        chance.choice(ACKNOWLEDGEMENTS).format(what=what),
        chance.choice(issue.actions).format(product=case.product, order=case.order),
        chance.choice(NEXT_STEPS),
    )
