"""What makes two texts the same: normalisation for keys, and the far milder cleaning of training text.

Keys are strong enough to see through case, quotes, width and spacing; training text keeps its characters, because
NFKC would change mathematics and code. `KEY_VERSION` names the rules; a change to any of them is a new version.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import unicodedata
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dpo_pipeline.preferences.identifiers import blake2b_128, is_less

KEY_VERSION = "key/1"

TextsToTexts = Callable[[pa.StringArray], pa.StringArray]

# Joins of a rendered prompt. `normalise` turns both into spaces inside texts: no two prompts render alike by chance.
TURN_SEPARATOR, ROLE_SEPARATOR = "\x1e", "\x1f"

ZERO_WIDTH = "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]"
SINGLE_QUOTES = "[\u2018\u2019\u201a\u201b\u2032\u00b4`]"
DOUBLE_QUOTES = "[\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb]"
STRAY_SPACE = "[\t-\r\x1c-\x1f\u0085\u00a0\u1680\u2028\u2029]"
SPACES = f"{STRAY_SPACE[:-1]} ]{{2,}}|{STRAY_SPACE}"

# NFC never changes characters in these ranges; the rest goes through Python, one text at a time.
MAYBE_NOT_NFC = (
    r"[^\x00-\x{2ff}\x{400}-\x{482}\x{48a}-\x{52f}\x{2010}-\x{2027}\x{2030}-\x{205e}\x{20a0}-\x{20bf}\x{2190}-\x{21ff}"
    r"\x{200b}-\x{200d}\x{2500}-\x{27bf}\x{3000}-\x{3029}\x{4e00}-\x{9fff}\x{ac00}-\x{d7a3}\x{fe0f}\x{1f300}-\x{1faff}]"
)


def normalise(texts: pa.StringArray) -> pa.StringArray:
    r"""Each text as it counts for identity: compatibility form, lower case, straight quotes, single spaces.

    The compatibility form is NFKD; it tells the same texts apart as NFKC. Arrow's NFC and NFKC do not compose (25.0.1).

    Law: `normalise(normalise(x)) == normalise(x)`.

    >>> normalise(pa.array(["  “Caf\u0065\u0301”\u200b\n\n ﬁne ", "`A`  b"])).to_pylist() == [
    ...     '"cafe\u0301" fine',
    ...     "'a' b",
    ... ]
    True
    """
    return pc.utf8_trim(_collapse(_folded(texts)), " ")


def fold(texts: pa.StringArray) -> pa.StringArray:
    r"""`normalise` but for what it does to runs and ends of white space: every character by itself, blanks as spaces.

    Law: `normalise(fold(x)) == normalise(x)`, and marks aside the fold of a text is the folds of its characters.

    >>> fold(pa.array(["½", "\n", "\u200b"])).to_pylist()
    ['1⁄2', ' ', '']
    """
    return pc.replace_substring_regex(_folded(texts), STRAY_SPACE, " ")


def training_text(texts: pa.StringArray) -> pa.StringArray:
    r"""Each text as a model may learn it: LF line ends, no outer white space, NFC; every other character kept.

    >>> training_text(pa.array([" x² “y”\r\nCaf\u0065\u0301 "])).to_pylist()
    ['x² “y”\nCafé']
    """
    texts = pc.replace_substring(texts, "\r\n", "\n")
    may_differ = pc.match_substring_regex(texts, MAYBE_NOT_NFC)
    if pc.any(may_differ).as_py():
        composed = [unicodedata.normalize("NFC", text) for text in texts.filter(may_differ).to_pylist()]
        texts = pc.replace_with_mask(texts, may_differ, pa.array(composed, pa.string()))
    return pc.utf8_trim_whitespace(texts)


def map_contents(prompts: pa.ListArray, change: TextsToTexts) -> pa.ListArray:
    """The same conversations with every turn's content changed by `change`."""
    turns = prompts.flatten()
    changed = pa.StructArray.from_arrays(
        [turns.field("role"), change(turns.field("content"))], fields=list(prompts.type.value_type)
    )
    return pa.ListArray.from_arrays(_offsets(prompts), changed, type=prompts.type)


