"""The cleaning rules: small named predicates over pairs. A rule finds; `PreferenceSettings.rules` says what follows.

Each rule has a stable name and a version, raised when it would find other pairs than before. Patterns are RE2 by way
of Arrow: measured 95 times faster than Python's `re` with the same hits.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dpo_pipeline.preferences.benchmarks import item_counts, overlapping
from dpo_pipeline.preferences.languages import checked_languages, main_script, outside
from dpo_pipeline.preferences.normalize import render
from dpo_pipeline.preferences.personal_data import Suspects, as_redacted, redacted_by
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.text_scorers import load_scorer, scores_at_least
from dpo_pipeline.preferences.token_counts import exceeds, token_counter


class PairTexts(NamedTuple):
    """The texts of N pairs, raw and as they count for identity.

    `suspects` holds where personal data is possible in the low texts, the high ones and the prompts' turns, one scan
    instead of one per rule; `turn_pair` is the pair of each turn.
    """

    prompt: pa.ListArray
    low: pa.StringArray
    high: pa.StringArray
    user_key: pa.StringArray
    low_key: pa.StringArray
    high_key: pa.StringArray
    suspects: tuple[Suspects, ...]
    turn_pair: np.ndarray

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
        # Turn by turn: what one ends with and the next begins with is no number.
        suspects = tuple(Suspects(some) for some in (low, high, prompt.flatten().field("content")))
        turn_pair = pc.list_parent_indices(prompt).to_numpy()
        return cls(prompt, low, high, user, low_key, high_key, suspects, turn_pair)


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
TEMPLATE = (
    r"<\|[a-z_]{2,30}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<extra_id_\d>|###\s*(?:Instruction|Response):"
    r"|(?:^|\n)\s*(?:Human|User|Assistant|### Human|### Assistant)\s*:"
)
MOJIBAKE_SUSPECTS = "[\u0080-\u009f\ufffd\u00c2\u00c3\u00e2\u00d0\u00d1\u00f0\u00ef\u0102\u00c5\u00cb]"


def _prompt_missing(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    return _bool(pc.equal(pc.utf8_trim_whitespace(texts.user_key), ""))


def _empty_response(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    return _bool(pc.or_(pc.equal(texts.low_key, ""), pc.equal(texts.high_key, "")))


def _identical_responses(texts: PairTexts, settings: PreferenceSettings) -> np.ndarray:
    found = _bool(pc.equal(texts.low_key, texts.high_key))
    if rules := redacted_by(settings):
        # Two responses that differ in personal data alone are the same once it is taken out.
        suspect = texts.suspects[0].mask & texts.suspects[1].mask
        keys = (some.filter(pa.array(suspect)) for some in (texts.low_key, texts.high_key))
        found[suspect] |= _bool(pc.equal(*(as_redacted(some, rules=rules) for some in keys)))
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
    return exceeds(prompt, (texts.low, texts.high), settings.max_tokens, settings.tokenizer)


def _benchmark_overlap(texts: PairTexts, settings: PreferenceSettings) -> np.ndarray:
    if not settings.benchmarks:
        return np.zeros(len(texts.low), bool)
    return overlapping(texts.user_key, settings.benchmarks)


def _script_mismatch(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    asked = main_script(texts.user_key)
    replies = main_script(texts.low_key), main_script(texts.high_key)
    return np.logical_or.reduce([(asked >= 0) & (reply >= 0) & (reply != asked) for reply in replies])


def _unexpected_language(texts: PairTexts, settings: PreferenceSettings) -> np.ndarray:
    if not settings.languages:
        return np.zeros(len(texts.low), bool)
    prompt = render(texts.prompt, roles=("user",), with_roles=False)
    every = (prompt, texts.low, texts.high)
    return np.logical_or.reduce([outside(some, settings.languages, settings.language_certainty) for some in every])


def _email(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    return _anywhere(texts, "email")


def _phone(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    return _anywhere(texts, "phone")


def _payment_card(texts: PairTexts, _: PreferenceSettings) -> np.ndarray:
    return _anywhere(texts, "payment_card")


def _toxic_pattern(texts: PairTexts, settings: PreferenceSettings) -> np.ndarray:
    found = np.zeros(len(texts.low), bool)
    for pattern in settings.toxic_patterns:
        found |= _either(
            texts, lambda some, pattern=pattern: _bool(pc.match_substring_regex(pc.utf8_lower(some), pattern))
        )
    return found


def _toxicity(texts: PairTexts, settings: PreferenceSettings) -> np.ndarray:
    scorer = settings.toxicity
    if scorer is None:
        return np.zeros(len(texts.low), bool)
    return _either(texts, lambda some: scores_at_least(some, scorer))


RULES = (
    Rule("prompt_missing", 1, _prompt_missing),
    Rule("empty_response", 1, _empty_response),
    Rule("identical_responses", 3, _identical_responses),
    Rule("encoding_damage", 1, _encoding_damage),
    Rule("template_artefact", 1, _template_artefact),
    Rule("truncated_response", 1, _truncated_response),
    Rule("refusal_only", 1, _refusal_only),
    Rule("length_ratio", 1, _length_ratio),
    Rule("too_long", 3, _too_long),
    Rule("benchmark_overlap", 1, _benchmark_overlap),
    Rule("script_mismatch", 1, _script_mismatch),
    Rule("unexpected_language", 1, _unexpected_language),
    Rule("email", 2, _email),
    Rule("phone", 2, _phone),
    Rule("payment_card", 2, _payment_card),
    Rule("toxic_pattern", 1, _toxic_pattern),
    Rule("toxicity", 1, _toxicity),
)


def find_all(
    texts: PairTexts, settings: PreferenceSettings, *, seconds: list[tuple[str, float]] | None = None
) -> dict[str, np.ndarray]:
    """What every rule that is not off finds, by the rule's name, each `(N,)` bool.

    Args:
        texts: N pairs.
        settings: Which rules are on, and their limits.
        seconds: Is given each rule's name and CPU seconds.
    """
    found = {}
    for rule in RULES:
        if getattr(settings.rules, rule.name) == "off":
            found[rule.name] = np.zeros(len(texts.low), bool)
            continue
        started = time.thread_time()
        found[rule.name] = rule.find(texts, settings)
        if seconds is not None:
            seconds.append((rule.name, time.thread_time() - started))
    return found


def prepare(settings: PreferenceSettings) -> list[str]:
    """Load what the rules need before any text is read, and return a sentence on each.

    Raises:
        InputError: If a pinned file is missing or another one, a language is not known, a scorer cannot be loaded.
    """
    rules, said = settings.rules, []
    if settings.tokenizer is not None and rules.too_long != "off":
        is_quick = token_counter(settings.tokenizer).most_per_byte is not None
        slow = "too_long: the tokenizer is not byte-level, so every text is counted, which takes a while"
        said.append("too_long: only texts of more bytes than tokens allowed are counted" if is_quick else slow)
    if settings.benchmarks and rules.benchmark_overlap != "off":
        counts = item_counts(settings.benchmarks)
        named = (f"{file.label} {count:,} items" for file, count in zip(settings.benchmarks, counts, strict=True))
        said.append(f"benchmark_overlap: {', '.join(named)}")
    if settings.languages and rules.unexpected_language != "off":
        checked_languages(settings.languages)
        said.append(f"unexpected_language: all but {', '.join(settings.languages)}")
    if settings.toxicity is not None and rules.toxicity != "off":
        load_scorer(settings.toxicity)
        said.append(f"toxicity: scores of at least {settings.toxicity.threshold:g}")
    return said


def timing(seconds: list[tuple[str, float]], pair_count: int) -> str:
    """One sentence on what the rules cost, the dearest first."""
    total: dict[str, float] = {}
    for name, one in seconds:
        total[name] = total.get(name, 0.0) + one
    dear = sorted(((spent, name) for name, spent in total.items() if spent >= 0.05), reverse=True)
    named = (f"{name} {spent:.1f} ({pair_count / spent:,.0f} pairs/s)" for spent, name in dear)
    return f"cleaning rules took {sum(total.values()):.1f} CPU seconds{': ' if dear else ''}{', '.join(named)}"


def _either(texts: PairTexts, find: Callable[[pa.StringArray], np.ndarray]) -> np.ndarray:
    return find(texts.low) | find(texts.high)


def _anywhere(texts: PairTexts, rule: str) -> np.ndarray:
    """Where personal data is found in the prompt or a response."""
    low, high, turns = (some.found(rule) for some in texts.suspects)
    found = low | high
    found[texts.turn_pair[turns]] = True
    return found


def _lengths(texts: pa.StringArray) -> np.ndarray:
    return pc.utf8_length(texts).to_numpy()


def _bool(array: pa.BooleanArray) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False).copy()
