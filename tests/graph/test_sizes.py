"""What is known of sizes without running a network: never something else than what comes out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import NETWORKS, Network

from nnrcodec.errors import BitstreamError, LimitExceededError
from nnrcodec.graph.check import check
from nnrcodec.graph.export import model_of_module
from nnrcodec.graph.graph import Argument, Dim, Graph, Input, Node, Ref, Word
from nnrcodec.graph.module import DecodedModel, build_module, run_node
from nnrcodec.graph.scalars import FUNCTIONS, ScalarError
from nnrcodec.graph.sizes import AtLeast, known_inputs, known_value, value_bytes
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model

SHAPE = (2, 3, 4, 5)
IMAGE = (Input("x", "float32", SHAPE),)


def node(op: str, *args: Argument, **kwargs: Argument) -> Node:
    return Node(op, args, tuple(kwargs.items()))


X = Ref(0)
NODES = [
    node("aten.relu.default", X),
    node("aten.softmax.int", X, 1),
    node("aten.add.Tensor", X, 1.5),
    node("aten.mul.Tensor", X, X),
    node("aten.clamp.default", X, 0, 1),
    node("aten.to.dtype", X, Word("dtype", "float64")),
    node("aten.zeros.default", (3, 4), dtype=Word("dtype", "int64")),
    node("aten.full.default", (), 2),
    node("aten.eye.default", 7),
    node("aten.arange.default", 9),
    node("aten.arange.start", -3, 9),
    node("aten.arange.start_step", 2.5, 9, 0.75),
    node("aten.arange.start_step", 9, 2, -2),
    node("aten.linspace.default", 0, 1, 11),
    node("aten.new_zeros.default", X, (4, 1)),
    node("aten.repeat.default", X, (2, 1, 1, 1, 3)),
    node("aten.tile.default", X, (2, 2)),
    node("aten.repeat_interleave.self_int", X, 3),
    node("aten.repeat_interleave.self_int", X, 3, -2),
    node("aten.pad.default", X, (1, 2, 3, 4)),
    node("aten.pad.default", X, (1, -2)),
    node("aten.constant_pad_nd.default", X, (0, 1, 0, 0, 2, 2)),
    node("aten.reflection_pad2d.default", X, (1, 2, 3, 1)),
    node("aten.replication_pad2d.default", X, (1, 2, 3, 4)),
    node("aten.expand.default", X, (6, -1, 3, -1, 5)),
    node("aten.expand.default", X, (2, 3, 4, 5)),
    node("aten.view.default", X, (6, -1)),
    node("aten.view.default", X, (120,)),
    node("aten.reshape.default", X, (2, 3, 20)),
    node("aten.diag_embed.default", X),
    node("aten.diag_embed.default", X, -2),
    node("aten.upsample_nearest2d.vec", X, (8, 9), None),
    node("aten.upsample_bilinear2d.vec", X, (8, 9), False, None),
    node("aten.triu.default", X),
    node("aten.where.ScalarOther", X, X, 0),
    node("aten.pow.Tensor_Scalar", X, 2),
]


def shape_of(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("made", NODES, ids=str)
def test_shapes_are_those_of_pytorch(made: Node) -> None:
    if made.op == "aten.where.ScalarOther":
        made = node(made.op, Ref(1), X, 0)
    if made.op == "aten.expand.default" and len(made.args[1]) == 5:  # type: ignore[arg-type]
        made = node(made.op, X, (6, 2, 3, -1, 5))
    inputs = (*IMAGE, Input("m", "bool", SHAPE))
    graph = Graph(inputs, (made,), Ref(2))
    check(graph)
    values: list[Any] = [torch.zeros(SHAPE), torch.zeros(SHAPE, dtype=torch.bool)]
    run_node(DecodedModel(graph), 0, values)
    known = known_value(made, known_inputs(graph))
    if isinstance(known, AtLeast):
        assert known.elements <= values[2].numel()
    else:
        assert known == shape_of(values[2])
    assert value_bytes(made, known) <= values[2].numel() * values[2].element_size()


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
@torch.no_grad()
def test_what_is_known_of_a_network_is_what_it_computes(network: Network) -> None:
    """Of whole networks, with sizes that may change, at the sizes of the example."""
    model = model_of_module(network.module(), (network.example(),))
    graph = model.graph
    assert graph is not None
    (value,) = graph.inputs
    shape = [graph.dims[s].example if isinstance(s, str) else s for s in value.shape]
    dtype = getattr(torch, value.dtype)
    values: list[Any] = [torch.zeros(shape, dtype=dtype)]
    module = build_module(model)
    known = known_inputs(graph)
    for position, made in enumerate(graph.nodes):
        run_node(module, position, values)
        known.append(known_value(made, known))
        if known[-1] is not None and not isinstance(known[-1], AtLeast):
            assert known[-1] == shape_of(values[-1]), made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (node("aten.view.default", X, (-1, -1)), "only one size"),
        (node("aten.view.default", X, (7, -1)), "120 elements"),
        (node("aten.reshape.default", X, (0, -1)), "120 elements"),
        (node("aten.add.Tensor", X, Ref(1)), "do not fit"),
        (node("aten.zeros.default", (3, -4)), "no tensor of shape"),
        (node("aten.eye.default", 2**40), "more than 2\\^63"),
        (node("aten.pad.default", X, (1,) * 10), "axes of 4"),
        (node("aten.pad.default", X, (-9, 1)), "no tensor of shape"),
        (node("aten.arange.default", -1), "no tensor of shape"),
        (node("aten.arange.start_step", 0, 1, 0), "no range"),
        (node("aten.arange.default", float("inf")), "no range"),
        (node("aten.sym_size.int", X, 4), "no axis 4"),
        (node("aten.repeat_interleave.self_int", X, 2, 9), "no axis 9"),
        (node("operator.floordiv", 1, 0), "zero"),
        (node("operator.mul", 2**62, 2), "64 bits"),
        (node("math.floor", float("nan")), "NaN"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(made: Node, message: str) -> None:
    graph = Graph((*IMAGE, Input("y", "float32", (7,))), (made,), Ref(2))
    with pytest.raises(BitstreamError, match=message):
        check(graph)


@pytest.mark.parametrize(
    "made",
    [
        node("aten.zeros.default", (2**16, 2**16), dtype=Word("dtype", "float32")),
        node("aten.full.default", (2**33,), 1),
        node("aten.eye.default", 2**17),
        node("aten.repeat.default", X, (2**30, 1, 1, 1)),
        node("aten.repeat.default", Ref(1), (2**33,)),
        node("aten.pad.default", X, (2**31, 0)),
        node("aten.pad.default", Ref(1), (2**33, 0)),
        node("aten.arange.default", 2**33),
        node("aten.one_hot.default", Ref(2), 2**33),
        node("aten.diag_embed.default", X, 2**17),
        node("aten.repeat_interleave.self_int", Ref(1), 2**33),
        node("aten.upsample_nearest2d.vec", Ref(1), (2**17, 2**17), None),
    ],
    ids=str,
)
def test_bombs_are_refused_where_sizes_are_known(made: Node) -> None:
    unknown = node("aten.select.int", X, 0, 0)
    index = Input("i", "int64", (3,))
    graph = Graph((*IMAGE, index), (unknown, made), Ref(3))

    def renumbered(leaf: Any) -> Any:
        return {Ref(1): Ref(2), Ref(2): Ref(1)}.get(leaf, leaf)

    graph = Graph(graph.inputs, (unknown, made.replace_leaves(renumbered)), graph.output)
    with pytest.raises(LimitExceededError, match="bytes at the example sizes"):
        check(graph)
    check(graph, limits=Limits(max_value_bytes=2**62))


def test_numbers_follow_from_the_example_sizes() -> None:
    dims = {"d": Dim(0, None, 2**20)}
    size = node("aten.sym_size.int", X, 0)
    square = node("operator.mul", Ref(1), Ref(1))
    graph = Graph((Input("x", "uint8", ("d",)),), (size, square), Ref(2), dims)
    check(graph)
    fourth = node("operator.mul", Ref(2), Ref(2))
    with pytest.raises(BitstreamError, match=r"nodes\[2\].*64 bits"):
        check(Graph(graph.inputs, (size, square, fourth), Ref(3), dims))


def test_numbers_are_held_to_64_bits_when_the_network_runs() -> None:
    dims = {"d": Dim(0, None, 2)}
    nodes = [node("aten.sym_size.int", X, 0)]
    for number in range(1, 6):
        nodes.append(node("operator.mul", Ref(number), Ref(number)))
    graph = Graph((Input("x", "float32", ("d",)),), tuple(nodes), Ref(6), dims)
    module = build_module(Model.of([], graph))
    assert module(torch.zeros(2)) == 2**32
    with pytest.raises(BitstreamError, match=r"graph/nodes\[5\].*64 bits"):
        module(torch.zeros(4))


def test_division_by_a_size_of_zero_is_our_own_error() -> None:
    dims = {"d": Dim(0, None, 2)}
    nodes = (node("aten.sym_size.int", X, 0), node("operator.mod", 7, Ref(1)))
    graph = Graph((Input("x", "float32", ("d",)),), nodes, Ref(2), dims)
    module = build_module(Model.of([], graph))
    assert module(torch.zeros(2)) == 1
    with pytest.raises(BitstreamError, match="zero"):
        module(torch.zeros(0))


def test_after_a_change_of_shape_in_place_nothing_is_known() -> None:
    nodes = (
        node("aten.relu.default", X),
        node("aten.unsqueeze_.default", Ref(1), 0),
        node("aten.sym_size.int", Ref(1), 0),
        node("operator.floordiv", 1, Ref(3)),
        node("aten.view.default", Ref(1), (1, 120)),
    )
    graph = Graph(IMAGE, nodes, Ref(5))
    check(graph)
    assert build_module(Model.of([], graph))(torch.zeros(SHAPE)).shape == (1, 120)


NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans()


@given(st.sampled_from(sorted(FUNCTIONS)), st.lists(NUMBERS, min_size=1, max_size=3))
def test_scalars_are_numbers_of_64_bits_or_an_error(op: str, numbers: list[Any]) -> None:
    try:
        result = FUNCTIONS[op](*numbers)
    except (ScalarError, TypeError):  # TypeError: not as many as it takes
        return
    assert isinstance(result, int | float)
    assert not isinstance(result, int) or -(2**63) <= result < 2**63
