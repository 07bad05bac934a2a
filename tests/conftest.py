"""For all tests: one thread in each of several processes, and no look at the cache of kernels.

Processes with several threads would fight for the cores. And what a test sees must not depend on
whether it is the first on a machine that needs a kernel: commands and the package do not announce
that they compile, and no example of Hypothesis has a deadline.
"""

import os

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is imported, here or below

os.environ["NNRCODEC_ANNOUNCE_COMPILATION"] = "0"

settings.register_profile("patient", settings(deadline=None))
settings.load_profile("patient")

_LONG = {"test_readme.py", "test_postfilter.py", "test_scripts.py"}
"""Files that take minutes: first, so that no process has one left when the others are done."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep the order of files: pytest-xdist starts those of few tests last."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long files first."""
    items.sort(key=lambda item: item.path.name not in _LONG)
