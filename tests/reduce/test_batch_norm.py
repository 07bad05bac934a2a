import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS
from torch import nn
from torch.nn import functional

import nnrcodec
from nnrcodec.decoder.merging import merge
from nnrcodec.errors import ModelError
from nnrcodec.graph.check import check
from nnrcodec.graph.export import model_of_module, model_of_program
from nnrcodec.graph.graph import Node, Ref, TensorRef
from nnrcodec.graph.module import build_module
from nnrcodec.graph.normalized import normalized_convolutions
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.reduce.batch_norm import FoldReport, fold_batch_norm
from nnrcodec.reduce.low_rank import decompose
from nnrcodec.reduce.ranks import LowRankConfig

RESNET = next(network for network in NETWORKS if network.name == "resnet")
BATCH_NORMS = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def trained(module):
    """Give batch norms statistics and weights that are not trivial."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, BATCH_NORMS):
            if part.running_mean is not None:
                part.running_mean.normal_(0, 0.5)
                part.running_var.uniform_(0.1, 3)
            if part.weight is not None:
                nn.init.normal_(part.weight, 0, 1)
                nn.init.normal_(part.bias, 0, 1)
    return module.eval()


def model_of(module, *shape):
    return model_of_module(module, (torch.rand(shape),))


def program_model(module, example, *, decomposed):
    """Return a model with batch norms of one of the two operators that exports have."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
        program = torch.export.export(module, (example,))
        return model_of_program(program.run_decompositions() if decomposed else program)


def batch_norms(model):
    return sum("batch_norm" in node.op for node in model.graph.nodes)


def reasons(reports):
    assert all(report.folded == (report.reason is None) for report in reports)
    return {report.layer: report.reason for report in reports}


@torch.no_grad()
def require_same(model, folded, *shape, tolerance=1e-5):
    check(folded.graph, folded.tensors)
    value = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    expected, actual = build_module(model)(value), build_module(folded)(value)
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


# Networks


def test_a_residual_network():
    module = trained(RESNET.module())
    model = model_of_module(module, (RESNET.example(),))
    folded, reports = fold_batch_norm(model)
    assert reasons(reports) == {
        "0": None,
        "4.conv1": None,
        "4.conv2": None,
        "5.conv1": None,
        "5.conv2": None,
        "5.downsample.0": None,
        "9": "no batch norm follows it",
    }
    assert (batch_norms(model), batch_norms(folded)) == (6, 0)
    assert len(folded.graph.nodes) == len(model.graph.nodes) - 6
    assert sorted(folded.tensors) == sorted(folded.graph.tensor_names())
    assert list(folded.tensors)[:4] == ["0.weight", "0.bias", "4.conv1.weight", "4.conv1.bias"]
    assert all(tensor.role is Role.PARAMETER for tensor in folded.tensors.values())
    for shape in (RESNET.shape, *RESNET.other_shapes):
        require_same(model, folded, *shape, tolerance=1e-4)


def test_a_linear_layer_after_which_there_is_a_batch_norm():
    network = next(network for network in NETWORKS if network.name == "classifier")
    model = model_of_module(trained(network.module()), (network.example(),))
    folded, reports = fold_batch_norm(model)
    assert [report.layer for report in reports if report.folded] == ["classify.1"]
    require_same(model, folded, *network.shape)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_networks_without_a_batch_norm_stay_as_they_are(network):
    model = model_of_module(network.module(), (network.example(),))
    if not batch_norms(model):
        assert normalized_convolutions(model) == ()
        folded, reports = fold_batch_norm(model)
        assert (dict(folded.tensors), folded.graph) == (dict(model.tensors), model.graph)
        assert {report.reason for report in reports} <= {"no batch norm follows it"}


def test_the_folded_network_goes_through_a_stream():
    model = model_of_module(trained(RESNET.module()), (RESNET.example(),))
    folded, _ = fold_batch_norm(model)
    received = nnrcodec.decode_model(nnrcodec.encode(folded))
    assert list(received.state_dict()) == list(folded.tensors)
    assert received._nnr_graph == folded.graph
    value = RESNET.example()
    with torch.no_grad():
        expected = build_module(model)(value)
        assert torch.norm(received(value) - expected) < 0.2 * torch.norm(expected)


