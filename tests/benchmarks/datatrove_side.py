"""Near duplicates by datatrove, run by an interpreter that has it: `datatrove_side.py TEXTS OUT BANDS ROWS`.

Reads pairs as JSON lines, writes the number of each row's cluster. The tokenizer is `str.split`, the cheapest there
is, so that spaCy's cost is not held against datatrove (nor has it to be installed); no step verifies candidates.
"""

import json
import resource
import struct
import sys
import tempfile
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupSignature,
)
from datatrove.utils.logging import logger

SPLIT_AT_SPACES = "ace_Arab"
"""A language whose tokenizer needs no package; what it does is replaced."""


class Words:
    """The words between spaces."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()


def clusters(texts: Path, folder: Path, bands: int, rows: int) -> list[int]:
    """Per row the number of its cluster, -1 where it stands alone."""
    config = MinhashConfig(n_grams=2, num_buckets=bands, hashes_per_bucket=rows)
    signatures, duplicates, found = (str(folder / name) for name in ("signatures", "duplicates", "found"))
    step = MinhashDedupSignature(signatures, config=config, language=SPLIT_AT_SPACES)
    step.word_tokenizer = Words()
    with texts.open(encoding="utf-8") as lines:
        step.run(Document(text="\n".join(json.loads(line)), id=str(place)) for place, line in enumerate(lines))
    for band in range(bands):
        MinhashDedupBuckets(signatures, duplicates, config=config, lines_to_buffer=-1).run(None, band, bands)
    MinhashDedupCluster(duplicates, found, config=config, save_cluster_id=True, lines_to_buffer=-1).run(None, 0, 1)
    with texts.open(encoding="utf-8") as lines:
        result = [-1] * sum(1 for _ in lines)
    written = Path(found) / "000000.clusters"
    for row, number in struct.iter_unpack("<2I", written.read_bytes() if written.exists() else b""):
        result[row] = number
    return result


def main() -> None:
    """Measure and write what was found."""
    texts, out, bands, rows = sys.argv[1:]
    logger.remove()
    with tempfile.TemporaryDirectory() as folder:
        before = time.process_time()
        result = clusters(Path(texts), Path(folder), int(bands), int(rows))
        cpu = time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    Path(out).write_text(json.dumps({"result": result, "cpu_s": cpu, "peak_mb": peak}))


if __name__ == "__main__":
    main()
