"""Whether the HDF5 library comes to an end with a file, which is tried in a process of its own.

The library is in C, and files that are damaged, or made to do so, let it loop or crash.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from nnrcodec.errors import ModelError
from nnrcodec.formats.torch_file import FREE_INFLATED, INFLATED

logger = logging.getLogger(__name__)

NO_LIBRARY = 77
"""Exit code of a trial that does not find h5py."""

_TRIAL = Path(__file__).with_name("hdf5_trial.py")
_TRIAL_SECONDS, _TRIAL_BYTES_PER_SECOND = 30, 20_000_000
"""What a trial may take, and for how many bytes of a file a second more."""


def most_bytes_of(file_bytes: int) -> int:
    """Return how many bytes of numbers a file of a size may have, compressed as they may be."""
    return max(FREE_INFLATED, INFLATED * file_bytes)


def require_readable(path: Path, data: bytes | None = None) -> None:
    """Raise if the HDF5 library does not come to an end with a file, or crashes.

    A process of its own reads all of it first. Other errors are left to who reads it then.

    Parameters
    ----------
    path : Path
        The file, or the archive that it is in.
    data : bytes, optional
        The file, if it is in an archive.

    Raises
    ------
    ModelError
    """
    if not sys.executable:  # Python is within another program
        return
    size = path.stat().st_size if data is None else len(data)
    name = str(path.absolute()) if data is None else "-"
    command = [sys.executable, "-I", str(_TRIAL), name, str(most_bytes_of(size))]
    seconds = _TRIAL_SECONDS + size / _TRIAL_BYTES_PER_SECOND
    try:
        done = subprocess.run(  # noqa: S603 - the program is ours
            command, input=data or b"", capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"{path} is damaged: the HDF5 library has not read it after {seconds:.0f} s"
        ) from None
    if done.returncode < 0:
        raise ModelError(f"{path} is damaged: the HDF5 library crashes when it reads it")
    if done.returncode == NO_LIBRARY:
        logger.warning(
            "%s is read without a trial in a process of its own, which does not find h5py: damaged "
            "files may let it hang",
            path,
        )
