"""A stream cannot make the decoder call anything outside the list."""

import ast
import inspect
import json
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import NETWORKS

from nnrcodec.errors import BitstreamError
from nnrcodec.graph import (
    check,
    graph,
    module,
    names,
    operators,
    operators_torch,
    program,
    scalars,
    sizes,
    text,
    trusting_operators,
)
from nnrcodec.graph.export import model_of_module
from nnrcodec.graph.module import build_module
from nnrcodec.graph.operators import OPERATORS
from nnrcodec.graph.operators_torch import FUNCTIONS
from nnrcodec.graph.text import from_json, to_json

DECODER_MODULES = (
    *(check, graph, module, names, operators, operators_torch, program, scalars, sizes, text),
    trusting_operators,
)


class Recorder(dict):
    """The table of functions; it notes what is called."""

    def __init__(self, called):
        super().__init__()
        self.called = called

    def __contains__(self, name):
        return name in FUNCTIONS

    def __getitem__(self, name):
        def call(*args, **kwargs):
            self.called.append(name)
            return FUNCTIONS[name](*args, **kwargs)

        return call


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
@torch.no_grad()
def test_what_runs_is_the_nodes_of_the_graph_through_the_table(network, monkeypatch):
    called: list[str] = []
    monkeypatch.setattr(module, "FUNCTIONS", Recorder(called))
    model = model_of_module(network.module(), (network.example(),))
    called.clear()
    build_module(model)(network.example())
    assert called == [node.op for node in model.graph.nodes]


NAME_PARTS = st.sampled_from(
    [
        *("aten", "torch", "operator", "math", "os", "sys", "builtins", "subprocess", "torch.ops"),
        *("system", "eval", "exec", "load", "load_library", "import_module", "attrgetter"),
        *("methodcaller", "call", "setitem", "__class__", "__globals__", "__reduce__", "hub"),
        *("default", "Tensor", "out", "from_file", "save", "conv2d", "relu", "getitem", "add", ""),
    ]
)
NAMES = st.lists(NAME_PARTS, min_size=1, max_size=4).map(".".join) | st.text()


@given(NAMES.filter(lambda name: name not in OPERATORS))
def test_no_other_name_gets_past_the_reader(name):
    value = {
        "inputs": [["x", "float32", [1]]],
        "dims": {},
        "ops": [name],
        "nodes": [[0, {"r": 1}]],
        "output": {"r": 1},
    }
    with pytest.raises(BitstreamError, match="allow-list"):
        from_json(json.loads(json.dumps(value)))


def test_nothing_is_called_while_a_hostile_graph_is_refused(monkeypatch):
    called: list[str] = []
    monkeypatch.setattr(module, "FUNCTIONS", Recorder(called))
    model = model_of_module(NETWORKS[0].module(), (NETWORKS[0].example(),))
    called.clear()
    value = to_json(model.graph)
    value["ops"][-1] = "os.system"
    calls: list[str] = []
    sys.addaudithook(lambda event, _: calls.append(event) if recording else None)
    recording = True
    with pytest.raises(BitstreamError, match=r"os\.system"):
        from_json(value)
    recording = False
    assert called == []
    assert not set(calls) & {"import", "exec", "compile", "open", "os.system", "subprocess.Popen"}


def test_functions_touch_no_files_processes_or_modules():
    """Every function is an ATen operator, arithmetic, or a size function of PyTorch."""
    for name, function in FUNCTIONS.items():
        if name.startswith("aten."):
            assert isinstance(function, torch._ops.OpOverload)
            assert function.namespace == "aten"
        else:
            assert name in {
                *("operator.getitem", "operator.neg", "operator.pos"),
                *(f"operator.{n}" for n in ("add", "sub", "mul", "truediv", "floordiv", "mod")),
                *(f"operator.{n}" for n in ("eq", "ne", "lt", "le", "gt", "ge")),
                *("math.trunc", "math.floor", "math.ceil"),
                *(f"torch.sym_{n}" for n in ("max", "min", "int", "float", "not", "ite")),
            }


@pytest.mark.parametrize("source", DECODER_MODULES, ids=lambda m: m.__name__)
def test_decoder_has_no_way_to_run_text(source):
    """No eval, exec, compile or import by name; getattr only where our own list is resolved."""
    allowed = {"getattr"} if source is operators_torch else set()
    called = {
        node.func.id
        for node in ast.walk(ast.parse(inspect.getsource(source)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    forbidden = {"eval", "exec", "compile", "__import__", "getattr", "setattr", "globals", "vars"}
    assert called & forbidden == allowed
    assert not {"pickle", "importlib", "sympy"} & set(vars(source))