def test_the_model_that_was_given_is_not_changed():
    model = model_of(trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))), 2, 3, 8, 8)
    before = {name: tensor.read().copy() for name, tensor in model.tensors.items()}
    graph = model.graph
    fold_batch_norm(model)
    assert model.graph == graph
    assert list(model.tensors) == list(before)
    for name, tensor in model.tensors.items():
        np.testing.assert_array_equal(tensor.read(), before[name])


# Layers


@st.composite
def layers(draw, decomposed):
    axes = draw(st.integers(1, 3))
    transposed = draw(st.booleans())
    groups = draw(st.integers(1, 3))
    options = {
        "in_channels": groups * draw(st.integers(1, 2)),
        "out_channels": groups * draw(st.integers(1, 3)),
        "kernel_size": draw(st.integers(1, 3)),
        "stride": draw(st.integers(1, 2)),
        "padding": draw(st.integers(0, 1)),
        "dilation": draw(st.integers(1, 2)),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    if not transposed:
        if not decomposed:  # circular padding would become operators that cannot be coded
            options["padding_mode"] = draw(st.sampled_from(["zeros", "circular"]))
        if options["stride"] == 1 and options["kernel_size"] % 2 and draw(st.booleans()):
            options["padding"] = "same"
    name = f"Conv{'Transpose' if transposed else ''}{axes}d"
    eps, affine = draw(st.sampled_from([1e-5, 0.1])), draw(st.booleans())
    norm = getattr(nn, f"BatchNorm{axes}d")(options["out_channels"], eps, affine=affine)
    return nn.Sequential(getattr(nn, name)(**options), norm), (
        2,
        options["in_channels"],
        *[7] * axes,
    )


@settings(max_examples=20, deadline=None)
@given(st.data())
@pytest.mark.parametrize("decomposed", [False, True])
def test_convolutions_of_all_kinds(decomposed, data):
    module, shape = data.draw(layers(decomposed))
    example = torch.rand(shape)
    model = program_model(trained(module), example, decomposed=decomposed)
    (found,) = normalized_convolutions(model)
    assert (found.weight, found.layer) == ("0.weight", "0")
    assert found.bias == ("0.bias" if module[0].bias is not None else None)
    assert found.gamma == ("1.weight" if module[1].affine else None)
    assert found.beta == ("1.bias" if module[1].affine else None)
    assert (found.running_mean, found.running_var) == ("1.running_mean", "1.running_var")
    assert found.eps == module[1].eps
    assert "conv" in model.graph.node_of(found.convolution).op
    assert "batch_norm" in model.graph.node_of(found.batch_norm).op
    assert model.graph.is_output(found.result)
    folded, reports = fold_batch_norm(model)
    assert reports == (FoldReport("0", True, None),)
    assert list(folded.tensors) == ["0.weight", "0.bias"]
    assert batch_norms(folded) == 0
    assert "operator.getitem" not in [node.op for node in folded.graph.nodes]
    require_same(model, folded, *shape)


def test_the_values_are_rounded_once():
    module = trained(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)))
    folded, _ = fold_batch_norm(model_of(module, 2, 3, 8, 8))
    conv, norm = (part.double() for part in module)
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = (conv.weight * factor.reshape(-1, 1, 1, 1)).float()
    bias = (norm.bias + (conv.bias - norm.running_mean) * factor).float()
    for name, expected in (("0.weight", weight), ("0.bias", bias)):
        actual = folded.tensors[name].read()
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected.detach().numpy(), rtol=1.2e-7, atol=0)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("float16", 1e-2), ("bfloat16", 1e-1)]
)
def test_weights_keep_their_dtype(dtype, tolerance):
    kind = getattr(torch, dtype)
    module = trained(nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5))).to(kind)
    value = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)).to(kind)
    folded, (report,) = fold_batch_norm(model_of_module(module, (value,)))
    assert report.folded
    assert {name: tensor.dtype for name, tensor in folded.tensors.items()} == {
        "0.weight": dtype,
        "0.bias": dtype,
    }
    with torch.no_grad():
        actual = build_module(folded)(value)
        torch.testing.assert_close(actual, module(value), atol=tolerance, rtol=tolerance)


