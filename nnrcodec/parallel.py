"""Work in threads, with results in order, and the threads of PyTorch.

An operator of PyTorch may round otherwise with another number of threads. Where results decide
about bytes, each operator has one thread, and several inputs run at once instead.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 4
"""How many results a thread may be ahead of the one that is waited for."""

_allowed: ContextVar[int | None] = ContextVar("threads of PyTorch", default=None)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let each operator of PyTorch have one thread, so that it rounds the same everywhere."""
    token = _allowed.set(torch_threads())
    try:
        with threads_of_torch(1):
            yield
    finally:
        _allowed.reset(token)


@contextmanager
def all_torch_threads() -> Iterator[None]:
    """Let operators have their threads back, inside of `one_torch_thread`."""
    with threads_of_torch(torch_threads()):
        yield


@contextmanager
def threads_of_torch(threads: int) -> Iterator[None]:
    """Let each operator of PyTorch have so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def torch_threads() -> int:
    """Return how many threads PyTorch may have, also inside of `one_torch_thread`."""
    import torch

    return _allowed.get() or torch.get_num_threads()


def in_order(
    work: Callable[[T], R], items: Iterable[T], threads: int | None, ahead: int = _AHEAD
) -> Iterator[R]:
    """Yield the result of each item in their order, some of them worked out at once.

    Parameters
    ----------
    work : callable
        What to do; it may run in another thread.
    items : iterable
        Taken as they are needed.
    threads : int or None
        How many to work out at once; None for one a processor.
    ahead : int
        How many results a thread may be ahead of the one that is waited for.
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
                if len(pending) >= ahead * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
