"""Independent pieces of work on as many threads as Arrow uses: numpy and Arrow let go of the interpreter lock."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

Item = TypeVar("Item")

MOST_WORKERS = 4
"""Beyond this the pieces of Python between the array operations stand in each other's way."""


def for_each(items: Iterable[Item], work: Callable[[Item], None]) -> None:
    """Call `work` on every item, several at a time.

    Items are drawn as workers get free, so they are never all in memory. The work must not depend on its order: each
    call writes to its own part of shared arrays.
    """
    workers = min(pa.cpu_count(), MOST_WORKERS)
    running: deque[Future[None]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > workers:
                running.popleft().result()
        for future in running:
            future.result()
