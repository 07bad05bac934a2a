"""For all tests: one thread in each of several processes, and no look at the cache of kernels.

Processes with several threads would fight for the cores. And what a test sees must not depend on
whether it is the first on a machine that needs a kernel: commands and the package do not announce
that they compile, and no example of Hypothesis has a deadline.
"""

import os

from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is imported, here or below

os.environ["NNRCODEC_ANNOUNCE_COMPILATION"] = "0"

settings.register_profile("patient", settings(deadline=None))
settings.load_profile("patient")
