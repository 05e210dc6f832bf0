"""Which language a text is in: its writing system by Unicode, its language by a small model that is part of a package.

py3langid (https://github.com/adbar/py3langid, BSD-3-Clause) is naive Bayes over byte n-grams (Lui and Baldwin 2012),
4.5 MB, 139 languages. Of 168 short texts in 14 languages it named 166, none of the others with a certainty of 0.9;
docs/log.md has the comparison with lingua and langdetect.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dpo_pipeline.core.errors import InputError

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
NO_PROSE = r"(?s)```.*?(?:```|$)|`[^`\n]*`|https?://\S+|[\w.+\-]+@[\w\-]+\.[\w.\-]+|<[^<>\n]{1,80}>"
"""Code, addresses and markup, which are in no language."""
LOOKED_AT_CHARACTERS = 200
"""The beginning of a text tells as much as the whole, at a third of the price."""
LEAST_LETTER_BYTES = 24
"""Bytes of letters in UTF-8 below which a text is too short: some five words of Latin script, eight Chinese signs."""
NO_LANGUAGE = "zxx"
"""The model's own class for numbers, markup and names."""


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


def outside(texts: pa.StringArray, expected: Sequence[str], certainty: float) -> np.ndarray:
    """Whether a text is in another language than those expected, `(N,)` bool.

    It is where one other language is more likely than not, and likelier than the expected ones together by at least
    `certainty` to `1 - certainty`. A text with too few letters, and one the model is not sure of, is never found.

    >>> texts = pa.array(["Where is my parcel? It is late.", "Wo bleibt mein Paket? Es ist zu spät.", "ok"])
    >>> outside(texts, ["en"], 0.9).tolist()
    [False, True, False]

    Raises:
        InputError: If an expected language is not one of the model's.
    """
    allowed = checked_languages(expected)
    encoded = texts.dictionary_encode()
    prose = pc.replace_substring_regex(encoded.dictionary, NO_PROSE, " ")
    prose = pc.utf8_slice_codeunits(prose, 0, LOOKED_AT_CHARACTERS)
    letters = pc.binary_length(pc.replace_substring_regex(prose, r"\P{L}+", "")).to_numpy()
    found = letters >= LEAST_LETTER_BYTES
    found[found] = [_is_other(text, allowed, certainty) for text in prose.filter(pa.array(found)).to_pylist()]
    return found[encoded.indices.to_numpy()]


def _is_other(text: str, allowed: frozenset[str], certainty: float) -> bool:
    language, likelihood = _identifier().classify(text)
    if language in allowed or likelihood < 0.5:
        return False
    wanted = sum(value for name, value in _identifier().rank(text) if name in allowed)
    return likelihood >= certainty * (likelihood + wanted)


def checked_languages(expected: Sequence[str]) -> frozenset[str]:
    """The expected languages and what is no language.

    Raises:
        InputError: If one is not among the model's languages.
    """
    known = set(_identifier().labels)
    unknown = sorted(set(expected) - known)
    if unknown:
        raise InputError(
            f"{', '.join(unknown)} is no language that can be told",
            expected=f"ISO 639 codes among {', '.join(sorted(known - {NO_LANGUAGE}))}",
            do="Correct preferences.languages",
        )
    return frozenset({*expected, NO_LANGUAGE})


@functools.lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _bool(array: pa.BooleanArray) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False).copy()