class Apart(nn.Module):
    """Nodes of others between convolutions and their batch norms, and a result in place."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])

    def forward(self, x):
        left, right = self.left(x), self.right(x)
        second, first = self.norms[1](right), self.norms[0](left)
        return {"sum": functional.relu_(first) + second, "second": second}


@pytest.mark.parametrize("decomposed", [False, True])
def test_a_batch_norm_need_not_be_the_next_node(decomposed):
    module = trained(Apart())
    model = program_model(module, torch.rand(2, 3, 8, 8), decomposed=decomposed)
    folded, reports = fold_batch_norm(model)
    assert reasons(reports) == {"left": None, "right": None}
    assert list(folded.tensors) == ["left.weight", "left.bias", "right.weight", "right.bias"]
    require_same(model, folded, 2, 3, 8, 8)


def test_only_the_first_of_two_batch_norms_is_folded():
    module = trained(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)))
    model = model_of(module, 2, 3, 8, 8)
    folded, _ = fold_batch_norm(model)
    assert batch_norms(folded) == 1
    require_same(model, folded, 2, 3, 8, 8)
    again, _ = fold_batch_norm(folded)
    assert batch_norms(again) == 0
    require_same(model, again, 2, 3, 8, 8)


def test_a_decomposed_convolution_is_folded_and_merged():
    module = trained(nn.Sequential(nn.Conv2d(3, 8, 5, bias=False), nn.BatchNorm2d(8)))
    model = model_of(module, 2, 3, 9, 9)
    thin, _ = decompose(model, LowRankConfig(ranks={"0": 15}))
    folded, reports = fold_batch_norm(thin)
    assert reasons(reports) == {"0.u": "no batch norm follows it", "0.v": None}
    assert list(folded.tensors) == ["0.u.weight", "0.v.weight", "0.v.bias"]
    require_same(model, folded, 2, 3, 9, 9, tolerance=1e-4)
    merged = merge(folded)
    assert list(merged.tensors) == ["0.weight", "0.bias"]
    require_same(model, merged, 2, 3, 9, 9, tolerance=1e-4)


# Names


class Taken(nn.Module):
    """Tensors and layers that already have the name of the bias that is missing."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 3, 1, 1))
        self.bias = nn.Parameter(torch.rand(1))
        self.first = nn.Conv2d(4, 4, 1, bias=False)
        self.first.add_module("bias_1", nn.Linear(4, 4, bias=False))
        del self.first._parameters["bias"]
        self.first.bias = nn.Linear(4, 4, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])

    def forward(self, x):
        x = self.norms[0](functional.conv2d(x, self.weight)) * self.bias
        x = self.norms[1](functional.conv2d(x, self.first.weight))
        return self.first.bias_1(self.first.bias(x.flatten(2).mean(2)))


def test_a_new_bias_takes_no_name_that_is_there():
    model = model_of(trained(Taken()), 2, 3, 8, 8)
    folded, reports = fold_batch_norm(model)
    assert batch_norms(folded) == 0
    assert [report.layer for report in reports] == [
        "weight", "first", "first.bias", "first.bias_1",
    ]  # fmt: skip
    assert set(folded.tensors) - set(model.tensors) == {"bias_1", "first.bias_2"}
    require_same(model, folded, 2, 3, 8, 8)


# What is left alone


class Mixed(nn.Module):
    """Batch norms that cannot be folded, each for another reason."""

    def __init__(self):
        super().__init__()
        self.plain = nn.Conv2d(4, 4, 1)
        self.branching = nn.Conv2d(4, 4, 1)
        self.shared = nn.Conv2d(4, 4, 1)
        self.one, self.other = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.measured = nn.Conv2d(4, 4, 1)
        self.sequence = nn.Linear(4, 6)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4) for _ in range(4)])
        self.batch_statistics = nn.BatchNorm2d(4, track_running_stats=False)
        self.over_length = nn.BatchNorm1d(6)

    def forward(self, x):
        x = self.norms[0](torch.relu(self.plain(x)))
        y = self.branching(x)
        x = self.norms[1](y) + y
        x = self.norms[2](self.shared(torch.relu(self.shared(x))))
        x = self.norms[3](self.one(self.norms[3](self.other(x))))
        x = self.batch_statistics(self.measured(x))
        x = x.flatten(2)[:, :, :6].permute(0, 2, 1)
        return self.over_length(self.sequence(x))


