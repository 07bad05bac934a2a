"""How the C library treats memory that is freed, for commands that run networks."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Parameters of ``mallopt`` of the GNU C library."""

_KEPT_BYTES = 2**29
_LARGEST_KEPT_BYTES = 2**28


def reuse_freed_memory() -> None:
    """Let this process use memory again that it has freed, rather than give it back at once.

    Activations are allocated anew for each layer and each input. By default all above 128 KiB are
    given back when they are freed, and the system has to clear every page again, which took up to a
    quarter of the time of an encoder. Does nothing with other C libraries than that of GNU.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_ARENA_MAX, 1)  # arenas of threads do not grow beyond 64 MiB
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
