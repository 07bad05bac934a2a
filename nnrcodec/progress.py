"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Progress = Callable[[int, int], None]
"""Called with how much is done, and how much there is."""

Stages = Callable[[str], AbstractContextManager[Progress]]
"""Called with the name of a stage of work; says how far the stage is."""


@contextmanager
def silently(_stage: str) -> Iterator[Progress]:
    """Say nothing."""
    yield lambda _done, _total: None
