import os
import stat
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
