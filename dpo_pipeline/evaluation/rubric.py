"""A rubric applied: which rules a reply meets, and which of two replies meets more. No model, no chance."""

import re
from collections.abc import Mapping, Sequence

from dpo_pipeline.evaluation.judges import Comparison, Verdict
from dpo_pipeline.evaluation.replies import words_of
from dpo_pipeline.evaluation.settings import Rubric


def check_reply(rubric: Rubric, *, question: str, reply: str) -> dict[str, bool]:
    """Each rule of the rubric and whether the reply meets it, in the rubric's order.

    Args:
        rubric: The rules.
        question: The last user turn, for the facts a reply must take up.
        reply: The text judged.

    >>> rules = Rubric(name="tone", max_words=6, required={"thanks": ["thank"]}, echoed={"order": r"#[A-Z]+"})
    >>> check_reply(rules, question="Where is #MAPLE?", reply="Thank you, Ann!")
    {'says something': True, 'at most 6 words': True, 'thanks': True, 'order': False}
    """
    count = len(words_of(reply))
    met = {_least_rule(rubric): count >= rubric.min_words}
    if rubric.max_words is not None:
        met[f"at most {rubric.max_words} words"] = count <= rubric.max_words
    met |= {name: _any_matches(patterns, reply) for name, patterns in rubric.required.items()}
    met |= {name: not _any_matches(patterns, reply) for name, patterns in rubric.forbidden.items()}
    return met | {name: _echoes(pattern, question, reply) for name, pattern in rubric.echoed.items()}


def passes(met: Mapping[str, bool]) -> bool:
    """Whether every rule is met."""
    return all(met.values())


class RubricJudge:
    """Prefers the reply that meets more rules of a rubric; equally many is a tie.

    Args:
        rubric: The rules.
    """

    def __init__(self, rubric: Rubric) -> None:
        self.rubric = rubric
        self.name = f"rubric: {rubric.name}"

    def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict | None]:
        """One verdict per comparison."""
        return [
            Verdict.of_scores(self._score(each, each.first), self._score(each, each.second)) for each in comparisons
        ]

    def _score(self, comparison: Comparison, reply: str) -> float:
        return float(sum(check_reply(self.rubric, question=comparison.question, reply=reply).values()))


def _least_rule(rubric: Rubric) -> str:
    return "says something" if rubric.min_words <= 1 else f"at least {rubric.min_words} words"


def _any_matches(patterns: Sequence[str], text: str) -> bool:
    return any(re.search(pattern, text, re.IGNORECASE) for pattern in patterns)


def _echoes(pattern: str, question: str, reply: str) -> bool:
    """Whether the first fact the pattern finds in the question stands in the reply; true where there is none."""
    found = re.search(pattern, question, re.IGNORECASE)
    return found is None or found.group().casefold() in reply.casefold()
