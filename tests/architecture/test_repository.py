from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str) -> str:
    """Run a command in the repository and return what it says; it must succeed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_linter_has_nothing_to_say() -> None:
    run(sys.executable, "-m", "ruff", "check")


def test_everything_is_formatted() -> None:
    run(sys.executable, "-m", "ruff", "format", "--check")


def test_types_are_consistent() -> None:
    run(sys.executable, "-m", "mypy")


def files() -> list[Path]:
    """Return what is in the repository or about to be."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_no_file_refers_to_what_is_outside_the_repository() -> None:
    outside = ["/".join(["", "shared", "reference"]), "/".join(["", "work", ""])]
    for path in files():
        content = path.read_bytes()
        for place in outside:
            assert place.encode() not in content, f"{path} mentions {place}"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_every_test_folder_mirrors_the_package_or_cuts_across_it() -> None:
    across = {"architecture", "conformance", "examples", "fuzz"}
    for folder in {path.parent for path in files() if path.name.startswith("test_")}:
        name = folder.relative_to(ROOT / "tests").as_posix()
        assert name in across | {"."} or (ROOT / "nnrcodec" / name).is_dir(), name
