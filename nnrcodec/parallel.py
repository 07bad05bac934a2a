"""Work in threads, with results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 4
"""How many results a thread may be ahead of the one that is waited for."""


def in_order(work: Callable[[T], R], items: Iterable[T], threads: int | None) -> Iterator[R]:
    """Yield the result of each item in their order, some of them worked out at once.

    Parameters
    ----------
    work : callable
        What to do; it may run in another thread.
    items : iterable
        Taken as they are needed.
    threads : int or None
        How many to work out at once; None for one a processor.
    """
    threads = threads or os.cpu_count() or 1
    if threads == 1:
        yield from map(work, items)
        return
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= _AHEAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
