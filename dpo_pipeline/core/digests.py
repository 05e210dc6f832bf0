"""Content digests: the names of files, settings and artifacts. Contents only, never paths, times or machine names."""

import hashlib
import json
from pathlib import Path
from typing import Any

READ_BYTES = 1 << 20


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. NaN and infinities are refused.

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of_json(value: Any) -> str:
    """The SHA-256 of a value's canonical JSON.

    >>> digest_of_json({"a": 1, "b": 2}) == digest_of_json({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def short(digest: str) -> str:
    """The first twelve digits, for people's eyes only; identity always uses the whole digest.

    >>> short("0123456789abcdef")
    '0123456789ab'
    """
    return digest[:12]
