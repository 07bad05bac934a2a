"""A little fuzzing at every test run; ``python -m tests.fuzz`` goes on for as long as you like."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.__main__ import TARGETS, Fuzzer, corpus
from fuzz.bounded import Budget, Outcome, Server

SEEDS = int(os.environ.get("NNRCODEC_FUZZ", "20"))
SLACK = 5.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(Budget(seconds=15.0)) as started:
        yield started


@pytest.mark.parametrize(("name", "use", "given"), corpus(), ids=[name for name, *_ in corpus()])
def test_what_was_found_before(server: Server, name: str, use: str, given: list[bytes]) -> None:
    assert server.use(use, *given).problem(SLACK) is None, name


@pytest.mark.parametrize("target", TARGETS)
def test_seeds(server: Server, target: str, tmp_path: Path) -> None:
    fuzzer = Fuzzer(server, tmp_path, SLACK)
    for seed in range(SEEDS):
        fuzzer.step(target, seed)
    assert not fuzzer.found
    assert fuzzer.counts["not made"] < SEEDS / 2


def test_the_targets_are_those_of_the_command_line() -> None:
    run = "from fuzz.targets import TARGETS; print(*TARGETS)"
    folder = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", run], cwd=folder, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == set(TARGETS)


def test_a_child_that_dies_is_a_finding() -> None:
    assert Outcome("killed", "signal 11").problem() == "killed: signal 11"
    assert Outcome("fine", seconds=2.5).problem() is not None
    assert Outcome("fine", seconds=2.5).problem(2.0) is None
    assert Outcome("fine", memory=2**29).problem(9.0) is not None
    assert Outcome("SyntaxElementError", "so it is", seconds=0.1).problem() is None
