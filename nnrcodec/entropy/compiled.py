"""How kernels are compiled: once per machine, in machine code, without the interpreter's lock.

Owns the decorator of all kernels, the message to whoever waits for the first compilation, and what
becomes of a cache on disk that is damaged: the kernel is compiled anew and takes its place.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

_PATIENCE_S = 1.0
"""Compilation that takes longer is announced; loading from the cache takes much less."""

ANNOUNCE = "NNRCODEC_ANNOUNCE_COMPILATION"
"""Variable of the environment: where it is ``0``, nothing is announced. For programs that look at
what a command writes, which must not depend on what is in a cache."""

logger = logging.getLogger(__name__)


_DIGEST_BYTES = 32


class _CheckedFiles(IndexDataCacheFile):
    """The files of a kernel; machine code is not loaded unless it is what was saved."""

    def _save_data(self, name: str, data: Any) -> None:
        content = self._dump(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(content + hashlib.sha256(content).digest())

    def _load_data(self, name: str) -> Any:
        content = Path(self._data_path(name)).read_bytes()
        digest = hashlib.sha256(content[:-_DIGEST_BYTES]).digest()
        if content[-_DIGEST_BYTES:] != digest:
            raise ValueError(f"{name} is not what was saved")
        return super()._load_data(name)  # which does not mind what follows the data


class _CheckedCache(FunctionCache):
    """The cache of a kernel, which is as if it were empty where it is damaged."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _CheckedFiles(
            cache_path=self._cache_path,
            filename_base=f"{self._impl.filename_base}-checked",
            source_stamp=self._impl.locator.get_source_stamp(),
        )

    def load_overload(self, signature: Any, target: Any) -> Any:
        try:
            return super().load_overload(signature, target)
        except Exception as error:  # whatever comes of reading what is damaged
            _say_damaged(self._cache_path, error)
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        try:
            super().save_overload(signature, compiled)
        except Exception:
            try:
                self.flush()
                super().save_overload(signature, compiled)
            except Exception as error:  # a full disk: the kernel is there all the same
                logger.warning("cannot keep compiled code in %s: %s", self._cache_path, error)


_saying = threading.Lock()
_damaged: set[str] = set()


def _say_damaged(folder: str, error: Exception) -> None:
    with _saying:
        if folder not in _damaged:
            _damaged.add(folder)
            logger.warning(
                "the cache of compiled code in %s is damaged (%s); what is damaged is compiled "
                "anew and replaced",
                folder,
                error or type(error).__name__,
            )


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function on its first call; keep the result in the cache on disk.

    Where no folder for the cache can be written, it is compiled once per process.
    """
    compiled: Any = numba.njit(nogil=True)(function)
    try:
        compiled._cache = _CheckedCache(function)
    except RuntimeError:
        logger.debug("numba finds no place for its cache")
    return compiled


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function part of each kernel that calls it.

    It should take numbers only: references to arrays are counted at each call.
    """
    compiled: Any = numba.njit(nogil=True, forceinline=True)(function)
    return compiled


def shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function part of each kernel that calls it, before types are known.

    It may take arrays. What a constant argument rules out is not compiled.
    """
    compiled: Any = numba.njit(inline="always")(function)
    return compiled


_done: set[str] = set()
_said: set[str] = set()


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Log a message if what happens inside takes longer than a moment; only the first time.

    Nothing is logged where the variable `ANNOUNCE` of the environment says so.

    Parameters
    ----------
    what : str
        What is being compiled.
    """
    if what in _done or os.environ.get(ANNOUNCE) == "0":
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
