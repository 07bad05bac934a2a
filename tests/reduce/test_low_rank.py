import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnrcodec.decoder.merging import merge
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.graph.export import model_of_module, model_of_program
from nnrcodec.graph.graph import Node, Ref, Splice, TensorRef
from nnrcodec.graph.module import build_module
from nnrcodec.graph.program import program_of_module
from nnrcodec.model.model import Factors, Model, Role, Tensor
from nnrcodec.reduce.decomposition import Decomposition
from nnrcodec.reduce.low_rank import LayerReport, decompose
from nnrcodec.reduce.ranks import LowRankConfig, parse_ranks
from nnrcodec.reduce.schemes import Scheme

FULL = LowRankConfig(energy=1.0)


def model_of(module, *shape, seed=0):
    torch.manual_seed(seed)
    return model_of_module(module, (torch.rand(shape),))


def full_ranks(model, *layers):
    shapes = {layer: model.tensors[f"{layer}.weight"].shape for layer in layers}
    return LowRankConfig(ranks={n: min(s[1] * s[2], s[0] * s[3]) for n, s in shapes.items()})


def separation(kernel):
    return Decomposition.of(Scheme("separable", kernel.shape), kernel)


def reasons(reports):
    return {report.layer: report.reason for report in reports}


class Branches(nn.Module):
    """A small residual network with all that must be left alone beside what need not."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm2d(16)
        self.shared = nn.Conv2d(16, 16, 3, padding="same", bias=False)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.thin = nn.Conv2d(16, 16, (1, 3), padding=(0, 1))
        self.wide = nn.Conv2d(16, 24, 3, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(24, 8, 4, stride=2, padding=1)
        self.line = nn.Conv1d(8, 8, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        x = torch.relu(self.norm(self.stem(image)))
        x = x + self.shared(torch.relu(self.shared(x)))
        x = x + self.pointwise(self.depthwise(self.grouped(x)))
        x = self.up(torch.relu(self.wide(self.thin(x))))
        return self.head(self.line(x.flatten(2)).mean(2))


@pytest.fixture(scope="module")
def branches():
    torch.manual_seed(0)
    module = Branches().eval()
    return module, model_of(module, 2, 3, 16, 16)


# The configuration


@pytest.mark.parametrize(
    "rules",
    [
        {"energy": 0.9, "rank_ratio": 0.5},
        {"energy": 0.0},
        {"energy": 1.1},
        {"energy": float("nan")},
        {"rank_ratio": -0.5},
        {"rank_ratio": 2.0},
        {"ranks": {}},
        {"ranks": {"a": 0}},
        {"ranks": {"a": 1.5}},
        {"ranks": {"a": True}},
    ],
)
def test_impossible_rules_are_refused(rules):
    with pytest.raises(ConfigError):
        LowRankConfig(**rules)


def test_ranks_are_parsed():
    assert parse_ranks("net.2=32, net.4 = 24") == {"net.2": 32, "net.4": 24}


@pytest.mark.parametrize("text", ["", "net", "net=", "=3", "net=x", "net=-1", "a=1,", "a=1,a=2"])
def test_ranks_of_another_form_are_refused(text):
    with pytest.raises(ConfigError):
        parse_ranks(text)


# Oracles


@st.composite
def convolutions(draw):
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    same = draw(st.booleans())
    padding = (
        draw(st.sampled_from(["same", "valid"]))
        if same
        else draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    )
    return {
        "in_channels": draw(st.integers(1, 4)),
        "out_channels": draw(st.integers(1, 4)),
        "kernel_size": draw(st.tuples(st.integers(2, 5), st.integers(2, 5))),
        "stride": (1, 1) if padding == "same" else draw(pair),
        "padding": padding,
        "dilation": draw(pair),
        "bias": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(["zeros", "reflect", "circular"])),
    }


@settings(max_examples=40, deadline=None)
@given(convolutions(), st.integers(0, 1000))
def test_at_full_rank_the_outputs_are_those_of_the_original(options, seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(**options)).eval()
    image = torch.rand(2, options["in_channels"], 17, 19)
    model = model_of_module(net, (image,))
    reduced, (report,) = decompose(model, full_ranks(model, "0"))
    assert report.reason is None
    assert report.energy_kept == pytest.approx(1)
    with torch.no_grad():
        torch.testing.assert_close(build_module(reduced)(image), net(image), atol=1e-5, rtol=1e-4)
        merged = merge(reduced)
        torch.testing.assert_close(build_module(merged)(image), net(image), atol=1e-5, rtol=1e-4)
    assert merged.graph == model.graph
    assert list(merged.tensors) == list(model.tensors)


@pytest.mark.parametrize("rank", [1, 4, 11])
def test_the_truncation_error_is_what_was_discarded(rank):
    model = model_of(nn.Sequential(nn.Conv2d(4, 6, 3)), 1, 4, 8, 8)
    kernel = model.tensors["0.weight"].read()
    values = separation(kernel).singular_values
    reduced, (report,) = decompose(model, LowRankConfig(ranks={"0": rank}))
    error = np.linalg.norm(merge(reduced).tensors["0.weight"].read() - kernel)
    assert error == pytest.approx(np.sqrt(np.sum(values[rank:] ** 2)), rel=1e-4)
    assert report.energy_kept == pytest.approx(1 - error**2 / np.sum(kernel**2), rel=1e-5)


def test_a_whole_network(branches):
    module, model = branches
    image = torch.rand(2, 3, 16, 16)
    reduced, _ = decompose(model, full_ranks(model, "stem", "shared", "wide"))
    assert len(reduced.graph.nodes) == len(model.graph.nodes) + 4  # `shared` is used twice
    with torch.no_grad():
        torch.testing.assert_close(build_module(reduced)(image), module(image), atol=1e-4, rtol=0)
    merged = merge(reduced)
    assert (merged.graph, merged.factors) == (model.graph, ())
    assert list(merged.tensors) == list(model.tensors)
    for name, tensor in model.tensors.items():
        assert (merged.tensors[name].shape, merged.tensors[name].role) == (
            tensor.shape,
            tensor.role,
        )
        np.testing.assert_allclose(merged.tensors[name].read(), tensor.read(), atol=1e-6)


def test_merging_works_on_a_graph_that_pytorch_exported_again(branches):
    module, model = branches
    image = torch.rand(2, 3, 16, 16)
    reduced, _ = decompose(model, full_ranks(model, "stem", "shared", "wide"))
    again = model_of_program(program_of_module(build_module(reduced)))
    merged = merge(Model(again.tensors, again.graph, reduced.factors))
    # An export of one size may have narrower guards than the joined exports of several sizes.
    assert replace(merged.graph, guards=()) == replace(model.graph, guards=())
    with torch.no_grad():
        torch.testing.assert_close(build_module(merged)(image), module(image), atol=1e-4, rtol=0)


# Names, order, dtype


def test_factors_take_the_place_of_their_layer():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, bias=False), nn.Conv2d(8, 3, 3))
    reduced, _ = decompose(model_of(net, 1, 3, 9, 9), LowRankConfig(rank_ratio=0.5))
    assert {name: tensor.shape for name, tensor in reduced.tensors.items()} == {
        "0.u.weight": (3, 3, 3, 1),
        "0.v.weight": (8, 3, 1, 3),
        "0.v.bias": (8,),
        "1.u.weight": (6, 8, 3, 1),
        "1.v.weight": (8, 6, 1, 3),
        "2.u.weight": (3, 8, 3, 1),
        "2.v.weight": (3, 3, 1, 3),
        "2.v.bias": (3,),
    }
    assert reduced.factors == (
        Factors("0", (8, 3, 3, 3), 3),
        Factors("1", (8, 8, 3, 3), 6),
        Factors("2", (3, 8, 3, 3), 3),
    )


def test_the_model_that_was_given_is_not_changed(branches):
    _, model = branches
    before = (list(model.tensors), model.graph, model.factors)
    decompose(model, FULL)
    assert (list(model.tensors), model.graph, model.factors) == before


def test_the_same_model_gives_the_same_bytes(branches):
    _, model = branches
    one, another = (decompose(model, LowRankConfig(energy=0.8))[0] for _ in range(2))
    assert one.graph == another.graph
    for name, tensor in one.tensors.items():
        assert tensor.read().tobytes() == another.tensors[name].read().tobytes()


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float64", 1e-12), ("float32", 1e-6), ("float16", 1e-2), ("bfloat16", 1e-1)],
)
def test_factors_have_the_dtype_of_their_kernel(dtype, tolerance):
    values = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    values = values.to(getattr(torch, dtype))
    array = values.float().numpy() if dtype == "bfloat16" else values.numpy()
    model = Model.of([Tensor.of("a.weight", array, dtype)])
    reduced, _ = decompose(model, LowRankConfig(ranks={"a": 12}))
    for tensor in (*reduced.tensors.values(), *merge(reduced).tensors.values()):
        assert tensor.dtype == dtype
        read = tensor.read()
        assert read.dtype == array.dtype
        assert read.flags.c_contiguous
        exact = torch.from_numpy(read).to(values.dtype).to(torch.from_numpy(read).dtype)
        np.testing.assert_array_equal(exact.numpy(), read)
    np.testing.assert_allclose(merge(reduced).tensors["a.weight"].read(), array, atol=tolerance)


def test_a_bias_that_others_use_as_well_is_renamed_for_them_too():
    model = model_of(nn.Sequential(nn.Conv2d(4, 8, 3)), 1, 4, 8, 8)
    (conv,) = model.graph.nodes
    more = (conv, Node("aten.add.Tensor", (TensorRef("0.bias"), TensorRef("0.bias"))))
    graph = model.graph.splice([Splice(0, 1, more, Ref(0))])
    reduced, _ = decompose(Model(model.tensors, graph), LowRankConfig(ranks={"0": 2}))
    assert reduced.graph.tensor_names() == ("0.u.weight", "0.v.weight", "0.v.bias")
    assert merge(reduced).graph == graph


def test_a_bias_of_another_name_stays():
    model = model_of(nn.Sequential(nn.Conv2d(4, 8, 3)), 1, 4, 8, 8)
    (conv,) = model.graph.nodes
    conv = Node(conv.op, (*conv.args[:2], TensorRef("shift")))
    tensors = [model.tensors["0.weight"], Tensor.of("shift", np.zeros(8, np.float32))]
    model = Model.of(tensors, model.graph.splice([Splice(0, 1, (conv,))]))
    reduced, _ = decompose(model, LowRankConfig(ranks={"0": 2}))
    assert list(reduced.tensors) == ["0.u.weight", "0.v.weight", "shift"]
    assert reduced.graph.tensor_names() == tuple(reduced.tensors)
    assert merge(reduced).graph == model.graph


# Rules


@given(st.floats(0.05, 1.0))
@settings(deadline=None, max_examples=30)
def test_the_smallest_rank_for_an_energy(energy):
    kernel = np.random.default_rng(0).normal(size=(16, 8, 3, 3)).astype(np.float32)
    model = Model.of([Tensor.of("a.weight", kernel)])
    _, (report,) = decompose(model, LowRankConfig(energy=energy))
    if report.reason:
        assert "elements" in report.reason
        return
    squares = separation(kernel).singular_values ** 2
    kept = np.cumsum(squares) / squares.sum()
    assert report.energy_kept == pytest.approx(kept[report.rank - 1])
    assert kept[report.rank - 1] >= energy - 1e-12
    assert report.rank == 1 or kept[report.rank - 2] < energy + 1e-12


@given(
    st.tuples(*[st.integers(2, 12)] * 2, *[st.integers(2, 5)] * 2),
    st.floats(0.01, 1.0),
)
@settings(deadline=None, max_examples=60)
def test_the_largest_rank_for_a_ratio(shape, ratio):
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    n, c, height, width = shape
    _, (report,) = decompose(
        Model.of([Tensor.of("a.weight", kernel)]), LowRankConfig(rank_ratio=ratio)
    )
    assert report.parameters_before == kernel.size
    each, highest = c * height + n * width, min(c * height, n * width)
    fitting = [rank for rank in range(1, highest + 1) if rank * each <= ratio * kernel.size]
    expected = max(fitting, default=1)
    if expected * each >= kernel.size:
        assert report.rank is None
        assert report.parameters_after == kernel.size
    else:
        assert (report.rank, report.parameters_after) == (expected, expected * each)


def test_a_layer_that_would_grow_is_left_alone_unless_it_is_named():
    model = model_of(nn.Sequential(nn.Conv2d(4, 4, 3)), 1, 4, 8, 8)
    unchanged, (report,) = decompose(model, FULL)
    assert unchanged.tensors == model.tensors
    assert report == LayerReport(
        "0", (4, 4, 3, 3), None, 1.0, 144, 144,
        "its factors of rank 12 would have 288 elements, it has 144",
    )  # fmt: skip
    grown, (report,) = decompose(model, LowRankConfig(ranks={"0": 12}))
    assert (report.rank, report.parameters_after, report.reason) == (12, 288, None)
    assert grown.factors


# What is left alone


def test_every_weight_has_a_report_with_its_reason(branches):
    _, model = branches
    _, reports = decompose(model, LowRankConfig(rank_ratio=0.4))
    assert [report.layer for report in reports] == [
        name.removesuffix(".weight") for name, t in model.tensors.items() if len(t.shape) > 1
    ]
    assert reasons(reports) == {
        "stem": None,
        "shared": None,
        "wide": None,
        "grouped": "its convolution has 4 groups",
        "depthwise": "its convolution has 16 groups",
        "pointwise": "its kernel of 1x1 has nothing to separate",
        "thin": "its kernel of 1x3 has nothing to separate",
        "up": "its convolution is transposed; take scheme auto, or name it with a rank",
        "line": "its weight has 3 dimensions, that of a 2-D convolution has 4",
        "head": "its weight has 2 dimensions, that of a 2-D convolution has 4",
    }


def test_layers_without_a_rank_are_left_alone(branches):
    _, model = branches
    reduced, reports = decompose(model, LowRankConfig(ranks={"wide": 3}))
    assert [factors.layer for factors in reduced.factors] == ["wide"]
    assert reasons(reports)["stem"] == "it is given no rank"


def test_a_shared_kernel_that_is_used_for_something_else_too_is_left_alone():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 8, 3)

        def forward(self, x):
            return self.conv(x) * self.conv.weight.sum()

    _, (report,) = decompose(model_of(Odd(), 1, 4, 8, 8), LowRankConfig(rank_ratio=0.3))
    assert (
        report.reason
        == "it is used by aten.sum.default, which is not a convolution or linear layer"
    )


def test_a_kernel_that_the_graph_returns_or_ignores_is_left_alone():
    model = model_of(nn.Sequential(nn.Conv2d(4, 8, 3)), 1, 4, 8, 8)
    returning = type(model.graph)(
        model.graph.inputs, model.graph.nodes, (Ref(1), TensorRef("0.weight")), model.graph.dims
    )
    _, (report,) = decompose(Model(model.tensors, returning), LowRankConfig(rank_ratio=0.3))
    assert report.reason == "the graph returns its weight"
    more = Model.of(
        [*model.tensors.values(), Tensor.of("x.weight", np.ones((8, 4, 3, 3), np.float32))],
        model.graph,
    )
    _, reports = decompose(more, LowRankConfig(rank_ratio=0.3))
    assert reasons(reports)["x"] == "the graph does not compute anything with it"


def test_a_network_that_is_one_convolution_has_no_name_for_its_factors():
    _, (report,) = decompose(model_of(nn.Conv2d(4, 8, 3), 1, 4, 8, 8), LowRankConfig(energy=0.5))
    assert (report.layer, report.reason) == ("weight", "its weight is not named <layer>.weight")


KERNEL = np.random.default_rng(0).normal(size=(8, 4, 3, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (np.where(KERNEL > 2, np.nan, KERNEL), "its weight has values that are not finite"),
        (KERNEL[:0], "its weight is empty"),
        (KERNEL[:, :1], "it may be a depthwise convolution; name it with a rank if it is not"),
        (KERNEL[..., :1], "its kernel of 3x1 has nothing to separate"),
    ],
)
def test_kernels_without_a_graph_that_are_left_alone(kernel, reason):
    _, (report,) = decompose(
        Model.of([Tensor.of("a.weight", kernel)]), LowRankConfig(rank_ratio=0.3)
    )
    assert report.reason == reason


def test_a_name_that_is_taken_leaves_the_layer_alone():
    tensors = [Tensor.of("a.weight", KERNEL), Tensor.of("a.v.weight", np.ones(3, np.float32))]
    _, (report,) = decompose(Model.of(tensors), LowRankConfig(rank_ratio=0.3))
    assert "there already is a tensor a.u.weight, a.v.weight or a.v.bias" in report.reason


def test_buffers_and_integers_are_no_layers():
    model = Model.of(
        [
            Tensor.of("a.weight", KERNEL, role=Role.BUFFER),
            Tensor.of("b.weight", np.ones((8, 4, 3, 3), np.int8)),
        ]
    )
    assert decompose(model, LowRankConfig(energy=0.5)) == (model, ())


# Without a graph


def test_a_state_dict_is_decomposed_by_shape_and_merged_again():
    model = Model.of(
        [
            Tensor.of("a.weight", KERNEL),
            Tensor.of("a.bias", np.ones(8, np.float32)),
            Tensor.of("b.weight", KERNEL),
            Tensor.of("b.bias", np.ones(9, np.float32)),
            Tensor.of("head.weight", KERNEL[:, :, 0, 0]),
        ]
    )
    reduced, _ = decompose(model, LowRankConfig(rank_ratio=0.5))
    assert list(reduced.tensors) == [
        "a.u.weight", "a.v.weight", "a.v.bias", "b.u.weight", "b.v.weight", "b.bias", "head.weight",
    ]  # fmt: skip
    assert list(merge(reduced).tensors) == list(model.tensors)


def test_what_may_be_depthwise_is_taken_when_it_is_named():
    model = Model.of([Tensor.of("a.weight", KERNEL[:, :1])])
    reduced, (report,) = decompose(model, LowRankConfig(ranks={"a": 3}))
    assert report.reason is None
    np.testing.assert_allclose(merge(reduced).tensors["a.weight"].read(), KERNEL[:, :1], atol=1e-6)


def test_factors_of_an_earlier_call_are_kept():
    model = Model.of([Tensor.of("a.weight", KERNEL), Tensor.of("b.weight", KERNEL)])
    for layer in ("b", "a"):
        model, _ = decompose(model, LowRankConfig(ranks={layer: 2}))
    assert [factors.layer for factors in model.factors] == ["b", "a"]
    assert list(merge(model).tensors) == ["a.weight", "b.weight"]


# Errors


def test_an_unknown_layer_is_refused_with_near_names(branches):
    _, model = branches
    with pytest.raises(ConfigError, match=r"no layer 'sten'.*do you mean stem"):
        decompose(model, LowRankConfig(ranks={"sten": 2}))


def test_a_rank_that_is_too_high_is_refused_with_the_highest(branches):
    _, model = branches
    with pytest.raises(ConfigError, match=r"'stem' has at most rank 15, not 16"):
        decompose(model, LowRankConfig(ranks={"stem": 16}))


@pytest.mark.parametrize("layer", ["grouped", "depthwise"])
def test_a_named_layer_that_cannot_be_decomposed_is_an_error(branches, layer):
    _, model = branches
    with pytest.raises(ConfigError, match=f"'{layer}' cannot be decomposed: "):
        decompose(model, LowRankConfig(ranks={layer: 1}))


def reduced_model():
    model = model_of(nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU()), 1, 4, 8, 8)
    return decompose(model, LowRankConfig(ranks={"0": 2}))[0]


def changed(model, **tensors):
    return Model({**model.tensors, **tensors}, model.graph, model.factors)


@pytest.mark.parametrize(
    "model",
    [
        Model({}, None, reduced_model().factors),
        Model(reduced_model().tensors, None, (Factors("0", (8, 4, 3, 3), 3),)),
        Model(reduced_model().tensors, None, (Factors("0", (8, 4, 3, 5), 2),)),
        Model(reduced_model().tensors, None, reduced_model().factors * 2),
        changed(reduced_model(), **{"0.weight": Tensor.of("0.weight", KERNEL)}),
        changed(reduced_model(), **{"0.bias": Tensor.of("0.bias", KERNEL)}),
        changed(
            reduced_model(),
            **{"0.u.weight": Tensor.of("0.u.weight", np.ones((2, 4, 3, 1), np.int32))},
        ),
    ],
)
def test_tensors_that_do_not_fit_the_factors_are_refused(model):
    with pytest.raises(ModelError, match="layer '0'"):
        merge(model)


@pytest.mark.parametrize(
    "nodes",
    [
        lambda u, v, relu: (u, relu, v),
        lambda u, v, relu: (u, Node(v.op, (Ref(0), *v.args[1:])), relu),
        lambda u, v, relu: (u, v, Node("aten.add.Tensor", (Ref(1), Ref(2)))),
        lambda u, v, relu: (u, Node(v.op, v.args, (("groups", 1),)), relu),
        lambda u, v, relu: (v, relu),
        lambda u, v, relu: (u, v, Node("aten.add.Tensor", (Ref(2), u.args[1]))),
        lambda u, v, relu: (u, Node("aten.relu.default", (Ref(1),)), relu),
    ],
)
def test_a_graph_that_does_not_fit_the_factors_is_refused(nodes):
    model = reduced_model()
    graph = type(model.graph)(
        model.graph.inputs, nodes(*model.graph.nodes), model.graph.output, model.graph.dims
    )
    with pytest.raises(ModelError, match=r"0\.u\.weight"):
        merge(Model(model.tensors, graph, model.factors))


def test_reducing_does_not_need_torch():
    code = "import sys, nnrcodec.reduce.low_rank; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
