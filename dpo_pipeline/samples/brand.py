"""Fernhill's brand guidelines as rules a program can check."""

import re
from typing import Any

from dpo_pipeline.samples.replies import Dimension


def brand_rubric() -> dict[str, Any]:
    """The guidelines as the fields of an evaluation rubric: what a reply must hold, must not hold, and its length.

    The names are those of the rubric dimensions; `max_words` is the dimension `concise`.

    >>> sorted(brand_rubric()["required"])
    ['acknowledges', 'actionable', 'specific']
    """
    return {
        "name": "Fernhill brand guidelines",
        "max_words": 55,
        "required": {
            "acknowledges": [r"\bI am sorry\b", r"\bI understand how\b", r"\bthank you for telling us\b"],
            "specific": [r"#[a-z]{3,}-\d{2}\b"],
            "actionable": [
                r"\bI have (arranged|sent|moved|traced|ordered|booked|refunded|cancelled|started|stopped)\b",
            ],
        },
        "forbidden": {
            "tone": [
                r"!!",
                r"\b(omg|whoa|yikes|bummer|gonna|buddy)\b",
                r"\byou should have\b",
                r"\byour own fault\b",
                r"\bcalm down\b",
                r"\bnot explain this again\b",
            ],
        },
    }


def misses(reply: str) -> frozenset[Dimension]:
    """The guidelines a reply misses, by the rubric; the scenario's annotators see these, each as well as they can."""
    rubric = brand_rubric()
    missed = {Dimension.CONCISE} if len(reply.split()) > rubric["max_words"] else set()
    for name, patterns in rubric["required"].items():
        if not any(re.search(pattern, reply, re.IGNORECASE) for pattern in patterns):
            missed.add(Dimension(name))
    for name, patterns in rubric["forbidden"].items():
        if any(re.search(pattern, reply, re.IGNORECASE) for pattern in patterns):
            missed.add(Dimension(name))
    return frozenset(missed)
