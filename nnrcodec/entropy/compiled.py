"""How kernels are compiled: once per machine, in machine code, without the interpreter's lock.

Owns the decorator of all kernels and the message to whoever waits for the first compilation.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba

_PATIENCE_S = 1.0
"""Compilation that takes longer is announced; loading from the cache takes much less."""

logger = logging.getLogger(__name__)


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function on its first call; keep the result in the cache on disk.

    Where no folder for the cache can be written, it is compiled once per process.
    """
    try:
        compiled: Any = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba finds no place for its cache
        compiled = numba.njit(nogil=True)(function)
    return compiled


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function part of each kernel that calls it.

    It should take numbers only: references to arrays are counted at each call.
    """
    compiled: Any = numba.njit(nogil=True, forceinline=True)(function)
    return compiled


_done: set[str] = set()
_said: set[str] = set()
_saying = threading.Lock()


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Log a message if what happens inside takes longer than a moment; only the first time.

    Parameters
    ----------
    what : str
        What is being compiled.
    """
    if what in _done:
        yield
        return

    def say() -> None:
        with _saying:  # several threads may wait for the same compilation
            if what not in _said:
                _said.add(what)
                logger.warning("compiling %s for this machine, once; this takes some seconds", what)

    timer = threading.Timer(_PATIENCE_S, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        _done.add(what)
