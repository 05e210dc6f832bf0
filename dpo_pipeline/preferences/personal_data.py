"""Personal data in texts: e-mail addresses, telephone and payment card numbers, and how they are taken out."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.preferences.normalize import map_contents, normalise, normalise_once_each
from dpo_pipeline.preferences.personal_finds import PERSONAL_DATA, SUSPECTS, cut, finds, view_of
from dpo_pipeline.preferences.settings import PreferenceSettings

REDACTED = b"redacted"
"""Key in a table's schema: which rules' finds were replaced in its texts."""
LABELS = {"email": "[EMAIL]", "phone": "[PHONE]", "payment_card": "[CARD]"}


class Suspects:
    """The texts among N that could hold personal data, and what is found in them; one scan for all rules.

    Attributes:
        mask: Which they are, `(N,)` bool.
    """

    def __init__(self, texts: pa.StringArray) -> None:
        self.mask = suspects(texts)
        self._views = [view_of(text) for text in texts.filter(pa.array(self.mask)).to_pylist()]

    def found(self, rule: str) -> np.ndarray:
        """Where a rule finds something, `(N,)` bool."""
        found = np.zeros(len(self.mask), bool)
        found[self.mask] = [next(finds(view, rule), None) is not None for view in self._views]
        return found


def suspects(texts: pa.StringArray) -> np.ndarray:
    """Which texts could hold personal data, `(N,)` bool: few; the others are looked at no further."""
    return pc.match_substring_regex(texts, SUSPECTS).fill_null(pa.scalar(value=False)).to_numpy(zero_copy_only=False)


def redact(texts: pa.StringArray, *, rules: frozenset[str]) -> pa.StringArray:
    """The texts with what the given personal-data rules find replaced by [EMAIL], [PHONE] and [CARD].

    Found in the normal form, taken out of the texts as they stand; all other characters are kept.

    Laws: `normalise(redact(x)) == normalise(redact(normalise(x)))`: what is one prompt stays one, and what is compared
    is what is published. `redact(redact(x)) == redact(x)`.

    >>> redact(pa.array(["write to a@b.org"]), rules=frozenset({"email"})).to_pylist()
    ['write to [EMAIL]']
    """
    mask = suspects(texts) if rules else np.zeros(len(texts), bool)
    if not mask.any():
        return texts
    chosen = pa.array(mask)
    changed = [cut(text, rules, LABELS) for text in texts.filter(chosen).to_pylist()]
    return pc.replace_with_mask(texts, chosen, pa.array(changed, texts.type))


def as_redacted(texts: pa.StringArray, *, rules: frozenset[str]) -> pa.StringArray:
    """Normalised texts as they read once redacted, normalised again: what makes texts alike in the tables.

    >>> as_redacted(pa.array(["write to a@b.org"]), rules=frozenset({"email"})).to_pylist()
    ['write to [email]']
    """
    mask = suspects(texts) if rules else np.zeros(len(texts), bool)
    if not mask.any():
        return texts
    chosen = pa.array(mask)
    return pc.replace_with_mask(texts, chosen, normalise(redact(texts.filter(chosen), rules=rules)))


def compared(texts: pa.StringArray, *, rules: frozenset[str]) -> pa.StringArray:
    """Texts as they were exported, as they are compared: normalised, and without what the rules redact."""
    return as_redacted(normalise_once_each(texts), rules=rules)


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
