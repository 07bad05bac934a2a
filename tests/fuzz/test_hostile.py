"""Hostile streams of the conformance folder, used in every way in a bounded child.

What comes of each is in the manifest under ``may``. Decoding a stream, building a network from it
and writing a .pt2 file may take the CPU time and memory that `fuzz.bounded` promises; because the
machines of tests are busy, time is multiplied by `SLACK`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz.bounded import Budget, Server

FOLDER = Path(__file__).parents[2] / "conformance"
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())
HOSTILE = [name for name, case in MANIFEST.items() if "may" in case]
SLACK = 5.0
USES = ("inspect", "decode", "merge", "decode_model", "pt2_only")
SHARED = Path(__file__).parents[3] / "shared" / "cases" / "22-hostile"
LOADED_AGAIN = (
    "input_named_debug",
    "input_named_self",
    "inputs_named_as_made_code_names_things",
    "layer_with_code",
    "layers_named_as_keywords",
    "name_with_code",
    "name_with_terminal_codes",
    "names_with_code",
    "nan_returned",
    "nothing_returned",
    "odd_keys",
    "statistics_of_other_memory",
    "taken_apart_into_nothing",
    "tensor_named_graph",
)
"""Cheap to run; PyTorch makes source of a network when it loads the file."""

TOUCH_OTHER_MEMORY = (
    "norm_of_nothing",
    "norm_of_other_memory",
    "recurrence_with_too_many_axes",
    "sampler_without_a_mode",
    "statistics_of_other_memory",
)
"""Operators that look at their arguments too little, in PyTorch 2.13 on the CPU."""
OUR_ERRORS = ("SyntaxElementError", "LimitExceededError", "UnsupportedFeatureError")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(Budget(seconds=15.0)) as started:
        yield started


def test_all_streams_are_small() -> None:
    assert len(HOSTILE) > 40
    for name in HOSTILE:
        assert (FOLDER / MANIFEST[name]["file"]).stat().st_size < 120_000, name


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_streams_are_refused_or_cost_little(server: Server, name: str, use: str) -> None:
    data = (FOLDER / MANIFEST[name]["file"]).read_bytes()
    outcome = server.use(use, data)
    assert outcome.problem(SLACK) is None, outcome.detail
    kind = "decodes" if outcome.kind == "fine" else outcome.kind
    without_graph = kind == "ModelError" and use in {"decode_model", "pt2_only"}
    # what is wrong with a graph, or costs too much, may be found when it is used
    early = kind == "decodes" and use == "inspect"
    assert kind in MANIFEST[name]["may"] or without_graph or early


@pytest.mark.parametrize("name", LOADED_AGAIN)
def test_a_file_that_is_written_can_be_loaded_and_runs_no_code(server: Server, name: str) -> None:
    data = (FOLDER / MANIFEST[name]["file"]).read_bytes()
    outcome = server.use("pt2", data)
    assert outcome.problem(SLACK) is None, outcome.detail


@pytest.mark.parametrize("name", TOUCH_OTHER_MEMORY)
def test_a_network_never_sees_memory_that_is_not_its_own(server: Server, name: str) -> None:
    data = (FOLDER / MANIFEST[name]["file"]).read_bytes()
    outcome = server.use("must_not_run", data)
    assert outcome.problem(SLACK) is None, outcome.detail


def test_no_operator_reads_or_writes_beside_its_arguments() -> None:
    run = [sys.executable, "-m", "tests.fuzz.memory", "1000", "2600"]
    done = subprocess.run(run, cwd=FOLDER.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared cases here")
@pytest.mark.parametrize("use", USES)
def test_streams_of_the_issue_are_refused_or_cost_little(server: Server, use: str) -> None:
    for path in sorted(SHARED.glob("*.nnr")):
        outcome = server.use(use, path.read_bytes())
        assert outcome.problem(SLACK) is None, path.stem
        assert outcome.kind in ("fine", *OUR_ERRORS), path.stem