def render(prompts: pa.ListArray, *, roles: tuple[str, ...] | None = None, with_roles: bool = True) -> pa.StringArray:
    """Each conversation as one text.

    Args:
        prompts: Conversations of type `core.tables.MESSAGES`.
        roles: Keep only the turns of these roles; absent: all turns.
        with_roles: Put each turn's role before its content.
    """
    turns, offsets = prompts.flatten(), _offsets(prompts).to_numpy()
    role, content = turns.field("role"), turns.field("content")
    if roles is not None:
        kept = pc.is_in(role, pa.array(roles)).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(kept)])[offsets]
        role, content = role.filter(pa.array(kept)), content.filter(pa.array(kept))
    lines = pc.binary_join_element_wise(role, content, ROLE_SEPARATOR) if with_roles else content
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), lines), TURN_SEPARATOR)


def response_order(response_a: np.ndarray, response_b: np.ndarray) -> np.ndarray:
    """Whether response b is the pair's "low" response: the one whose key sorts first. `(N,)` bool.

    A pair has no first response of its own; low and high give its two sides names that do not depend on who was
    shown where.
    """
    return is_less(response_b, response_a)


def pair_keys(prompt: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The identity of each pair from the keys of its prompt and its two responses, `(N, 2)` uint64."""
    parts = np.concatenate([prompt, low, high], axis=1).astype(">u8").tobytes()
    offsets = np.arange(0, len(parts) + 1, 48, dtype=np.int32)
    return blake2b_128(
        pa.Array.from_buffers(pa.binary(), len(prompt), [None, pa.py_buffer(offsets), pa.py_buffer(parts)])
    )


def once_each(texts: pa.StringArray, function: Callable[[pa.StringArray], np.ndarray]) -> np.ndarray:
    """`function` over the distinct texts only, spread back to all: several judgments show the same text."""
    encoded = texts.dictionary_encode()
    return function(encoded.dictionary)[encoded.indices.to_numpy()]


def text_keys(texts: pa.StringArray) -> np.ndarray:
    """The identity of each text, `(N, 2)` uint64."""
    return once_each(texts, lambda some: blake2b_128(normalise(some)))


def prompt_keys(prompts: pa.ListArray) -> np.ndarray:
    """The identity of each prompt, its roles included, `(N, 2)` uint64."""
    return once_each(render(map_contents(prompts, normalise_once_each)), blake2b_128)


def normalise_once_each(texts: pa.StringArray) -> pa.StringArray:
    """`normalise`, with every distinct text normalised once."""
    encoded = texts.dictionary_encode()
    return normalise(encoded.dictionary).take(encoded.indices)


def _offsets(lists: pa.ListArray) -> pa.Int32Array:
    offsets = lists.offsets
    return pc.subtract(offsets, offsets[0]).cast(pa.int32())


def _folded(texts: pa.StringArray) -> pa.StringArray:
    # ASCII needs neither NFKC nor the quote table; English exports are ASCII but for curly quotes, so these go first.
    texts = _where_not_ascii(texts, _straighten)
    texts = _where_not_ascii(texts, _fold)
    return pc.replace_substring(pc.ascii_lower(texts), "`", "'")


def _where_not_ascii(texts: pa.StringArray, change: TextsToTexts) -> pa.StringArray:
    is_ascii = pc.string_is_ascii(texts)
    if pc.all(is_ascii).as_py() in {True, None}:
        return texts
    others = pc.invert(is_ascii)
    return pc.replace_with_mask(texts, others, change(texts.filter(others)))


def _straighten(texts: pa.StringArray) -> pa.StringArray:
    texts = pc.replace_substring_regex(texts, SINGLE_QUOTES, "'")
    texts = pc.replace_substring_regex(texts, DOUBLE_QUOTES, '"')
    return pc.replace_substring_regex(texts, ZERO_WIDTH, "")


def _fold(texts: pa.StringArray) -> pa.StringArray:
    # Lower case can undo NFKD, and NFKD can bring back capitals and quotes (U+1D2C, U+FF02): twice is a fixed point.
    for _ in range(2):
        texts = _straighten(pc.utf8_lower(pc.utf8_normalize(texts, "NFKD")))
    return texts


def _collapse(texts: pa.StringArray) -> pa.StringArray:
    # Single spaces are the rule: matching only what has to change is five times faster than matching every space.
    return pc.replace_substring_regex(texts, SPACES, " ")
