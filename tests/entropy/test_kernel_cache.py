"""A damaged cache of compiled code costs a compilation and a message, nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import logging, sys
logging.basicConfig(format="%(message)s")
from nnrcodec.entropy.compiled import kernel
from kernels import double
double = kernel(double)
print(double(21))
print(sum(double.stats.cache_hits.values()))
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "kernels.py").write_text("def double(x):\n    return 2 * x\n")

    def run(folder="cache"):
        env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / folder), "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
        assert done.returncode == 0, done.stderr
        answer, hits = done.stdout.split()
        assert answer == "42"
        return int(hits), done.stderr

    return run


def files(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.nb[ic]"))
    assert [path.suffix for path in found] == [".nbc", ".nbi"]
    return found


def garbled(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "garbled in the middle": garbled,
    "garbled at the start": lambda content: b"\xff" + content[1:],
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("which", [0, 1], ids=["code", "index"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_is_replaced(run, tmp_path, which, damage):
    assert run() == (0, "")
    assert run() == (1, "")
    path = files(tmp_path / "cache")[which]
    path.write_bytes(damage(path.read_bytes()))
    hits, said = run()
    assert hits == 0
    assert f"the cache of compiled code in {path.parent} is damaged" in said
    assert run() == (1, "")


def test_a_cache_that_cannot_be_written_is_said_to_be_one(run, tmp_path):
    assert run() == (0, "")
    code, index = files(tmp_path / "cache")
    code.unlink()
    code.mkdir()
    (code / "in the way").touch()
    hits, said = run()
    assert hits == 0
    assert f"cannot keep compiled code in {code.parent}" in said
    assert index.exists()


def test_no_place_for_a_cache_is_no_error(run, tmp_path):
    (tmp_path / "cache").write_text("a file")
    hits, _ = run()
    assert hits == 0
