"""Modules built from graphs: names, sizes, memory."""

import copy
import pickle
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
from nnrcodec.graph.graph import Graph, Input, Node, Ref, TensorRef, leaves
from nnrcodec.graph.module import build_module, run_node
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
    with pytest.raises(BitstreamError, match="cannot have"):
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


def devices_of_values(module, *inputs):
    """Run a network node by node, as it runs itself; return where its values were."""
    made = list(inputs)
    devices = set()
    for position in range(len(module._nnr_graph.nodes)):
        done_with = run_node(module, position, made)
        devices |= {leaf.device.type for leaf in leaves(made[-1]) if torch.is_tensor(leaf)}
        for number in done_with:
            made[number] = None
    return devices


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_no_tensor_stays_behind_when_a_decoded_model_moves(network):
    module = build_module(network.model()).to("meta")
    assert devices_of_values(module, network.example().to("meta")) == {"meta"}
    assert {tensor.device.type for tensor in module.state_dict().values()} == {"meta"}


class Making(nn.Module):
    """Makes tensors in every way, and holds one that is not in its state dict."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.ones(3))
        self.register_buffer("mask", torch.tensor([0.0, 1.0, 1.0]), persistent=False)

    def forward(self, x):
        n = x.shape[0]
        ramp = torch.arange(n)[:, None] + torch.arange(1, n + 1)[:, None]
        steps = torch.arange(0, 2 * n, 2)[:, None] + torch.linspace(0, 1, 3)
        made = torch.zeros(n, 3) + torch.ones(3) + torch.full((n, 1), 2.0) + torch.eye(3)[:1]
        like = x.new_zeros(3) + torch.ones_like(x) + x.new_full((n, 3), 4.0)
        constant = torch.tensor([1.0, 2.0, 3.0]) + torch.tensor(5.0)
        return x + self.bias * self.mask + ramp + steps + made + like + constant


def test_tensors_made_by_a_graph_follow_the_module():
    original = Making()
    module = build_module(model_of_module(original, (values((4, 3)),)))
    assert torch.equal(module(values((5, 3))), original(values((5, 3))))
    moved = module.to("meta")
    assert devices_of_values(moved, torch.empty(5, 3, device="meta")) == {"meta"}
    assert moved(torch.empty(6, 3, device="meta")).device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_decoded_models_run_on_a_gpu(network):
    module = build_module(network.model())
    expected = module(network.example())
    received = module.to("cuda")(network.example().to("cuda"))
    torch.testing.assert_close(received.cpu(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_a_decoded_model_is_encoded_again_as_it_was(network):
    model = network.model()
    again = model_of_module(build_module(model), (network.example(),))
    assert again.graph == model.graph
    assert list(again.tensors) == list(model.tensors)
    for tensor in model.tensors.values():
        assert again.tensors[tensor.name].role is tensor.role
        assert np.array_equal(again.tensors[tensor.name].read(), tensor.read(), equal_nan=True)


def test_a_decoded_model_that_is_trained_further_is_encoded_with_its_values():
    module = build_module(model_of_module(Making(), (values((4, 3)),)))
    with torch.no_grad():
        module.bias += 1
    again = model_of_module(module, (values((4, 3)),))
    assert again.tensors["bias"].read().tolist() == [2, 2, 2]
    assert again.tensors["mask"].role is Role.CONSTANT
    assert again.graph == module._nnr_graph


def test_a_decoded_model_of_another_dtype_is_exported_anew(caplog):
    module = build_module(model_of_module(nn.Linear(3, 2), (values((4, 3)),))).double()
    again = model_of_module(module, (values((4, 3)).double(),))
    (taken,) = again.graph.inputs
    assert (taken.name, taken.dtype) == ("input", "float64")
    assert list(again.tensors) == ["weight", "bias"]
    assert "exported again: input 'input' is float64, the model takes float32" in caplog.text
    assert torch.equal(
        build_module(again)(values((5, 3)).double()), module(values((5, 3)).double())
    )


def test_dynamic_sizes_of_a_decoded_model_may_be_chosen_anew():
    module = build_module(model_of_module(nn.Linear(3, 2), (values((4, 3)),)))
    again = model_of_module(module, (values((4, 3)),), dynamic_shapes=({},))
    assert [(value.name, value.shape) for value in again.graph.inputs] == [("input", (4, 3))]
    assert "forward" not in vars(module)


def test_a_decoded_model_that_moved_can_be_copied_and_pickled():
    model = model_of_module(Making(), (values((4, 3)),))
    module = build_module(model).to("meta")
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):  # noqa: S301
        assert list(copied.state_dict()) == list(module.state_dict()) == ["bias"]
        assert copied(torch.empty(2, 3, device="meta")).device.type == "meta"


def test_it_says_what_it_takes():
    assert "x: float32[2]; 0 operators" in repr(build_module(model_with("a")))
