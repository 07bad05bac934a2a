"""What the package says through `logging`: in a run each message once; warnings are kept."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


def logger_of(name: str) -> logging.Logger:
    """Return the logger of a module whose work a search repeats: it repeats no message in a run."""
    logger = logging.getLogger(name)
    logger.addFilter(_new_in_a_run)
    return logger


_MOST_NAMED = 5


def some(words: Iterable[str], most: int = _MOST_NAMED) -> str:
    """Return the first of some words, and how many more there are.

    Examples
    --------
    >>> some("abcdefg")
    'a, b, c, d, e, and 2 more'
    """
    listed = list(words)
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f", and {more} more" if more > 0 else "")


@contextmanager
def said_once() -> Iterator[list[str]]:
    """Say each message once until the end; yield the warnings of all threads, as they come."""
    warnings, said = _Warnings(), set[str]()
    logger = logging.getLogger("nnrcodec")
    logger.addHandler(warnings)
    _runs[id(said)] = said
    try:
        yield warnings.texts
    finally:
        del _runs[id(said)]
        logger.removeHandler(warnings)


_runs: dict[int, set[str]] = {}
"""What was said in each run that has not ended."""

_lock = threading.Lock()


def _new_in_a_run(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    with _lock:
        runs = list(_runs.values())
        new = [said for said in runs if text not in said]
        for said in new:
            said.add(text)
    return bool(new) or not runs


class _Warnings(logging.Handler):
    """Keeps the texts of warnings, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        text = record.getMessage()
        if text not in self.texts:
            self.texts.append(text)
