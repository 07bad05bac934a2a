import os
import socket

import pytest

from nnrcodec.errors import ConfigError
from nnrcodec.formats import MAX_STREAM_BYTES, load, read_stream_file


def test_a_file_is_read_through_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_stream_file(tmp_path / "link") == b"content"


@pytest.mark.parametrize("read", [read_stream_file, load])
def test_a_pipe_without_a_writer_does_not_wait(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.pt2")
    with pytest.raises(ConfigError, match=r"is a pipe, not a file; .* give -"):
        read(tmp_path / "pipe.pt2")


@pytest.mark.parametrize("read", [read_stream_file, load])
def test_a_device_is_not_read(tmp_path, read):
    (tmp_path / "zero.pt").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="is a device, not a file"):
        read(tmp_path / "zero.pt")


def test_a_folder_a_socket_and_nothing_are_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(ConfigError, match="cannot read"):
            read_stream_file(tmp_path / "socket")
    with pytest.raises(ConfigError, match="is a folder, not a file"):
        read_stream_file(tmp_path)
    with pytest.raises(ConfigError, match="No such file"):
        read_stream_file(tmp_path / "none")
    with pytest.raises(ConfigError, match="null byte"):
        read_stream_file("a\0b")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(100 * 2**30)
    with pytest.raises(ConfigError, match=f"has {100 * 2**30} bytes, at most {MAX_STREAM_BYTES}"):
        read_stream_file(tmp_path / "sparse")
