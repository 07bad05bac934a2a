import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nnrcodec.errors import ConfigError
from nnrcodec.formats import write_atomically


def test_bytes_and_writers_fill_a_file(tmp_path):
    target = tmp_path / "file"
    write_atomically(target, b"one")
    assert target.read_bytes() == b"one"
    write_atomically(str(target), lambda file: file.write(b"two"))
    assert target.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_atomically(target, fail)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_atomically(tmp_path / "link", b"content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"content"


def test_what_is_not_a_regular_file_is_not_replaced():
    write_atomically(os.devnull, b"content")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


@pytest.mark.parametrize("name", ["no_such_folder/file", "."])
def test_what_cannot_be_written_is_a_config_error(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot write"):
        write_atomically(tmp_path / name, b"")


class Full:
    """A file on a disk that is full."""

    def __init__(self, file):
        self.file = file

    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_writer_does_not_see_that_the_disk_is_full(tmp_path, monkeypatch):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    wrote = []
    real = Path.open

    class Opened(Full):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    monkeypatch.setattr(
        Path, "open", lambda path, mode="r": Opened(real(path, mode)) if "x" in mode else None
    )
    with pytest.raises(ConfigError, match=f"cannot write {target}: No space left on device"):
        write_atomically(target, lambda file: wrote.extend(file.write(b"new") for _ in range(3)))
    monkeypatch.undo()
    assert wrote == [3, 3, 3]
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


SAVE = """
import resource, sys
from pathlib import Path
import numpy as np
from nnrcodec.errors import ConfigError
from nnrcodec.formats import save
from nnrcodec.graph.graph import Graph, Input, Node, Ref, TensorRef
from nnrcodec.model.model import Model, Tensor

node = Node("aten.add.Tensor", (Ref(0), TensorRef("w")))
graph = Graph((Input("x", "float32", (9000,)),), (node,), Ref(1))
model = Model.of([Tensor.of("w", np.ones(9000, np.float32))], graph)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    save(model, Path(sys.argv[1]))
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize("ending", ["pt2", "pt", "safetensors"])
def test_every_format_says_that_the_disk_is_full(tmp_path, ending):
    """A limit on the size of files stands for the disk: the error comes in the same places."""
    target = tmp_path / f"model.{ending}"
    target.write_bytes(b"old")
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SAVE, target], capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"cannot write {target}: File too large\n"
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd)))
    monkeypatch.setattr(
        Path, "replace", lambda path, to: (order.append("replace"), replace(path, to))
    )
    write_atomically(tmp_path / "file", b"content")
    assert order == ["fsync", "replace", "fsync"]
