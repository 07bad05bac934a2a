"""Imports point down.

Each module or package of nnrcodec has a layer, and imports only from lower ones; inside a package
the modules are free. From the bottom:

==== ========================================================================================
0    what knows nothing of the others: errors, limits, dtypes, progress, threads, the version
1    the two forms in which everything is: bits, and a model of named tensors
2    syntax of units; tensors of PyTorch. They do not know of one another
3    entropy coding, which fills records of the syntax; graphs, which use the tensors of PyTorch
4    quantization, which asks entropy coding what levels cost; the container record, reduction,
     files; inputs to learn from, and what they do in a network
5    the configuration, what is in a data unit, a whole stream; models that callers hand over, and
     how tensors get into a module
6    a data unit's tensors, in both directions; reduction that learns from inputs
7    a tensor in the best way there is
8    all tensors of a stream: as the standard wants them, and as a stream has them
9    the two pipelines, and inspection
10   what builds on a decoded stream: an update, and the search for an operating point
11   the encoder of updates, which needs what their decoder knows
12   the public functions
13   the package itself, which names them
14   evaluation, which uses it
15   the command line
==== ========================================================================================

An import under ``if TYPE_CHECKING`` is for names in annotations and does not count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "nnrcodec"

LAYERS = {
    "errors": 0,
    "limits": 0,
    "progress": 0,
    "dtypes": 0,
    "version": 0,
    "parallel": 0,
    "bitio": 1,
    "model": 1,
    "syntax": 2,
    "torch_values": 2,
    "entropy": 3,
    "graph": 3,
    "calibration": 5,
    "quant": 4,
    "record": 4,
    "reduce": 4,
    "formats": 4,
    "config": 5,
    "ndu": 5,
    "stream": 5,
    "sources": 5,
    "coded_size": 5,
    "loading": 5,
    "ndu_encoding": 6,
    "ndu_decoding": 6,
    "reduction": 6,
    "distillation": 6,
    "tensor_coding": 7,
    "standard_coding": 8,
    "contents": 8,
    "quantization": 8,
    "encoder": 9,
    "decoder": 9,
    "inspection": 9,
    "search": 10,
    "updates": 10,
    "update_encoding": 11,
    "api": 12,
    "__init__": 13,
    "evaluate": 14,
    "cli": 15,
}

ONLY_IN = {
    "numba": {"entropy/compiled.py"},
    "constriction": {"entropy/ans.py"},
    "bitstring": {"bitio.py"},
    "safetensors": {"formats/safetensors.py"},
    "tqdm": {"cli/command.py"},
    "torch": {
        "graph/export.py",
        "graph/module.py",
        "graph/operators_torch.py",
        "graph/operator_table.py",
        "graph/program.py",
        "graph/trusting_operators.py",
        "loading.py",
        "calibration/amount.py",
        "calibration/inputs.py",
        "calibration/moments.py",
        "calibration/sensitivity.py",
        "calibration/synthetic.py",
        "calibration/walk.py",
        "distillation.py",
        "evaluate/evaluation.py",
        "evaluate/loss.py",
        "evaluate/measure.py",
        "evaluate/networks.py",
        "evaluate/tasks.py",
    },
}
"""Modules that may import a library when they are imported themselves."""

MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def part(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


def imports(module: Path, *, anywhere: bool) -> Iterator[str]:
    """Yield what a module imports; unless `anywhere`, only what it does on being imported."""
    pending: list[ast.AST] = [ast.parse((PACKAGE / module).read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif anywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += ast.iter_child_nodes(node)


def test_every_part_has_a_layer() -> None:
    assert {part(module) for module in MODULES} == set(LAYERS)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_down(module: Path) -> None:
    own = part(module)
    for imported in imports(module, anywhere=True):
        package, _, rest = imported.partition(".")
        other = rest.partition(".")[0]
        if package == "nnrcodec" and other != own:
            assert LAYERS[other] < LAYERS[own], f"{own} imports {imported}"


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


@pytest.mark.parametrize("module", [m for m in MODULES if part(m) != "cli"], ids=str)
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
