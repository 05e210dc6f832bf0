"""What the words and numbers of a verdict column probably mean: which scale, which vocabulary, what to ask."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.rules import COMMON_WORDS, STRENGTH_WORDS

_NUMBER = re.compile(r"-?\d{1,3}")
_TOKEN = re.compile(r"[a-z]+|\d+")
_SIDES = (("a", "b"), ("1", "2"), ("left", "right"), ("first", "second"), ("x", "y"), ("one", "two"))
_NOT_A_SIDE = (
    ("both_bad", r"both.*(bad|poor|unus|wrong|fail|unaccept)|neither|none"),
    ("tie", r"\b(tie|tied|same|equal|equally|similar|no preference|neutral|both)\b"),
    ("skipped", r"skip"),
    ("not_rateable", r"not ?rat|cannot|can't|invalid|n/a|unsure"),
)
_STRENGTH_ONLY = re.compile(r"[1-3]|moderat\w*|medium|better|normal\w*")


def propose_scale(words: Mapping[str, int], questions: list[str]) -> str | None:
    """The numeric scale that the frequent numbers among the verdicts lie on."""
    numbers = {int(word): count for word, count in words.items() if _NUMBER.fullmatch(word)}
    frequent = {number for number, count in numbers.items() if count * 100 >= sum(numbers.values())}
    if len(frequent) < 3:
        return None
    if min(frequent) < 0:
        scale, allowed = "signed_3", range(-3, 4)
    else:
        scale, allowed = ("likert_7", range(1, 8)) if max(frequent) > 5 else ("likert_5", range(1, 6))
        questions.append(f"Scale {scale} takes 1 for 'response_a much better'; set likert_reversed if it is not.")
    questions += [f"The verdict {number} is not on the scale {scale}." for number in sorted(numbers.keys() - allowed)]
    return scale if frequent <= set(allowed) else None


def propose_vocabulary(
    words: Iterable[str], scale: str | None, labels: Sequence[str], questions: list[str]
) -> dict[str, Any]:
    """Meaning per word that does not mean the same everywhere; numbers of the scale need none.

    Args:
        words: The verdicts.
        scale: The scale proposed for the numbers among them.
        labels: What the columns of response a and b are told apart by. A bare number means a response only if it is
            one of these: a 1 may stand for the first response, for the second, or for "yes, the first".
        questions: Is given a question for each word that is not understood.
    """
    vocabulary = {}
    for word in sorted(words):
        if scale is not None and _NUMBER.fullmatch(word):
            continue
        is_number = _NUMBER.fullmatch(word) is not None
        meaning = dict(zip(labels, (-2, 2), strict=False)).get(word) if is_number else meaning_of(word)
        if meaning is None:
            questions.append(f"What does the verdict {word!r} mean?")
        elif COMMON_WORDS.get(word) != meaning:
            vocabulary[word] = meaning
    return vocabulary


def meaning_of(word: str) -> int | str | None:
    """What a verdict in words says, by its side and its adverb; None where that is not clear.

    >>> meaning_of("response 2 is slightly better"), meaning_of("a-is-much-better"), meaning_of("both_good")
    (1, -3, 'tie')
    """
    if word in COMMON_WORDS:
        return COMMON_WORDS[word]
    spaced = re.sub(r"[_\-]+", " ", word)
    for meaning, pattern in _NOT_A_SIDE:
        if re.search(pattern, spaced):
            return meaning
    tokens = _TOKEN.findall(word)
    sides = {sign for first, second in _SIDES for sign, side in ((-1, first), (1, second)) if side in tokens}
    if "a" in tokens and sides == {-1, 1}:  # "b is a bit better": the article is no side
        sides = {1}
    if len(sides) != 1:
        return None
    strength = next((value for value, pattern in STRENGTH_WORDS if re.search(pattern, spaced)), 2)
    return sides.pop() * strength


def is_strength(value: Any) -> bool:
    """Whether a value says how much, and not which.

    >>> is_strength("slightly"), is_strength(2), is_strength("a"), is_strength("b much better")
    (True, True, False, False)
    """
    word = str(value).strip().casefold()
    if _STRENGTH_ONLY.fullmatch(word):
        return True
    names_a_side = {"a", "b", "left", "right", "1", "2", "first", "second"} & set(_TOKEN.findall(word))
    return not names_a_side and any(re.search(pattern, word) for _, pattern in STRENGTH_WORDS)
