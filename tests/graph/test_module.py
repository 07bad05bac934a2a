"""Modules built from graphs: names, sizes, memory."""

import copy
import weakref

import numpy as np
import pytest
import torch
from networks import NETWORKS, values
from torch import nn

from nnrcodec.errors import (
    BitstreamError,
    LimitExceededError,
    ModelError,
    UnsupportedFeatureError,
)
from nnrcodec.graph import module as module_of_graphs
from nnrcodec.graph.export import model_of_module
from nnrcodec.graph.graph import Graph, Input, Node, Ref, TensorRef
from nnrcodec.graph.module import build_module
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model, Role, Tensor

VECTOR = Input("x", "float32", (2,))
ADD = Node("aten.add.Tensor", (Ref(0), TensorRef("bias")))


def model_with(*names: str) -> Model:
    tensors = [Tensor.of(name, np.ones(2, np.float32)) for name in names]
    return Model.of(tensors, Graph((VECTOR,), (), Ref(0)))


@pytest.mark.parametrize(
    "names",
    [
        ["forward"],
        ["_run"],
        ["_nnr_graph"],
        ["training"],
        ["__class__"],
        ["__class__.__init__"],
        ["__dict__.x"],
        ["_parameters"],
        ["_modules.a"],
        ["a.register_buffer"],
        ["a.forward.weight"],
        ["a", "a.b"],
        ["a.b", "a"],
        ["a.b.c", "a.b"],
    ],
)
def test_names_a_module_cannot_hold_are_refused(names):
    with pytest.raises(BitstreamError, match="cannot hold"):
        build_module(model_with(*names))


@pytest.mark.parametrize("name", ["", ".", "a..b", ".a", "a.", "ünïcode", "a b", "x'y\"z", "a.in"])
def test_names_that_could_become_code_are_refused(name):
    with pytest.raises(BitstreamError, match="with a graph names are"):
        build_module(model_with(name))


@pytest.mark.parametrize("name", ["0", "a.0.b", "graph", "code", "meta", "self", "print"])
def test_other_names_are_kept(name):
    module = build_module(model_with(name))
    assert list(module.state_dict()) == [name]


def test_layers_nest_to_a_bound():
    build_module(model_with("a." * 100 + "weight")).state_dict()
    with pytest.raises(LimitExceededError, match="layers for each tensor"):
        build_module(model_with(*(f"a{i}." + "a." * 99 + "weight" for i in range(3))))
    with pytest.raises(BitstreamError, match="101 layers deep"):
        build_module(model_with("a." * 101 + "weight"))


def test_tensor_that_the_graph_lacks_is_refused():
    model = Model.of([], Graph((VECTOR,), (ADD,), Ref(1)))
    with pytest.raises(BitstreamError, match="no tensor 'bias'"):
        build_module(model)


def test_model_without_graph_is_refused():
    with pytest.raises(ModelError, match="no graph"):
        build_module(Model.of([]))


def test_limits_are_applied():
    model = Model.of([Tensor.of("bias", np.ones(2, np.float32))], Graph((VECTOR,), (ADD,), Ref(1)))
    with pytest.raises(BitstreamError, match="nodes"):
        build_module(model, Limits(max_graph_nodes=0))


def test_operator_that_this_pytorch_lacks_is_named(monkeypatch):
    monkeypatch.setattr(module_of_graphs, "FUNCTIONS", {})
    model = Model.of([Tensor.of("bias", np.ones(2, np.float32))], Graph((VECTOR,), (ADD,), Ref(1)))
    with pytest.raises(UnsupportedFeatureError, match=r"aten\.add\.Tensor"):
        build_module(model)


def test_roles_become_parameters_and_buffers():
    graph = Graph((VECTOR,), (), (Ref(0), TensorRef("c"), TensorRef("p")))
    model = Model.of(
        [
            Tensor.of("p", np.ones(2, np.float32)),
            Tensor.of("i", np.ones(2, np.int8)),
            Tensor.of("b", np.ones(2, np.float32), role=Role.BUFFER),
            Tensor.of("c", np.ones(2, np.float32), role=Role.CONSTANT),
        ],
        graph,
    )
    module = build_module(model)
    assert {name: p.requires_grad for name, p in module.named_parameters()} == {
        "p": True,
        "i": False,
    }
    assert list(module.state_dict()) == ["p", "i", "b"]
    assert dict(module.named_buffers()).keys() == {"b", "c"}
    assert not module.training
    assert module(torch.zeros(2))[2] is module.p


def test_arrays_become_the_memory_of_the_tensors():
    array = np.ones(2, np.float32)
    module = build_module(Model.of([Tensor.of("p", array)], Graph((VECTOR,), (), Ref(0))))
    array[0] = 5
    assert module.p[0] == 5


def test_read_only_arrays_are_copied():
    array = np.ones(2, np.float32)
    array.flags.writeable = False
    module = build_module(Model.of([Tensor.of("p", array)], Graph((VECTOR,), (), Ref(0))))
    assert torch.equal(module.p, torch.ones(2))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3,), "size 3 in axis 0, the model takes 2"), ((2, 2), "2 axes, the model takes 1")],
)
def test_inputs_of_other_sizes_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        build_module(model_with("a"))(torch.zeros(shape))


def test_wrong_number_of_inputs_is_refused():
    with pytest.raises(TypeError):
        build_module(model_with("a"))()
    with pytest.raises(TypeError):
        build_module(model_with("a"))(torch.zeros(2), torch.zeros(2))


def test_values_are_freed_after_their_last_use(monkeypatch):
    """Each layer of a chain sees at most its own input alive."""
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def relu(x):
        nonlocal most
        result = torch.relu(x)
        most = max(most, sum(value() is not None for value in alive))
        alive.append(weakref.ref(result))
        return result

    monkeypatch.setattr(module_of_graphs, "FUNCTIONS", {"aten.relu.default": relu})
    chain = tuple(Node("aten.relu.default", (Ref(p),)) for p in range(10))
    build_module(Model.of([], Graph((VECTOR,), chain, Ref(10))))(torch.zeros(2))
    assert most == 1


@torch.no_grad()
def test_copies_are_independent():
    network = NETWORKS[0]
    module = build_module(model_of_module(network.module(), (network.example(),)))
    expected = module(network.example())
    twin = copy.deepcopy(module)
    for parameter in twin.parameters():
        parameter.zero_()
    assert torch.equal(module(network.example()), expected)
    assert not torch.equal(twin(network.example()), expected)


def test_decoded_network_can_be_trained_further():
    network = NETWORKS[0]
    module = build_module(model_of_module(network.module(), (network.example(),)))
    module(network.example()).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_tensors_are_made_where_the_inputs_are():
    class Ramp(nn.Module):
        def forward(self, x):
            return x + torch.arange(x.shape[1])

    module = build_module(model_of_module(Ramp(), (values((2, 3)),)))
    assert module(torch.empty(2, 3, device="meta")).device.type == "meta"


def test_it_says_what_it_takes():
    assert "x: float32[2]; 0 operators" in repr(build_module(model_with("a")))
