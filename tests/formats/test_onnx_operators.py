"""Operators of ONNX: what is translated computes the same; the test models of the onnx package."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from nnrcodec.formats.onnx.calls import RefusedError
from nnrcodec.formats.onnx.slots import take_weights
from nnrcodec.formats.onnx.translation import translate
from nnrcodec.graph.module import build_module

ROOT = Path(__file__).parents[2]
RANDOM = np.random.default_rng(1)
NODES = ("convtranspose", "lstm", "pad", "resize", "slice", "softmax")
EVERY = 16
"""Of the cases, and the first of each operator; examples/onnx/zoo.py goes over all of them."""


@pytest.fixture(scope="module")
def zoo() -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "examples" / "onnx"))
    try:
        yield importlib.import_module("zoo")
    finally:
        sys.path.remove(str(ROOT / "examples" / "onnx"))


def node_cases(zoo: Any) -> list[Any]:
    """Return the cases of some operators; those of all, or of pooling, take seconds to make."""
    from onnx.backend.test.case import node

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in NODES:
            importlib.import_module(f"{node.__name__}.{name}")
    return [
        zoo.Case(case.name, case.model.graph.node[0].op_type, case.model, list(given), list(out))
        for case in node._NodeTestCases
        if case.model is not None and "_expanded" not in case.name
        for given, out in case.data_sets
    ]


def sampled(cases: list[Any]) -> list[Any]:
    first = {case.op: case for case in reversed(cases)}
    return list({id(case): case for case in (*first.values(), *cases[::EVERY])}.values())


@pytest.mark.filterwarnings("ignore")
def test_no_model_of_the_onnx_package_is_translated_wrongly(zoo: Any) -> None:
    equal = {"node": 0, "file": 0}
    wrong = []
    ways = {"node": zoo.WAYS[2], "file": zoo.WAYS[0]}
    cases = {"node": sampled(node_cases(zoo)), "file": sampled(list(zoo.cases_of_files()))}
    assert {case.op.lower() for case in cases["node"]} == set(NODES)
    for kind, way in ways.items():
        for case in cases[kind]:
            result, why = zoo.outcome(case, way)
            equal[kind] += result == zoo.EQUAL
            if result == zoo.WRONG:
                wrong.append((case.name, why))
    assert not wrong
    assert equal["node"] > 5
    assert equal["file"] > 5


def check(
    nodes: list[Any],
    tensors: dict[str, np.ndarray],
    sizes: list[tuple[int, ...]],
    shape: tuple[int | str, ...] = ("n", 3, "h", "w"),
    opset: int = 17,
    dtype: Any = np.float32,
) -> Any:
    """Translate a network with dynamic sizes, and compare it with onnxruntime at some sizes."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    network = build_module(translate(proto, take_weights(proto.graph)))
    for size in sizes:
        x = (RANDOM.random(size) * 4 - 1).astype(dtype)
        (expected,) = session.run(None, {"x": x})
        with torch.no_grad():
            np.testing.assert_allclose(network(torch.from_numpy(x)).numpy(), expected, 1e-4, 1e-5)
    return network


PLANES = [(1, 3, 9, 14), (2, 3, 17, 12)]


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape, scale=0.3).astype(np.float32)


@pytest.mark.parametrize(
    ("op", "auto_pad"),
    [
        ("Conv", "SAME_UPPER"),
        ("Conv", "VALID"),
        ("MaxPool", "SAME_UPPER"),
        ("AveragePool", "SAME_LOWER"),
    ],
)
def test_padding_that_follows_from_dynamic_sizes(op: str, auto_pad: str) -> None:
    options: dict[str, Any] = {"auto_pad": auto_pad, "strides": [2, 3]}
    tensors = {"w": weights(4, 3, 4, 3)} if op == "Conv" else {}
    if op != "Conv":
        options["kernel_shape"] = [4, 3]
    check([helper.make_node(op, ["x", *tensors], ["y"], **options)], tensors, PLANES)


@pytest.mark.parametrize(
    "options",
    [
        {"pads": [0, 1, 2, 0]},
        {"pads": [1, 2, 0, 1], "strides": [2, 1]},
        {"pads": [2, 2, 2, 2], "dilations": [2, 2]},
    ],
)
def test_padding_that_differs_before_and_after(options: dict[str, Any]) -> None:
    check(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["a"], group=3, **options),
            helper.make_node("ConvTranspose", ["a", "v"], ["y"], pads=[1, 0, 0, 1]),
        ],
        {"w": weights(6, 1, 3, 3), "b": weights(6), "v": weights(6, 2, 3, 2)},
        PLANES,
    )


