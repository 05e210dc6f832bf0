"""The cleaning rules: small named predicates over pairs. A rule finds; `PreferenceSettings.rules` says what follows.

Each rule has a stable name and a version, raised when it would find other pairs than before. Patterns are RE2 by way
of Arrow: measured 95 times faster than Python's `re` with the same hits.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dpo_pipeline.preferences.benchmarks import overlapping
from dpo_pipeline.preferences.normalize import normalise, render
from dpo_pipeline.preferences.personal_data import CARD, EMAIL, PHONE, has_luhn_card, redact, redacted_by
from dpo_pipeline.preferences.pinned import PinnedFile
from dpo_pipeline.preferences.settings import PreferenceSettings


class PairTexts(NamedTuple):
    """The texts of N pairs, raw and as they count for identity.

    `suspects` says per text (low, high, prompt) where personal data is possible: one scan instead of one per rule.
    """

    prompt: pa.ListArray
    low: pa.StringArray
    high: pa.StringArray
    user_key: pa.StringArray
    low_key: pa.StringArray
    high_key: pa.StringArray
    suspects: tuple[np.ndarray, ...]

    @classmethod
    def of(
        cls,
        prompt: pa.ListArray,
        low: pa.StringArray,
        high: pa.StringArray,
        prompt_key: pa.ListArray,
        low_key: pa.StringArray,
        high_key: pa.StringArray,
    ) -> "PairTexts":
        """The pairs from their raw and their normalised texts."""
        user = render(prompt_key, roles=("user",), with_roles=False)
        every = (low, high, render(prompt, with_roles=False))
        suspects = tuple(_bool(pc.match_substring_regex(some, PERSONAL_DATA_SUSPECTS)) for some in every)
        return cls(prompt, low, high, user, low_key, high_key, suspects)


class Rule(NamedTuple):
    """One cleaning rule.

    Attributes:
        name: Its stable id: a field of `RuleActions`, the reason in `excluded_pairs`, the flag in `preference_pairs`.
        version: Raised whenever the rule would find other pairs than before.
        find: The pairs it applies to, `(N,)` bool.
    """

    name: str
    version: int
    find: Callable[[PairTexts, PreferenceSettings], np.ndarray]


REFUSAL = (
    r"^(?:i(?:'m| am) (?:so |very |really )?sorry|sorry|i apologi[sz]e|unfortunately)?[,.!]?\s*(?:but\s+)?"
    r"(?:i (?:can't|cannot|can not|won't|will not|am unable to|am not able to)|i'm (?:unable|not able) to|as an ai\b)"
)
REFUSAL_CHARACTERS = 300
CHARACTERS_PER_TOKEN = 4
TEMPLATE = (
    r"<\|[a-z_]{2,30}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<extra_id_\d>|###\s*(?:Instruction|Response):"
    r"|(?:^|\n)\s*(?:Human|User|Assistant|### Human|### Assistant)\s*:"
)
MOJIBAKE_SUSPECTS = "[\u0080-\u009f\ufffd\u00c2\u00c3\u00e2\u00d0\u00d1\u00f0\u00ef\u0102\u00c5\u00cb]"
PERSONAL_DATA_SUSPECTS = r"@|\d[\d .()\-]{5,}\d"
SCRIPTS = {
    "latin": r"\p{Latin}",
    "cyrillic": r"\p{Cyrillic}",
    "greek": r"\p{Greek}",
    "arabic": r"\p{Arabic}",
    "hebrew": r"\p{Hebrew}",
    "devanagari": r"\p{Devanagari}",
    "thai": r"\p{Thai}",
    "hangul": r"\p{Hangul}",
    "han": r"[\p{Han}\p{Hiragana}\p{Katakana}]",
}
LETTERS_TO_TELL_SCRIPT = 20


def _prompt_missing(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    return _bool(pc.equal(pc.utf8_trim_whitespace(texts.user_key), ""))


def _empty_response(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    return _bool(pc.or_(pc.equal(texts.low_key, ""), pc.equal(texts.high_key, "")))


def _identical_responses(texts: PairTexts, settings: PreferenceSettings) -> np.ndarray:
    found = _bool(pc.equal(texts.low_key, texts.high_key))
    if rules := redacted_by(settings):
        # Two responses that differ in personal data alone are the same once it is taken out.
        suspect = texts.suspects[0] & texts.suspects[1]
        low, high = (normalise(redact(some.filter(pa.array(suspect)), rules=rules)) for some in (texts.low, texts.high))
        found[suspect] |= _bool(pc.equal(low, high))
    return found


def _truncated_response(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    shorter = np.minimum(_lengths(texts.low_key), _lengths(texts.high_key))
    begins_alike = pc.equal(*(pc.utf8_slice_codeunits(some, 0, 8) for some in (texts.low_key, texts.high_key)))
    found = (_bool(begins_alike) | (shorter < 8)) & (shorter > 0) & ~_bool(pc.equal(texts.low_key, texts.high_key))
    low, high = (some.filter(pa.array(found)).to_pylist() for some in (texts.low_key, texts.high_key))
    found[found] = [a.startswith(b) or b.startswith(a) for a, b in zip(low, high, strict=True)]
    return found


def _encoding_damage(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    return _either(texts, _is_damaged)


def _is_damaged(texts: pa.StringArray) -> np.ndarray:
    from ftfy.badness import is_bad

    # ftfy reads one text at a time: only those with a character that mojibake is made of are shown to it.
    found = _bool(pc.match_substring_regex(texts, MOJIBAKE_SUSPECTS))
    found[found] = ["\ufffd" in text or is_bad(text) for text in texts.filter(pa.array(found)).to_pylist()]
    return found


def _template_artefact(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    return _either(texts, lambda some: _bool(pc.match_substring_regex(some, TEMPLATE)))


def _refusal_only(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    def refuses(some: pa.StringArray) -> np.ndarray:
        return _bool(pc.match_substring_regex(some, REFUSAL)) & (_lengths(some) <= REFUSAL_CHARACTERS)

    return refuses(texts.low_key) & refuses(texts.high_key)


def _length_ratio(texts: PairTexts, settings: PreferenceSettings) -> np.ndarray:
    low, high = _lengths(texts.low), _lengths(texts.high)
    return np.maximum(low, high) > settings.max_length_ratio * np.minimum(low, high)


def _too_long(texts: PairTexts, settings: PreferenceSettings) -> np.ndarray:
    prompt = render(texts.prompt, with_roles=False)
    if settings.tokenizer is None:
        longer = np.maximum(_lengths(texts.low), _lengths(texts.high))
        return _lengths(prompt) + longer > CHARACTERS_PER_TOKEN * settings.max_tokens
    # A byte-level tokenizer makes at most one token of a byte, so few texts have to be counted.
    sizes = [pc.binary_length(some).to_numpy() for some in (prompt, texts.low, texts.high)]
    found = sizes[0] + np.maximum(sizes[1], sizes[2]) > settings.max_tokens
    if found.any():
        tokenizer = _tokenizer(settings.tokenizer.path, settings.tokenizer.sha256)
        suspects = (some.filter(pa.array(found)).to_pylist() for some in (prompt, texts.low, texts.high))
        encoded = [tokenizer.encode_batch_fast(some, add_special_tokens=False) for some in suspects]
        counts = [np.array([len(one) for one in some]) for some in encoded]
        found[found] = counts[0] + np.maximum(counts[1], counts[2]) > settings.max_tokens
    return found


@functools.lru_cache(maxsize=2)
def _tokenizer(path: str, sha256: str) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(PinnedFile(path=path, sha256=sha256).checked_path()))
    tokenizer.no_truncation()
    return tokenizer


def _benchmark_overlap(texts: PairTexts, settings: PreferenceSettings) -> np.ndarray:
    if not settings.benchmarks:
        return np.zeros(len(texts.low), bool)
    return overlapping(texts.user_key, settings.benchmarks)


def _script_mismatch(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    asked = main_script(texts.user_key)
    replies = main_script(texts.low_key), main_script(texts.high_key)
    return np.logical_or.reduce([(asked >= 0) & (reply >= 0) & (reply != asked) for reply in replies])


def main_script(texts: pa.StringArray) -> np.ndarray:
    """The place in `SCRIPTS` of the script most letters of a text belong to, or -1 with too few letters, `(N,)`."""
    result = np.full(len(texts), -1)
    is_ascii = _bool(pc.string_is_ascii(texts))
    latin = list(SCRIPTS).index("latin")
    letters = _bool(pc.match_substring_regex(texts, f"(?:[a-zA-Z][^a-zA-Z]*){{{LETTERS_TO_TELL_SCRIPT}}}"))
    result[is_ascii & letters] = latin
    others = texts.filter(pa.array(~is_ascii))
    if len(others):
        counts = np.stack([pc.count_substring_regex(others, script).to_numpy() for script in SCRIPTS.values()])
        result[~is_ascii] = np.where(counts.sum(axis=0) >= LETTERS_TO_TELL_SCRIPT, counts.argmax(axis=0), -1)
    return result


def _email(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    return _anywhere(texts, lambda some: _bool(pc.match_substring_regex(some, EMAIL)))


def _phone(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    return _anywhere(texts, lambda some: _bool(pc.match_substring_regex(some, PHONE)))


def _payment_card(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    def has_card(some: pa.StringArray) -> np.ndarray:
        found = _bool(pc.match_substring_regex(some, CARD))
        found[found] = [has_luhn_card(text) for text in some.filter(pa.array(found)).to_pylist()]
        return found

    return _anywhere(texts, has_card)


def _toxic_pattern(texts: PairTexts, settings: PreferenceSettings) -> np.ndarray:
    found = np.zeros(len(texts.low), bool)
    for pattern in settings.toxic_patterns:
        found |= _either(
            texts, lambda some, pattern=pattern: _bool(pc.match_substring_regex(pc.utf8_lower(some), pattern))
        )
    return found


RULES = (
    Rule("prompt_missing", 1, _prompt_missing),
    Rule("empty_response", 1, _empty_response),
    Rule("identical_responses", 2, _identical_responses),
    Rule("encoding_damage", 1, _encoding_damage),
    Rule("template_artefact", 1, _template_artefact),
    Rule("truncated_response", 1, _truncated_response),
    Rule("refusal_only", 1, _refusal_only),
    Rule("length_ratio", 1, _length_ratio),
    Rule("too_long", 2, _too_long),
    Rule("benchmark_overlap", 1, _benchmark_overlap),
    Rule("script_mismatch", 1, _script_mismatch),
    Rule("email", 1, _email),
    Rule("phone", 1, _phone),
    Rule("payment_card", 1, _payment_card),
    Rule("toxic_pattern", 1, _toxic_pattern),
)


def find_all(texts: PairTexts, settings: PreferenceSettings) -> dict[str, np.ndarray]:
    """What every rule that is not off finds, by the rule's name, each `(N,)` bool."""
    off = np.zeros(len(texts.low), bool)
    return {
        rule.name: off if getattr(settings.rules, rule.name) == "off" else rule.find(texts, settings) for rule in RULES
    }


def _either(texts: PairTexts, find: Callable[[pa.StringArray], np.ndarray]) -> np.ndarray:
    return find(texts.low) | find(texts.high)


def _anywhere(texts: PairTexts, find: Callable[[pa.StringArray], np.ndarray]) -> np.ndarray:
    """Where personal data is found in the prompt or a response, among the texts that could hold any."""
    found = np.zeros(len(texts.low), bool)
    for some, suspect in zip(
        (texts.low, texts.high, render(texts.prompt, with_roles=False)), texts.suspects, strict=True
    ):
        found[suspect] |= find(some.filter(pa.array(suspect)))
    return found


def _lengths(texts: pa.StringArray) -> np.ndarray:
    return pc.utf8_length(texts).to_numpy()


def _bool(array: pa.BooleanArray) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False).copy()
