"""One entry of the inbox: complete, waiting, or never to be taken in, and the words for it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_pipeline.annotations.drops import COMPLETE, is_left_out
from dpo_pipeline.core.digests import digest_of_json

NO_NAME = "its name is no drop name: a letter or digit, then up to 127 letters, digits, dots, hyphens or underscores"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One entry of the inbox.

    Attributes:
        name: Its name there.
        state: Fingerprint of the names, sizes and times of its files; changes when any of them does.
        hindrance: Why it is not taken in, a clause; None where it is complete.
        is_waiting: Whether time alone will make it complete.
        files: How many files it holds.
        bytes: Their size.
    """

    name: str
    state: str
    hindrance: str | None = None
    is_waiting: bool = False
    files: int = 0
    bytes: int = 0


def judged(
    name: str, facts: list[list[Any]], sizes: Mapping[str, int], newest: float | None, rest_seconds: float
) -> Delivery:
    """A drop's files as a delivery: complete by marker or rest, or what it waits for.

    Args:
        name: The drop's name.
        facts: Per file its path in the drop and whatever changes when it does.
        sizes: Bytes per file.
        newest: When the youngest change was, in seconds since 1970; None where nobody tells.
        rest_seconds: How long nothing may have changed where there is no marker.
    """
    state = digest_of_json(sorted(facts))[:16]
    delivered = [path for path in sizes if not is_left_out(Path(path))]
    count, size = len(delivered), sum(sizes[path] for path in delivered)
    hindrance, is_waiting = None, False
    if not delivered:
        hindrance, is_waiting = "it holds no files", True
    elif COMPLETE not in sizes:
        if newest is None:
            hindrance = f"this store tells no times, so it needs {COMPLETE}"
        elif (age := time.time() - newest) <= rest_seconds:
            hindrance = f"its last change was {max(age, 0):.0f} s ago and {COMPLETE} is not there"
            is_waiting = True
    return Delivery(name, state, hindrance, is_waiting, count, size)
