"""Personal data in texts: e-mail addresses, telephone and payment card numbers, and how they are taken out."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.preferences.normalize import map_contents, normalise
from dpo_pipeline.preferences.settings import PreferenceSettings

REDACTED = b"redacted"
"""Key in a table's schema: which rules' finds were replaced in its texts."""
PERSONAL_DATA = ("email", "phone", "payment_card")
EMAIL = r"[A-Za-z0-9._%+\-]+@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)*\.[A-Za-z]{2,}"
PHONE = (
    r"(?:\+\d{1,3}[ .\-]?(?:\(\d{1,4}\)[ .\-]?)?\d{2,4}(?:[ .\-]?\d{2,4}){2,3}\b"
    r"|(?:\(\d{3}\) ?|\b\d{3}[.\-])\d{3}[.\-]\d{4}\b)"
)
CARD = r"\b(?:\d[ \-]?){12,18}\d\b"


def has_luhn_card(text: str) -> bool:
    """Whether a text holds a payment card number whose checksum is right.

    >>> has_luhn_card("card 4111 1111 1111 1111"), has_luhn_card("order 4111 1111 1111 1112")
    (True, False)
    """
    return any(_is_luhn(found) for found in re.findall(CARD, text, re.ASCII))


def redact(texts: pa.StringArray, *, rules: frozenset[str]) -> pa.StringArray:
    """The texts with what the given personal-data rules find replaced by [EMAIL], [PHONE] and [CARD].

    >>> redact(pa.array(["write to a@b.org"]), rules=frozenset({"email"})).to_pylist()
    ['write to [EMAIL]']
    """
    if "email" in rules:
        texts = pc.replace_substring_regex(texts, EMAIL, "[EMAIL]")
    if "payment_card" in rules:
        hits = pc.match_substring_regex(texts, CARD)
        if pc.any(hits).as_py():
            cut = [
                re.sub(CARD, lambda match: "[CARD]" if _is_luhn(match[0]) else match[0], text, flags=re.ASCII)
                for text in texts.filter(hits).to_pylist()
            ]
            texts = pc.replace_with_mask(texts, hits, pa.array(cut, pa.string()))
    if "phone" in rules:
        texts = pc.replace_substring_regex(texts, PHONE, "[PHONE]")
    return texts


def as_redacted(texts: pa.StringArray, *, rules: frozenset[str]) -> pa.StringArray:
    """Normalised texts as they read once redacted, normalised again: what makes prompts alike in the tables.

    Where only one of a text and its normal form is taken for personal data (digits in full width), the two differ.

    >>> as_redacted(pa.array(["write to a@b.org"]), rules=frozenset({"email"})).to_pylist()
    ['write to [email]']
    """
    return normalise(redact(texts, rules=rules)) if rules else texts


def redacted_by(settings: PreferenceSettings) -> frozenset[str]:
    """The rules whose finds are replaced in the tables."""
    return frozenset(name for name in PERSONAL_DATA if getattr(settings.rules, name) == "redact")


def says_redacted(rules: frozenset[str]) -> dict[bytes, bytes]:
    """What a table's schema says of the rules whose finds were replaced in its texts."""
    return {REDACTED: ",".join(sorted(rules)).encode()}


def redacted_in(table: Path) -> frozenset[str]:
    """The rules whose finds were replaced in a table's texts, as its schema says."""
    names = (pq.read_schema(table).metadata or {}).get(REDACTED, b"").decode()
    return frozenset(filter(None, names.split(",")))


def redact_conversations(conversations: pa.ListArray, *, rules: frozenset[str]) -> pa.ListArray:
    """The conversations, of type `core.tables.MESSAGES`, with every turn redacted."""
    return map_contents(conversations, lambda texts: redact(texts, rules=rules)) if rules else conversations


def _is_luhn(number: str) -> bool:
    digits = [int(digit) for digit in number if digit.isdigit()]
    doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + doubled) % 10 == 0
