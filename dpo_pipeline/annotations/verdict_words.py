"""What the words and numbers of a verdict column probably mean: which scale, which vocabulary, what to ask."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.rules import COMMON_WORDS, STRENGTH_WORDS

_NUMBER = re.compile(r"-?\d{1,3}")
_TOKEN = re.compile(r"[a-z]+|\d+")
_NUMBERED = re.compile(r"([+-]?\d{1,3})\s*(?:[-–—:.)=]\s*|\s(?=\())(?=.*[^\W\d])(.+)")
"""A number on a scale and what it means: `-2 - A is better`, `7: B much better`, `1 (worst)`."""
SCALES: Mapping[str, Mapping[int, int]] = {
    "likert_7": {number: number - 4 for number in range(1, 8)},
    "likert_5": {number: number - 3 for number in range(1, 6)},
    "signed_3": {number: number for number in range(-3, 4)},
}
"""Numbers of a scale -> strength, as `drop.yaml` has them where nothing is reversed."""
_SIDES = (("a", "b"), ("1", "2"), ("left", "right"), ("first", "second"), ("x", "y"), ("one", "two"))
_NOT_A_SIDE = (
    ("both_bad", r"(both|beide|deux|amb[ao]s).*(bad|poor|unus|wrong|fail|unaccept|schlecht|mauvais|mal)|neither|none"),
    ("tie", r"\b(tie|tied|same|equal|equally|similar|no preference|neutral|both|gleich|egal|égal|igual|empate)\b"),
    ("skipped", r"skip"),
    ("not_rateable", r"not ?rat|cannot|can't|invalid|n/a|unsure"),
)
_STRENGTH_ONLY = re.compile(r"[1-3]|moderat\w*|medium|better|normal\w*")


def propose_scale(words: Mapping[str, int], questions: list[str]) -> str | None:
    """The numeric scale that the frequent numbers among the verdicts lie on, also those in front of words."""
    numbers: Counter[int] = Counter()
    for word, count in words.items():
        if (number := _number_in(word)) is not None:
            numbers[number] += count
    frequent = {number for number, count in numbers.items() if count * 100 >= sum(numbers.values())}
    if len(frequent) < 3:
        return None
    scale = "signed_3" if min(frequent) < 0 else "likert_7" if max(frequent) > 5 else "likert_5"
    if not frequent <= SCALES[scale].keys():
        return None
    if min(frequent) >= 0:
        questions.append(f"Scale {scale} takes 1 for 'response_a much better'; set likert_reversed if it is not.")
    if any(map(_NUMBERED.fullmatch, words)):
        questions.append(f"Is the number in front of each verdict on the scale {scale}, lower for response_a?")
    strange = sorted(numbers.keys() - SCALES[scale].keys())
    questions += [f"The verdict {number} is not on the scale {scale}." for number in strange]
    return scale


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
    vocabulary: dict[str, Any] = {}
    for word in sorted(words):
        if scale is not None and _NUMBER.fullmatch(word):
            continue
        is_number = _NUMBER.fullmatch(word) is not None
        meaning = dict(zip(labels, (-2, 2), strict=False)).get(word) if is_number else meaning_of(word)
        if meaning is None and scale is not None and (number := _number_in(word)) is not None:
            meaning = SCALES[scale].get(number)
        if meaning is None:
            questions.append(f"What does the verdict {word!r} mean?")
        elif COMMON_WORDS.get(word) != meaning:
            vocabulary[word] = meaning
    questions += _degrees_asked(vocabulary)
    return vocabulary


def _degrees_asked(vocabulary: Mapping[str, Any]) -> Iterable[str]:
    """A question for words that were all given the strength that is given where no adverb is understood."""
    for strength in (-2, 2):
        alike = [word for word, meaning in vocabulary.items() if meaning == strength and not _NUMBERED.fullmatch(word)]
        if len(alike) > 1:
            yield f"How much better is each of {', '.join(map(repr, alike))}? No word in them was understood to say so."


def _number_in(word: str) -> int | None:
    """The number a verdict is, or that stands in front of its words where those say nothing."""
    if _NUMBER.fullmatch(word):
        return int(word)
    numbered = _NUMBERED.fullmatch(word)
    return int(numbered[1]) if numbered and meaning_of(numbered[2]) is None else None


def meaning_of(word: str) -> int | str | None:
    """What a verdict in words says, by its side and its adverb; None where that is not clear.

    A number in front is no side: it may be a place on a scale.

    >>> meaning_of("response 2 is slightly better"), meaning_of("a-is-much-better"), meaning_of("both_good")
    (1, -3, 'tie')
    >>> meaning_of("1 - strongly agree"), meaning_of("1 - a is much better"), meaning_of("b viel besser")
    (None, -3, 3)
    """
    if word in COMMON_WORDS:
        return COMMON_WORDS[word]
    if numbered := _NUMBERED.fullmatch(word):
        word = numbered[2].strip()
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
