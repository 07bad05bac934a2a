"""Layers of a graph: which there are, and that their matrices times patches are what they do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from networks import SingleLayer, network, single_layers, values
from torch import nn

from nnrcodec.calibration.moments import _Lines
from nnrcodec.graph.graph import Dim, Graph, Input, Node, Ref, TensorRef
from nnrcodec.graph.layers import find_layers
from nnrcodec.model.model import Model, Tensor

IMAGE = Input("x", "float32", ("n", 2, "h", "w"))
DIMS = {"n": Dim(1, None, 2), "h": Dim(3, None, 8), "w": Dim(3, None, 8)}
WEIGHT, BIAS = TensorRef("conv.weight"), TensorRef("conv.bias")


def convolution(*args: object, op: str = "aten.conv2d.default") -> Node:
    return Node(op, args)  # type: ignore[arg-type]


def model_with(*nodes: Node, output: object = None, weight: np.ndarray | None = None) -> Model:
    """Return a model of nodes that follow one image, with a weight and a bias."""
    weight = np.ones((2, 2, 3, 3), np.float32) if weight is None else weight
    tensors = [Tensor.of(WEIGHT.name, weight), Tensor.of(BIAS.name, np.ones(2, np.float32))]
    last = Ref(len(nodes)) if output is None else output
    return Model.of(tensors, Graph((IMAGE,), nodes, last, DIMS))  # type: ignore[arg-type]


# What they compute


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(deadline=None, max_examples=80)
@given(single_layers())
def test_matrices_times_patches_are_what_torch_computes(single: SingleLayer) -> None:
    layer = single.layer()
    made = single.output(torch.from_numpy(single.weight()), single.input())
    lines = _Lines.of(layer, single.input())
    assert lines.count * lines.length == made[..., 0].numel()
    patches = lines.patches(torch.arange(lines.count)).transpose(1, 2)
    matrices = torch.from_numpy(np.ascontiguousarray(layer.matrices(single.weight())))
    assert matrices.shape == (layer.groups, layer.rows, layer.columns)
    expected = (patches @ matrices.transpose(1, 2)).transpose(0, 1).reshape(made.shape)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)
    assert made.shape[-1] == layer.outputs


@settings(deadline=None, max_examples=40)
@given(single_layers())
def test_the_weight_of_its_matrices_is_the_weight(single: SingleLayer) -> None:
    layer = single.layer()
    found = layer.weight_of(layer.matrices(single.weight()))
    np.testing.assert_array_equal(found, single.weight())
    assert found.flags.c_contiguous
    assert layer.kernel == single.weight_shape[2:]
    assert layer.shape == single.weight_shape


def test_one_size_stands_for_all_axes() -> None:
    one = SingleLayer("aten.conv2d.default", (1, 1, 3, 3), (1, 1, 9, 9), (("stride", (2,)),))
    assert one.layer().stride == (2, 2)
    assert replace(one, options=(("padding", (1,)),)).layer().padding == ((1, 1), (1, 1))


# Which there are


def layers_that_run(module: nn.Module, example: torch.Tensor) -> list[str]:
    """Return the names of the layers of a module in the order in which they are called."""
    called: list[str] = []
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.modules.conv._ConvNd):
            part.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        module(example)
    return called


@pytest.mark.parametrize(
    "name", ["plain_cnn", "resnet", "depthwise", "unet", "classifier", "conv1d", "conv3d"]
)
def test_all_layers_of_a_network_are_found_in_the_order_in_which_they_run(name: str) -> None:
    chosen = network(name)
    module = chosen.module()
    layers = find_layers(chosen.model())
    assert [layer.name for layer in layers] == layers_that_run(module, chosen.example())
    for layer in layers:
        part = module.get_submodule(layer.name)
        assert layer.shape == part.weight.shape
        assert layer.bias == (None if part.bias is None else f"{layer.name}.bias")
        assert layer.groups == getattr(part, "groups", 1)
        assert layer.stride == getattr(part, "stride", ())
        assert layer.dilation == getattr(part, "dilation", ())
        assert layer.transposed == ("Transpose" in type(part).__name__)
        assert layer.outputs == getattr(part, "out_channels", None) or part.out_features


def test_a_weight_of_another_name_keeps_it() -> None:
    layers = find_layers(network("encoder_layer").model())
    assert "self_attn.in_proj_weight" in [layer.name for layer in layers]


def test_a_layer_knows_where_it_stands() -> None:
    relu = Node("aten.relu.default", (Ref(0),))
    (layer,) = find_layers(model_with(relu, convolution(Ref(1), WEIGHT, BIAS)))
    assert (layer.node, layer.value, layer.bias) == (1, 1, "conv.bias")


def test_without_a_graph_there_are_none() -> None:
    assert find_layers(Model.of([Tensor.of("conv.weight", values((2, 2, 3, 3)).numpy())])) == ()


@pytest.mark.parametrize(
    "model",
    [
        model_with(convolution(Ref(0), WEIGHT), convolution(Ref(1), WEIGHT)),
        model_with(convolution(Ref(0), WEIGHT), output=(Ref(1), WEIGHT)),
        model_with(convolution(Ref(0), WEIGHT), Node("aten.add.Tensor", (Ref(1), WEIGHT))),
        model_with(Node("aten.relu.default", (WEIGHT,)), convolution(Ref(0), Ref(1))),
        model_with(convolution(WEIGHT, WEIGHT)),
        model_with(Node("aten.relu.default", (BIAS,)), convolution(Ref(0), WEIGHT, Ref(1))),
        model_with(
            Node("aten.sym_size.int", (Ref(0), 0)),
            convolution(Ref(0), WEIGHT, None, (1, 1), (Ref(1), 1)),
        ),
        model_with(convolution(Ref(0), WEIGHT), weight=np.ones((2, 2, 3, 3), np.int32)),
        model_with(convolution(Ref(0), WEIGHT), weight=np.ones((0, 2, 3, 3), np.float32)),
        model_with(convolution(Ref(0), WEIGHT), weight=np.ones((2, 2, 3), np.float32)),
        model_with(Node("aten.matmul.default", (Ref(0), WEIGHT))),
    ],
    ids=[
        "used by two layers",
        "returned",
        "used by something else",
        "computed",
        "taken as an input",
        "with a computed bias",
        "with computed padding",
        "of integers",
        "empty",
        "of other dimensions",
        "of another operator",
    ],
)
def test_left_out_is_a_weight_that_is(model: Model) -> None:
    assert find_layers(model) == ()
    assert len(find_layers(model_with(convolution(Ref(0), WEIGHT)))) == 1