def test_shapes_that_are_computed_leave_no_trace() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "first"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "zero"], ["n1"]),
        helper.make_node("Slice", ["s", "two", "four"], ["hw"]),
        helper.make_node("ReduceProd", ["hw"], ["hw1"], keepdims=1),
        helper.make_node("Concat", ["n1", "minus", "hw1"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    constants = {
        "first": np.array(0),
        "zero": np.array([0]),
        "two": np.array([2]),
        "four": np.array([4]),
        "minus": np.array([-1]),
        "w": weights(3, 5),
    }
    network = check(nodes, constants, PLANES)
    assert len(network._nnr_graph.nodes) < 10
    assert not any("gather" in n.op or "index" in n.op for n in network._nnr_graph.nodes)


def test_padding_to_a_multiple() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], start=2),
        helper.make_node("Neg", ["s"], ["m"]),
        helper.make_node("Mod", ["m", "eight"], ["r"]),
        helper.make_node("Concat", ["zeros", "r"], ["pads"], axis=0),
        helper.make_node("Pad", ["x", "pads"], ["a"], mode="constant"),
        helper.make_node("Conv", ["a", "w"], ["y"], strides=[8, 8]),
    ]
    constants = {"eight": np.array([8]), "zeros": np.array([0] * 6), "w": weights(4, 3, 8, 8)}
    check(nodes, constants, [(1, 3, 9, 14), (1, 3, 16, 8)])


@pytest.mark.parametrize(
    "options",
    [
        {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
        {"mode": "linear"},
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        {"mode": "cubic"},
    ],
)
def test_resize(options: dict[str, Any]) -> None:
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], **options)
    check([node], {"scales": np.array([1, 1, 3, 2], np.float32)}, PLANES)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
        {"mode": "linear", "antialias": 1},
        {"mode": "cubic", "cubic_coeff_a": -0.5},
        {"mode": "cubic", "exclude_outside": 1},
        {"mode": "nearest", "nearest_mode": "ceil"},
    ],
)
def test_resize_of_other_kinds_is_refused(options: dict[str, Any]) -> None:
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], "up", **options)
    with pytest.raises(RefusedError, match="Resize \\(node 'up'\\)"):
        check([node], {"scales": np.array([1, 1, 2, 2], np.float32)}, [], opset=18)


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_softmax_has_one_axis_or_all_that_follow(opset: int) -> None:
    check([helper.make_node("Softmax", ["x"], ["y"], axis=1)], {}, PLANES, opset=opset)


@pytest.mark.parametrize(
    ("op", "gates", "direction", "options"),
    [
        ("LSTM", 4, "bidirectional", {}),
        ("GRU", 3, "reverse", {"linear_before_reset": 1}),
    ],
)
def test_recurrent_layers(op: str, gates: int, direction: str, options: dict[str, Any]) -> None:
    count, rows = 1 + (direction == "bidirectional"), 5 * gates
    tensors = {
        "w": weights(count, rows, 4),
        "r": weights(count, rows, 5),
        "b": weights(count, 2 * rows),
    }
    options = {"direction": direction, "hidden_size": 5, **options}
    node = helper.make_node(op, ["x", "w", "r", "b"], ["y"], **options)
    check([node], tensors, [(6, 2, 4), (3, 1, 4)], ("t", "n", 4))


def test_clip_with_attributes_and_with_inputs() -> None:
    check([helper.make_node("Clip", ["x"], ["y"], min=-0.5, max=1.5)], {}, PLANES, opset=10)
    bounds = {"low": np.array(-0.5, np.float32), "high": np.array(1.5, np.float32)}
    check([helper.make_node("Clip", ["x", "low", "high"], ["y"])], bounds, PLANES)
    check([helper.make_node("Clip", ["x", "", "high"], ["y"])], bounds, PLANES)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("opset", [10, 13])
def test_pad(mode: str, opset: int) -> None:
    pads = [0, 0, 1, 2, 0, 0, 2, 0]
    if opset < 11:
        check(
            [helper.make_node("Pad", ["x"], ["y"], mode=mode, pads=pads)], {}, PLANES, opset=opset
        )
        return
    node = helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)
    check([node], {"pads": np.array(pads)}, PLANES, opset=opset)


def test_integers_are_divided_towards_zero() -> None:
    node = helper.make_node("Div", ["x", "three"], ["y"])
    check([node], {"three": np.array([-2], np.int32)}, [(7,)], ("n",), dtype=np.int32)


def test_an_attribute_that_is_not_known_is_refused() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], "activation", slope=0.5)
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    with pytest.raises(RefusedError, match="Relu \\(node 'activation'\\): attributes slope"):
        translate(helper.make_model(graph), [])


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (helper.make_node("TopK", ["x", "k"], ["", "y"], "top"), "orders equal values"),
        (
            helper.make_node("Reshape", ["x", "x"], ["y"], "shape"),
            "computed while the network runs",
        ),
        (
            helper.make_node("Gelu", ["x"], ["y"], "own", domain="com.microsoft"),
            "com.microsoft.Gelu",
        ),
        (helper.make_node("Relu", ["z"], ["y"], "lost"), "no value 'z'"),
        (helper.make_node("MaxPool", ["x"], ["y", "i"], "pool", kernel_shape=[1]), "axes|indices"),
    ],
)
def test_what_is_refused_says_which_node_and_why(node: Any, why: str) -> None:
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.array([1]), "k")],
    )
    with pytest.raises(RefusedError, match=why) as error:
        translate(helper.make_model(graph), [])
    assert f"node {node.name!r}" in str(error.value)
