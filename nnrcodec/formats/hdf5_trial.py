"""Reads all of an HDF5 file and does nothing with it: a program for a process of its own.

    python hdf5_trial.py FILE BYTES        FILE: - for standard input; BYTES: of a dataset, at most

The library that reads HDF5 is in C, and files that are damaged or made to do so can let it loop or
crash. `nnrcodec.formats.hdf5` runs this program first, which can be stopped. It imports nothing of
the package, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

try:
    import h5py
except ImportError:
    raise SystemExit(77) from None  # NO_LIBRARY of `nnrcodec.formats.hdf5_readable`


def try_all(file: Any, most_bytes: int) -> None:
    """Read the attributes and the datasets of a file; errors are those of who reads it next."""

    def visit(_: str, entry: Any) -> None:
        for key in entry.attrs:
            _attempt(lambda: entry.attrs[key])  # noqa: B023 - called at once
        if isinstance(entry, h5py.Dataset):
            _attempt(lambda: _read(entry, most_bytes))

    visit("", file)
    file.visititems(visit)


def _read(entry: Any, most_bytes: int) -> None:
    elsewhere = entry.external or entry.is_virtual
    if entry.shape is not None and not elsewhere and entry.nbytes <= most_bytes:
        entry[()]


def _attempt(read: Any) -> None:
    with contextlib.suppress(Exception):  # h5py raises many kinds
        read()


if __name__ == "__main__":
    name, limit = sys.argv[1:]
    source = io.BytesIO(sys.stdin.buffer.read()) if name == "-" else name
    with h5py.File(source, "r") as opened:
        try_all(opened, int(limit))
