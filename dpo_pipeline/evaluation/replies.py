"""Figures of generated text: length, repetition, diversity, emptiness, refusals. Pure functions on strings."""

import re
from dataclasses import dataclass

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[#@]\w[\w-]*")

# Openings of refusals, as used for refusal rates in the literature (e.g. arXiv 2307.15043), kept to unambiguous ones.
REFUSAL = re.compile(
    r"^\W*(?:(?:i['’]?m|i am) (?:really |very |so )?sorry,? (?:but )?i (?:can['’]?t|cannot|won['’]?t|am unable)"
    r"|(?:sorry,? )?(?:but )?i (?:can['’]?t|cannot|won['’]?t|(?:am|['’]m) (?:not able|unable) to) "
    r"(?:help|assist|do that|provide|fulfil|comply|answer|discuss|support)"
    r"|as an ai\b|i must (?:decline|refuse))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Reply:
    """One generated reply.

    Attributes:
        prompt_id: The held-out prompt it answers.
        model: Which model wrote it: `sft`, `dpo`, ...
        decoding: `greedy` or `sampled`.
        text: The reply, without special tokens.
        token_count: Tokens generated, the end token not counted.
        is_finished: Whether the model ended it itself, rather than the limit.
        key: Digest of who was asked what under which settings, so that a later evaluation need not ask again.
    """

    prompt_id: str
    model: str
    decoding: str
    text: str
    token_count: int
    is_finished: bool
    key: str = ""


def words_of(text: str) -> list[str]:
    """The words of a text, lower-cased; punctuation and markup do not count.

    >>> words_of("I've sent #MAPLE-72, John!")
    ["i've", 'sent', '#maple-72', 'john']
    """
    return [word.lower() for word in WORD.findall(text)]


def repetition(text: str, *, n: int = 4) -> float:
    """The share of a text's word n-grams that repeat an earlier one of it; 0 for shorter texts.

    Eight words "a b c d a b c d" have five 4-grams, one of them a repeat.

    >>> repetition("a b c d a b c d")
    0.2
    """
    grams = ngrams(text, n=n)
    return (len(grams) - len(set(grams))) / len(grams) if grams else 0.0


def is_refusal(text: str) -> bool:
    """Whether a reply opens like a refusal to help.

    >>> is_refusal("I'm sorry, but I can't help with that."), is_refusal("I'm sorry your parcel is late.")
    (True, False)
    """
    return REFUSAL.search(text) is not None


def is_empty(text: str) -> bool:
    """Whether a reply says nothing: no word in it.

    >>> is_empty(" ... "), is_empty("Yes.")
    (True, False)
    """
    return not words_of(text)


def ngrams(text: str, *, n: int) -> list[tuple[str, ...]]:
    """The word n-grams of a text, in order.

    >>> ngrams("a b c", n=2)
    [('a', 'b'), ('b', 'c')]
    """
    words = words_of(text)
    return list(zip(*(words[start:] for start in range(n)), strict=False))
