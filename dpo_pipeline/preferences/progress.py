"""Progress of long steps: a line every few seconds, with count and rate."""

import time

from dpo_pipeline.core.metrics import Reporter

SAY_EVERY_SECONDS = 8.0


class Progress:
    """Counts what a step has done and says so now and then; short steps say nothing.

    Args:
        reporter: Told.
        done: What was done, as a past participle with its noun: "judgments named".
        total: How many there will be.
    """

    def __init__(self, reporter: Reporter, done: str, total: int) -> None:
        self._reporter, self._done, self._total = reporter, done, total
        self._started = self._said = time.monotonic()
        self._count = 0

    def add(self, count: int) -> None:
        """So many more are done, or as many as there were left: pieces are counted whole."""
        self._count = min(self._count + count, self._total)
        now = time.monotonic()
        if now - self._said >= SAY_EVERY_SECONDS:
            self._said = now
            rate = self._count / (now - self._started)
            self._reporter.say(f"{self._count:,} of {self._total:,} {self._done}, {rate:,.0f} a second")
