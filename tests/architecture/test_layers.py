"""Imports point down, and there is no circle; one line for each room (see `architecture.rooms`).

=====  =======================================================================================
floor  rooms
=====  =======================================================================================
0      what knows nothing of the others: errors, limits, messages, progress, parallel, version
1      what is coded (model); types of what callers give (checks); the package itself
       (__init__), which loads every name when it is used first
2      coders of levels (entropy); networks as data (graph)
3      units as headers without payloads (syntax); model files, and what callers hand over
       (formats)
4      levels and their step sizes (quant)
5      data units in both directions (units); what a network does with inputs (calibration)
6      low rank, batch norm, distillation (reduce)
7      whole streams (container); what an encoder is asked to do (config)
8      the way back (decoder); what is in a stream (inspection)
9      the way there (encoder), which decodes in its search and for updates
10     the public functions (api); original against reconstructed (evaluate)
11     the public functions for folders of shards (folders)
12     the command line (cli), and above it python -m nnrcodec (__main__)
=====  =======================================================================================
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from architecture.rooms import PACKAGE, arrows, floors, imported_modules, imports, modules, room

FLOORS = {
    "errors": 0,
    "limits": 0,
    "messages": 0,
    "parallel": 0,
    "progress": 0,
    "version": 0,
    "__init__": 1,
    "checks": 1,
    "model": 1,
    "entropy": 2,
    "graph": 2,
    "formats": 3,
    "syntax": 3,
    "quant": 4,
    "calibration": 5,
    "units": 5,
    "reduce": 6,
    "config": 7,
    "container": 7,
    "decoder": 8,
    "inspection": 8,
    "encoder": 9,
    "api": 10,
    "evaluate": 10,
    "folders": 11,
    "cli": 12,
    "__main__": 13,
}

ONLY_IN = {
    "numba": {"entropy/compiled.py"},
    "constriction": {"entropy/ans/payload.py"},
    "bitstring": {"syntax/bitio.py"},
    "safetensors": {"formats/safetensors.py"},
    "tqdm": {"cli/command.py"},
    "torch": {
        "formats/mat/module.py",
        "graph/export.py",
        "graph/generality.py",
        "graph/module.py",
        "graph/operators_torch.py",
        "graph/preparing.py",
        "reduce/curvature.py",
        "graph/operator_table.py",
        "graph/program.py",
        "graph/torch_internals.py",
        "graph/trusting_operators.py",
        "formats/onnx/calls.py",
        "formats/onnx/elementwise.py",
        "formats/onnx/export.py",
        "formats/onnx/layers.py",
        "formats/onnx/recurrent.py",
        "formats/onnx/resize.py",
        "formats/onnx/shapes.py",
        "formats/onnx/translation.py",
        "decoder/loading.py",
        "calibration/amount.py",
        "calibration/inputs.py",
        "calibration/maker.py",
        "calibration/moments.py",
        "calibration/outputs.py",
        "calibration/picture_files.py",
        "calibration/ranges.py",
        "calibration/reference.py",
        "calibration/sensitivity.py",
        "calibration/synthetic.py",
        "calibration/walk.py",
        "reduce/optimizer.py",
        "reduce/training.py",
        "evaluate/evaluation.py",
        "evaluate/loss.py",
        "evaluate/measure.py",
        "evaluate/networks.py",
        "evaluate/tasks.py",
    },
}
"""Modules that may import a library when they are imported themselves."""

MODULES = modules()


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in MODULES} == set(FLOORS)


def test_imports_point_down() -> None:
    wrong = [
        place for (a, b), places in arrows().items() if FLOORS[a] <= FLOORS[b] for place in places
    ]
    assert not wrong


def test_no_modules_import_one_another_in_a_circle() -> None:
    floors(
        {str(module): set(map(str, imported_modules(module))) - {str(module)} for module in MODULES}
    )


def test_the_map_in_the_readme_names_every_room() -> None:
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    missing = [
        name for name in FLOORS if f"`nnrcodec/{name}" not in text and not name.startswith("__")
    ]
    assert not missing


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_are_absolute(module: Path) -> None:
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    found = {
        module.as_posix()
        for module in MODULES
        for imported in imports(module, anywhere=False)
        if imported.partition(".")[0] == library
    }
    assert found
    assert found <= ONLY_IN[library]


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) != "cli"], ids=str)
def test_only_the_command_line_prints_or_exits(module: Path) -> None:
    calls = [
        ast.unparse(node.func)
        for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    assert not {"print", "sys.exit", "exit", "input"} & set(calls) or module.stem == "__main__"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_nothing_evaluates_or_unpickles(module: Path) -> None:
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not {"eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads"} & called
    assert not {"pickle", "marshal", "shelve"} & set(imports(module, anywhere=True))
