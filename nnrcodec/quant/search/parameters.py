"""Numbers that the searches share with their loops, plain and compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

STATES = 8
NEIGHBOURS = 3
"""Signs that the level before may have: zero, negative, positive."""


class Pace(NamedTuple):
    """How fast the search goes on, and forgets.

    Parameters
    ----------
    chunk : int
        Levels decided before rates are estimated anew.
    lookahead : int
        Levels searched beyond a chunk before it is decided.
    memory : int
        Bins from which the frequency in a context is estimated; older ones fade.
    """

    chunk: int = 1024
    lookahead: int = 32
    memory: int = 256


PACE = Pace()

RATE_UNIT = 2**15
"""Rates are integers; this is a bit."""

RATES = np.rint(-RATE_UNIT * np.log2((np.arange(4096) + 0.5) / 4096))
"""Rate of a bin by its probability, rounded down to a multiple of 1/4096."""

REHEARSALS = 8
"""Searches of a sample that only serve to learn estimates: levels that are cheap become more
frequent, and cheaper, and it takes some rounds until that settles."""

PATHS = 16
"""Paths that survive: two to each state of dependent quantization."""

WINDOW = 32
"""Levels after which one is decided."""