def test_every_layer_that_is_left_alone_has_its_reason():
    model = model_of(trained(Mixed()), 2, 4, 8, 8)
    assert normalized_convolutions(model) == ()
    folded, reports = fold_batch_norm(model)
    assert (dict(folded.tensors), folded.graph) == (dict(model.tensors), model.graph)
    assert reasons(reports) == {
        "plain": "no batch norm follows it",
        "branching": "a batch norm is not the only user of its result",
        "shared": "no batch norm follows it",
        "other": "'norms.3.running_mean' is used more than once",
        "one": "'norms.3.running_mean' is used more than once",
        "measured": "the batch norm after it computes its statistics from its input",
        "sequence": "its input has 3 axes, so that the batch norm is not over its channels",
    }


def test_a_layer_that_others_share_is_left_alone():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.last = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Tanh()

        def forward(self, x):
            return self.last(self.conv(self.norm(self.conv(x))))

    _, (report,) = fold_batch_norm(model_of(trained(Tied()), 2, 3, 4, 4))
    assert report.reason == "'conv.weight' is used more than once"


def test_an_image_without_a_batch_has_its_channels_elsewhere():
    class Unbatched(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6)

        def forward(self, x):
            return self.norm(self.conv(x))

    model = model_of(trained(Unbatched()), 3, 6)  # its length is as many as its channels
    _, (report,) = fold_batch_norm(model)
    assert report.reason == (
        "its input has 2 axes, so that the batch norm is not over its channels"
    )


def test_where_the_axes_are_not_known_nothing_is_folded():
    class Strange(nn.Module):
        def __init__(self):
            super().__init__()
            self.line, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x):
            return self.norm(self.line(torch.einsum("abc->ab", x)))

    _, (report,) = fold_batch_norm(model_of(trained(Strange()), 2, 4, 4))
    assert "not known how many axes" in report.reason


@pytest.mark.parametrize(
    "before",
    [
        lambda x: x.flatten(1),
        lambda x: x.mean((2, 3)),
        lambda x: x.sum((2, 3), keepdim=True)[:, :, 0, 0],
        lambda x: x.view(x.shape[0], 64),
        lambda x: functional.adaptive_avg_pool2d(torch.cat([x, x], 1), 2).flatten(1, -1),
        lambda x: (x + x.mean((2, 3)).unsqueeze(2).unsqueeze(3)).reshape(-1, 16),
        lambda x: functional.max_pool2d(x.clamp(0, 1), 2).split(2, 1)[1].flatten(1),
    ],
)
def test_a_linear_layer_behind_what_makes_vectors(before):
    class Net(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.line, self.norm = nn.Linear(width, 5), nn.BatchNorm1d(5)

        def forward(self, x):
            return self.norm(self.line(before(x)))

    width = before(torch.rand(2, 4, 4, 4)).shape[-1]
    model = model_of(trained(Net(width)), 2, 4, 4, 4)
    folded, (report,) = fold_batch_norm(model)
    assert report.reason is None
    require_same(model, folded, 2, 4, 4, 4)


def simple_model(**changes):
    module = trained(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    model = model_of(module, 2, 3, 4, 4)
    tensors = {
        name: Tensor.of(name, changes.get(name, tensor.read()), role=tensor.role)
        for name, tensor in model.tensors.items()
    }
    return Model(tensors, model.graph)


def channels(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    "changes",
    [
        {"1.running_var": channels(-1, 1, 1, 1)},
        {"1.running_mean": channels(np.inf, 1, 1, 1)},
        {"1.weight": channels(1, np.nan, 1, 1)},
        {"0.weight": np.full((4, 3, 1, 1), 3e38, np.float32), "1.weight": channels(9, 9, 9, 9)},
        {"0.bias": channels(1, 1, 1, -np.inf)},
    ],
)
def test_values_that_are_not_finite_are_left_alone(changes):
    model = simple_model(**changes)
    folded, (report,) = fold_batch_norm(model)
    assert "not finite in float32" in report.reason
    assert (dict(folded.tensors), folded.graph) == (dict(model.tensors), model.graph)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"0.bias": channels(1)}, "does not have its 4 channels"),
        ({"1.running_var": np.ones((4, 1), np.float32)}, "does not have its 4 channels"),
        ({"1.weight": np.ones(4, np.int64)}, "'1.weight' is of dtype int64"),
        ({"0.weight": np.ones((0, 3, 1, 1), np.float32)}, "is empty"),
    ],
)
def test_tensors_that_do_not_fit_are_left_alone(changes, reason):
    _, (report,) = fold_batch_norm(simple_model(**changes))
    assert reason in report.reason


