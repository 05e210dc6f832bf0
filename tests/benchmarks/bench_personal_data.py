"""What looking for personal data in the normal form costs, beside RE2 patterns on raw text, in CPU s per million texts.

    python tests/benchmarks/bench_personal_data.py --texts 100000

Texts of about 400 bytes in three lines. A share of them holds an address, a number to call, a card or figures that
look like one; in one of ten of these the blanks are no-break spaces.
"""

import argparse
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bench_preferences import World

from dpo_pipeline.preferences.normalize import normalise
from dpo_pipeline.preferences.personal_data import Suspects, redact
from dpo_pipeline.preferences.personal_finds import PERSONAL_DATA

BEFORE = (
    r"[A-Za-z0-9._%+\-]+@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)*\.[A-Za-z]{2,}",
    (
        r"(?:\+\d{1,3}[ .\-]?(?:\(\d{1,4}\)[ .\-]?)?\d{2,4}(?:[ .\-]?\d{2,4}){2,3}\b"
        r"|(?:\(\d{3}\) ?|\b\d{3}[.\-])\d{3}[.\-]\d{4}\b)"
    ),
    r"\b(?:\d[ \-]?){12,18}\d\b",
)
SUSPECTS_BEFORE = r"@|\d[\d .()\-]{5,}\d"
PLANTED = ("anna.muster@example.org", "+49 30 12345678", "4111 1111 1111 1111", "2024-05-01 12:34:56", "(555) 123-4567",
           "1 234 567 890", "order 20240501-000123")  # fmt: skip


def main() -> None:
    """Print CPU seconds per million texts by the share that holds something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=100_000)
    count = parser.parse_args().texts
    print("share with figures   suspects   found, before   found, now   redacted, before   redacted, now   normalised")
    for share in (0.0, 0.05, 1.0):
        texts = _texts(count, share)
        mask = Suspects(texts).mask
        seconds = [_cpu(work, texts, count) for work in (_found_before, _found, _redacted_before, _redacted, normalise)]
        print(f"{share:18.2f} {mask.mean():10.3f}" + "".join(f"{one:15.1f}" for one in seconds))


def _texts(count: int, share: float) -> pa.StringArray:
    world, draw = World(1, sentences=22_000), np.random.default_rng(1)
    pairs = [world.pair() for _ in range(count // 2)]
    texts = []
    for text in (text for pair in pairs for text in (pair.a, pair.b)):
        lines = [text[at : at + 150] for at in range(0, 400, 150)]
        if draw.random() < share:
            planted = PLANTED[int(draw.integers(len(PLANTED)))]
            spelt = planted.replace(" ", "\u00a0") if draw.random() < 0.1 else planted
            lines[1] += f" {spelt} and so on"
        texts.append("\n".join(lines))
    return pa.array(texts)


def _cpu(work, texts: pa.StringArray, count: int) -> float:
    started = time.process_time()
    work(texts)
    return (time.process_time() - started) * 1_000_000 / count


def _found_before(texts: pa.StringArray) -> None:
    some = texts.filter(pc.match_substring_regex(texts, SUSPECTS_BEFORE))
    for pattern in BEFORE:
        pc.match_substring_regex(some, pattern)


def _found(texts: pa.StringArray) -> None:
    found = Suspects(texts)
    for rule in PERSONAL_DATA:
        found.found(rule)


def _redacted_before(texts: pa.StringArray) -> None:
    for pattern in BEFORE:
        texts = pc.replace_substring_regex(texts, pattern, "[GONE]")


def _redacted(texts: pa.StringArray) -> None:
    redact(texts, rules=frozenset(PERSONAL_DATA))


if __name__ == "__main__":
    main()
