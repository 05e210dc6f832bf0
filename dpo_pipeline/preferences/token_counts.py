"""Which prompts and responses are longer than a number of tokens; most texts are told without a tokenizer.

A byte-level tokenizer makes at most one token of a byte, so a text of few bytes cannot have many tokens. Of any other
kind (SentencePiece, WordPiece, one that normalises) nothing of the sort is known, and every text is counted.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dpo_pipeline.core.errors import InputError
from dpo_pipeline.preferences.pinned import HubFile, PinnedFile

CHARACTERS_PER_TOKEN = 4
TOKENIZER_FILE = "tokenizer.json"
SPLITTERS = {"Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "ByteLevel"}
NFC_GROWTH = 3
"""The most by which NFC multiplies a text's bytes in UTF-8 (Unicode Standard Annex 15, table 9)."""


class TokenCounter(NamedTuple):
    """A tokenizer, and how many tokens it makes of a byte at most; None where that is not known."""

    tokenizer: Any
    most_per_byte: int | None

    def counts(self, texts: pa.StringArray) -> np.ndarray:
        """The tokens of each text, those of no template counted, `(N,)`."""
        encoded = self.tokenizer.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)
        return np.array([len(one) for one in encoded], np.int64)


def exceeds(
    prompt: pa.StringArray, responses: tuple[pa.StringArray, ...], limit: int, counted_by: PinnedFile | HubFile | None
) -> np.ndarray:
    """Whether prompt and longest response together have more tokens than `limit`, `(N,)` bool.

    Args:
        prompt: The turns of each prompt as one text.
        responses: Its responses, arrays as long as `prompt`.
        limit: In tokens.
        counted_by: The tokenizer; absent, four characters are taken for a token.
    """
    every = (prompt, *responses)
    if counted_by is None:
        lengths = [pc.utf8_length(some).to_numpy() for some in every]
        return lengths[0] + np.maximum.reduce(lengths[1:]) > CHARACTERS_PER_TOKEN * limit
    counter = token_counter(counted_by)
    found = np.ones(len(prompt), bool)
    if counter.most_per_byte is not None:
        # One more for the space that some tokenizers put before a text.
        sizes = [pc.binary_length(some).to_numpy() * counter.most_per_byte + 1 for some in every]
        found = sizes[0] + np.maximum.reduce(sizes[1:]) > limit
    if found.any():
        counts = [counter.counts(some.filter(pa.array(found))) for some in every]
        found[found] = counts[0] + np.maximum.reduce(counts[1:]) > limit
    return found


def token_counter(source: PinnedFile | HubFile) -> TokenCounter:
    """The tokenizer of a pinned file, or of a pinned repository.

    Raises:
        InputError: If it is not there, is another file, or is no tokenizer.
    """
    return _loaded(source)  # pyright: ignore[reportArgumentType] # frozen by its configuration, so hashable


@functools.lru_cache(maxsize=2)
def _loaded(source: PinnedFile | HubFile) -> TokenCounter:
    from tokenizers import Tokenizer

    path = source.cached_path(TOKENIZER_FILE) if isinstance(source, HubFile) else source.checked_path()
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exceptions
        raise InputError(
            f"{path} is no tokenizer: {error}", expected="a tokenizer.json of Hugging Face", do="Name that file"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return TokenCounter(tokenizer, _most_per_byte(path))


def _most_per_byte(path: Path) -> int | None:
    """How many tokens a byte-level tokenizer makes of a byte at most; None of another kind."""
    about = json.loads(path.read_text(encoding="utf-8"))
    model, vocabulary = about.get("model") or {}, (about.get("model") or {}).get("vocab") or {}
    splitters = {step.get("type") for step in _steps(about.get("pre_tokenizer"), "pretokenizers")}
    normalizers = [step.get("type") for step in _steps(about.get("normalizer"), "normalizers")]
    is_whole = isinstance(vocabulary, dict) and all(letter in vocabulary for letter in _alphabet())
    if model.get("type") != "BPE" or "ByteLevel" not in splitters or not splitters <= SPLITTERS or not is_whole:
        return None
    if not normalizers:
        return 1
    return NFC_GROWTH if set(normalizers) == {"NFC"} else None


def _steps(step: Any, inner: str) -> list[dict[str, Any]]:
    if not isinstance(step, dict):
        return []
    return [one for some in step[inner] for one in _steps(some, inner)] if inner in step else [step]


def _alphabet() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel.alphabet()