def test_what_the_graph_returns_as_well_is_left_alone():
    model = simple_model()
    for output, reason in (
        ((Ref(1), Ref(2)), "a batch norm is not the only user of its result"),
        (Ref(1), "a batch norm is not the only user of its result"),
        ((Ref(2), TensorRef("0.weight")), "'0.weight' is used more than once"),
        ((Ref(2), TensorRef("1.bias")), "'1.bias' is used more than once"),
    ):
        returning = Model(model.tensors, replace(model.graph, output=output))
        folded, (report,) = fold_batch_norm(returning)
        assert report.reason == reason
        assert folded.graph == returning.graph


def test_a_computed_bias_or_statistic_is_left_alone():
    model = simple_model()
    conv, norm = model.graph.nodes
    twice = Node("aten.add.Tensor", (TensorRef("0.bias"), TensorRef("0.bias")))
    shifted = Node(norm.op, (Ref(2), *norm.args[1:]))
    computed = (
        (twice, Node(conv.op, (*conv.args[:2], Ref(1))), shifted),
        (twice, conv, Node(norm.op, (Ref(2), Ref(1), *norm.args[2:]))),
    )
    for nodes in computed:
        graph = replace(model.graph, nodes=nodes, output=Ref(3))
        check(graph, model.tensors)
        assert normalized_convolutions(Model(model.tensors, graph)) == ()
        _, (report,) = fold_batch_norm(Model(model.tensors, graph))
        assert "computed by the graph" in report.reason


def test_arguments_by_name_are_found():
    model = simple_model()
    conv, norm = model.graph.nodes
    names = ("input", "weight", "bias")
    named = Node(conv.op, (), tuple(zip(names, conv.args, strict=False)))
    without_bias = Node(conv.op, conv.args[:1], (("weight", TensorRef("0.weight")),))
    for node in (named, without_bias):
        graph = replace(model.graph, nodes=(node, norm))
        folded, (report,) = fold_batch_norm(Model(model.tensors, graph))
        assert report.folded
        (left,) = folded.graph.nodes
        name = "0.bias" if node is named else "0.bias_1"
        assert dict(left.kwargs)["bias"] == TensorRef(name)
        require_same(Model(model.tensors, graph), folded, 2, 3, 4, 4)


def test_a_count_of_batches_that_the_graph_uses_stays():
    model = simple_model()
    count = TensorRef("1.num_batches_tracked")
    more = Node("aten.add.Tensor", (Ref(2), count))
    graph = replace(model.graph, nodes=(*model.graph.nodes, more), output=Ref(3))
    folded, _ = fold_batch_norm(Model(model.tensors, graph))
    assert list(folded.tensors) == ["0.weight", "0.bias", count.name]
    require_same(Model(model.tensors, graph), folded, 2, 3, 4, 4)


@pytest.mark.parametrize("function", [normalized_convolutions, fold_batch_norm])
def test_a_model_without_a_graph_is_refused(function):
    model = Model.of([Tensor.of("a.weight", np.ones((2, 2), np.float32))])
    with pytest.raises(ModelError, match=r"graph.*\.pt2 file or example inputs"):
        function(model)
