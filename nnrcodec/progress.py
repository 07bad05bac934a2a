"""How long work says how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Progress = Callable[[int, int], None]
"""Called with how much is done, and how much there is."""

StageProgress = Callable[[str, int, int], None]
"""Called with the name of a stage of work, how much of it is done, and how much there is."""

Stages = Callable[[str], AbstractContextManager[Progress]]
"""Called with the name of a stage of work; says how far the stage is."""


@contextmanager
def silently(_stage: str) -> Iterator[Progress]:
    """Say nothing."""
    yield lambda _done, _total: None


class TimedStages:
    """Stages that tell a callable how far they are, and how long they took.

    Parameters
    ----------
    progress : callable, optional
        Told how far each stage is.
    """

    def __init__(self, progress: StageProgress | None = None) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[Progress]:
        """Say how far a stage is, and add up how long it takes."""
        start = time.perf_counter()
        progress = self._progress

        def say(done: int, total: int) -> None:
            if progress is not None:
                progress(stage, done, total)

        try:
            yield say
        finally:
            seconds = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
