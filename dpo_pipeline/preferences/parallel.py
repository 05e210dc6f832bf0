"""Independent pieces of work on as many threads as Arrow uses: numpy and Arrow let go of the interpreter lock."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 4
"""Beyond this the pieces of Python between the array operations stand in each other's way."""


def in_order(items: Iterable[Item], work: Callable[[Item], Result]) -> Iterator[Result]:
    """What `work` makes of each item, in the order of the items, several at a time.

    Items are drawn as workers get free and results are handed on at once, so neither are ever all in memory.
    """
    workers = min(pa.cpu_count(), MOST_WORKERS)
    running: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
