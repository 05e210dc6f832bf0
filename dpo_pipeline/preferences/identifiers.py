"""128-bit identifiers by the million: arrays of two 64-bit words per identifier, high word first.

Shape: N identifiers are an array `(N, 2)` of uint64; their order is that of the 32 hexadecimal digits people see.
"""

import hashlib
from itertools import pairwise

import numpy as np
import pyarrow as pa

HEX_DIGITS = 32


def blake2b_128(texts: pa.StringArray) -> np.ndarray:
    """The blake2b-128 of each text's bytes, `(N, 2)` uint64.

    >>> to_hex(blake2b_128(pa.array(["", "a"]))).to_pylist()
    ['cae66941d9efbd404e4d88758ea67670', '27c35e6e9373877f29e562464e46497e']
    """
    data, offsets = utf8_bytes(texts)
    blob, bounds, blake = data.data, offsets.tolist(), hashlib.blake2b
    digests = [blake(blob[start:end], digest_size=16).digest() for start, end in pairwise(bounds)]
    return from_bytes(b"".join(digests))


def utf8_bytes(texts: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of all texts end to end, and the N + 1 offsets into them; nothing is copied."""
    if len(texts) == 0 or texts.buffers()[2] is None:
        return np.zeros(0, np.uint8), np.zeros(len(texts) + 1, np.int64)
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return data, offsets.astype(np.int64) - int(offsets[0])


def from_bytes(blob: bytes | memoryview) -> np.ndarray:
    """Identifiers from their bytes end to end, 16 each."""
    return np.frombuffer(blob, ">u8").astype(np.uint64).reshape(-1, 2)


def from_binary(array: pa.FixedSizeBinaryArray) -> np.ndarray:
    """Identifiers from an Arrow column of 16 bytes each."""
    start = array.offset * 16
    return from_bytes(memoryview(array.buffers()[1])[start : start + len(array) * 16])


def to_binary(identifiers: np.ndarray) -> pa.FixedSizeBinaryArray:
    """Identifiers as an Arrow column of 16 bytes each."""
    blob = np.ascontiguousarray(identifiers).astype(">u8").tobytes()
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(identifiers), [None, pa.py_buffer(blob)])


def to_hex(identifiers: np.ndarray) -> pa.StringArray:
    """Identifiers as 32 hexadecimal digits each."""
    text = np.ascontiguousarray(identifiers).astype(">u8").tobytes().hex().encode()
    offsets = np.arange(0, len(text) + 1, HEX_DIGITS, dtype=np.int32)
    return pa.StringArray.from_buffers(len(identifiers), pa.py_buffer(offsets), pa.py_buffer(text))


def from_hex(texts: pa.StringArray) -> np.ndarray:
    """Identifiers from 32 hexadecimal digits each.

    Raises:
        ValueError: If a text is anything else.
    """
    data, offsets = utf8_bytes(texts)
    if len(data) != len(texts) * HEX_DIGITS or (np.diff(offsets) != HEX_DIGITS).any():
        message = "an identifier is not 32 hexadecimal digits"
        raise ValueError(message)
    return from_bytes(bytes.fromhex(data.tobytes().decode("ascii")))


def order_of(identifiers: np.ndarray) -> np.ndarray:
    """The permutation that sorts the identifiers; equal ones keep their order."""
    high, low = identifiers[:, 0], identifiers[:, 1]
    # By the high words alone, which is enough for hashes and takes no time where sorted runs stand one after another.
    order = np.argsort(high, kind="stable")
    is_tied = high[order][1:] == high[order][:-1]
    if (low[order][1:][is_tied] < low[order][:-1][is_tied]).any():
        return np.lexsort((low, high))
    return order


def unique(identifiers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct identifiers sorted, the first position of each, and for every position its distinct number."""
    order = order_of(identifiers)
    ordered = identifiers[order]
    is_new = np.ones(len(ordered), bool)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    inverse = np.empty(len(ordered), np.int32)
    inverse[order] = np.cumsum(is_new, dtype=np.int32) - 1
    return ordered[is_new], order[is_new], inverse


def first_of_each(*words: np.ndarray) -> np.ndarray:
    """The first position of each distinct combination of words, sorted by them, `(D,)`."""
    order = np.lexsort(words[::-1])
    is_new = np.ones(len(order), bool)
    is_new[1:] = np.logical_or.reduce([word[order][1:] != word[order][:-1] for word in words])
    return order[is_new]


def places(identifiers: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each wanted identifier among distinct sorted ones, -1 where it is not there, `(K,)`."""
    if len(identifiers) == 0:
        return np.full(len(wanted), -1)
    # In order: searching here and there in a long array mostly waits for memory.
    order, place, last = np.argsort(wanted[:, 0]), np.empty(len(wanted), np.int64), len(identifiers) - 1
    place[order] = np.minimum(np.searchsorted(identifiers[:, 0], wanted[order, 0]), last)
    while True:  # once, but for identifiers that share their high word
        is_behind = (identifiers[place, 0] == wanted[:, 0]) & (identifiers[place, 1] < wanted[:, 1]) & (place < last)
        if not is_behind.any():
            break
        place[is_behind] += 1
    return np.where((identifiers[place] == wanted).all(axis=1), place, -1)


def is_less(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Whether each left identifier sorts before the right one, `(N,)` bool."""
    return (left[:, 0] < right[:, 0]) | ((left[:, 0] == right[:, 0]) & (left[:, 1] < right[:, 1]))
