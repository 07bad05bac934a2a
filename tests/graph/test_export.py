"""What an export keeps, and what it refuses."""

import contextlib
import logging
import re

import numpy as np
import pytest
import torch
from networks import NETWORKS, PadToMultiple, values
from torch import nn
from torch.export import Dim, export
from torch.nn import functional

from nnrcodec.errors import ModelError
from nnrcodec.graph import export as export_module
from nnrcodec.graph.export import model_of_module, model_of_program
from nnrcodec.graph.graph import Node, Ref, TensorRef
from nnrcodec.graph.module import build_module
from nnrcodec.model.model import Role


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def said(caplog):
    """Return what this package has logged, level and message; PyTorch logs as well."""
    records = [record for record in caplog.records if record.name.startswith("nnrcodec")]
    return [(record.levelname, record.getMessage()) for record in records]


def through(module, *inputs, **options):
    return build_module(model_of_module(module, inputs, **options))


FUNCTIONS = {
    "masks": lambda x: torch.where(x > 0, x, -x).masked_fill(x == 0, float("-inf")),
    "comparisons": lambda x: (x >= 0.5) & ~(x < 0) | torch.isnan(x),
    "indexing": lambda x: x[..., ::2][:, torch.tensor([1, 0])] + x[:, :1, None, 0],
    "writes": lambda x: writes(x),
    "statistics": lambda x: torch.cat(
        [x.std(1), x.var(1, unbiased=False), x.amax(1), x.norm(dim=1)]
    ),
    "extremes": lambda x: (*x.max(1), x.topk(2, 2)[0], x.argmin(), torch.sort(x, 2, True)[1]),
    "sums": lambda x: x.cumsum(2) + x.sum() - x.mean((1, 2), keepdim=True) * x.prod(1, True),
    "positions": lambda x: x + torch.arange(x.shape[2]) / x.shape[2] - torch.ones(x.shape[1], 1),
    "grids": lambda x: torch.stack(torch.meshgrid(x[0, 0], x[0, :, 0], indexing="ij")),
    "einsum": lambda x: torch.einsum("bij,bkj->bik", x, x),
    "normalize": lambda x: functional.normalize(x, dim=1) * functional.layer_norm(x, x.shape[2:]),
    "splits": lambda x: [*x.split([1, 3], 1), *x.chunk(2, 1), *x.tensor_split(2, 2), *x.unbind(1)],
    "shapes": lambda x: x.flip(2).roll(1, 1).repeat(1, 2, 1).unflatten(1, (2, -1)).movedim(0, 1),
    "triangles": lambda x: x.tril() + x.triu(1) + torch.full((4, 6), 2.0).tril(),
    "rounding": lambda x: torch.div(x, 0.3, rounding_mode="floor") + x.round().clamp(min=-1) % 3,
    "casts": lambda x: x.half().float() + (x * 10).to(torch.int32) + x.double().type_as(x),
    "powers": lambda x: x**2 + 2**x + (x.abs() + 1) ** x + torch.rsqrt(x.abs() + 1).exp().log1p(),
    "activations": lambda x: (
        functional.hardtanh(functional.celu(functional.glu(x, 2)))
        + functional.logsigmoid(functional.softsign(x[..., ::2]))
    ),
    "padding": lambda x: (
        functional.pad(x, (1, 2), "circular") + functional.pad(x, (2, 1), value=float("inf"))
    ),
    "folding": lambda x: functional.fold(functional.unfold(x[None], 2), (4, 6), 2),
    "pooling": lambda x: functional.adaptive_max_pool2d(functional.lp_pool2d(x.abs(), 2, 2), 2),
    "sampling": lambda x: functional.grid_sample(
        x[:, None], x[:, None, :2, :2].tanh(), align_corners=False
    ),
    "sizes": lambda x: functional.interpolate(x, size=x.shape[-1] * 3 // 2 + 1, mode="linear"),
    "rescaled": lambda x: functional.interpolate(
        x[None], scale_factor=1.5, recompute_scale_factor=True
    ),
    "embedding": lambda x: functional.embedding((x > 0).long(), x[0]),
    "one_hot": lambda x: functional.one_hot((x > 0).long(), 3),
    "transforms": lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2, n=x.shape[-1]) * 3,
    "transforms of planes": lambda x: torch.fft.ifft2(torch.fft.fft2(x, norm="ortho")).real,
    "spectra": lambda x: torch.fft.fftshift(torch.fft.fftn(x, dim=(1, 2))).angle().isfinite(),
    "spectrogram": lambda x: spectrogram(x.reshape(2, -1).repeat(1, 4)),
    "distances": lambda x: torch.cdist(x, x) + functional.pairwise_distance(x, x[:, :1])[..., None],
    "differences": lambda x: x.diff(dim=2)[:, :2] + x.diff(n=2, dim=1)[..., :5],
    "histogram": lambda x: torch.histc(x, 5, -1, 1),
    "scatters": lambda x: x.scatter_reduce(2, (x > 0).long(), x, "amax").scatter_add(
        1, (x > 0).long(), x
    ),
    "inverse": lambda x: torch.linalg.inv(x @ x.mT + torch.eye(4)) @ x,
    "solutions": lambda x: torch.linalg.solve(x @ x.mT + torch.eye(4), x),
    "quantiles": lambda x: torch.quantile(x, 0.3, dim=2) + x.kthvalue(2, dim=2)[0],
    "running extremes": lambda x: x.cummax(2)[0] - x.cummin(2)[0] + x.logcumsumexp(1),
    "unpooled": lambda x: functional.max_unpool2d(
        *functional.max_pool2d(x[:, None], 2, return_indices=True), 2
    ),
    "products": lambda x: (
        torch.tensordot(x, x, dims=([1, 2], [1, 2])) + torch.kron(x[0], x[0])[0, 0]
    ),
    "crosses": lambda x: torch.linalg.cross(x[..., :3], x[..., 3:]),
    "complex numbers": lambda x: torch.view_as_real(torch.complex(x, -x).conj() ** 2),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=True),
}


def spectrogram(signal):
    window = torch.hann_window(16)
    found = torch.stft(signal, 16, 4, window=window, return_complex=True)
    return found.abs(), torch.istft(found, 16, 4, window=window, length=signal.shape[-1])


def writes(x):
    y = x.clone()
    y[:, 0] = 1
    y[:, 1, ::2] += x[:, 0, ::2]
    y[y > 1] = 0.5
    return y


@pytest.mark.parametrize("name", FUNCTIONS)
@torch.no_grad()
def test_operators_survive(name):
    function, x = FUNCTIONS[name], values((2, 4, 6))
    assert_identical(through(Function(function), x)(x), function(x))


def assert_identical(left, right):
    assert type(left) is type(right) or isinstance(right, tuple)
    if isinstance(right, torch.Tensor):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert torch.equal(left.nan_to_num(), right.nan_to_num())
    elif isinstance(right, tuple | list):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_identical(one, other)
    else:
        assert left == right


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
@torch.no_grad()
def test_recurrent_networks_survive(cell):
    torch.manual_seed(0)
    module = cell(3, 5, num_layers=2, bidirectional=True)
    x = values((7, 2, 3))
    received, original = through(module, x)(x), module(x)
    assert torch.equal(received[0], original[0])


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@torch.no_grad()
def test_recurrent_cells_survive(cell):
    torch.manual_seed(0)
    module = cell(3, 5)
    x = values((7, 3))
    received, original = through(module, x)(x), module(x)
    assert_identical(received, original)


class Structured(nn.Module):
    """Several inputs, one of them given by name, and nested outputs."""

    def forward(self, image, noise, *, weight):
        mixed = image + noise * weight
        return {"mixed": mixed, "parts": [noise, (image, None)], "count": 3}


def test_inputs_by_name_and_nested_outputs_survive():
    image, noise, weight = values((2, 3)), values((2, 3)) * 2, values((3,))
    program = export(Structured(), (image, noise), {"weight": weight})
    received = build_module(model_of_program(program))
    for output in (
        received(image, noise, weight),
        received(noise=noise, weight=weight, image=image),
    ):
        assert list(output) == ["mixed", "parts", "count"]
        assert torch.equal(output["mixed"], image + noise * weight)
        assert isinstance(output["parts"], list)
        assert isinstance(output["parts"][1], tuple)
        assert output["parts"][0] is noise
        assert output["parts"][1][1] is None
        assert output["count"] == 3


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens):
        return self.out(self.embed(tokens))


def test_tied_parameters_are_two_tensors():
    module, tokens = Tied(), torch.tensor([[1, 2, 6]])
    model = model_of_module(module, (tokens,))
    assert list(model.tensors) == ["embed.weight", "out.weight"]
    received = build_module(model)
    assert torch.equal(received(tokens), module(tokens))
    module.load_state_dict(received.state_dict())


class Roles(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.tensor(1.5))
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]), persistent=False)
        self.scale = nn.Parameter(torch.tensor([2.0, 3.0]))
        self.unused = nn.Parameter(torch.ones(2), requires_grad=False)
        self.table = torch.tensor([[4.0, 5.0]])

    def forward(self, x):
        return (x * self.scale + self.shift + self.table + torch.tensor([0.1, 0.2])).max(self.mask)


def test_roles_and_order_follow_the_state_dict():
    x = values((3, 2))
    module = Roles()
    model = model_of_module(module, (x,))
    roles = {name: tensor.role for name, tensor in model.tensors.items()}
    assert list(roles)[:3] == ["scale", "unused", "shift"] == list(module.state_dict())
    assert [roles.pop(name) for name in ("scale", "unused", "shift")] == [
        Role.PARAMETER,
        Role.PARAMETER,
        Role.BUFFER,
    ]
    assert {"mask", "table"} < set(roles)
    assert set(roles.values()) == {Role.CONSTANT}
    received = build_module(model)
    assert torch.equal(received(x), module(x))
    assert list(received.state_dict()) == list(module.state_dict())


def test_scalars_stay_scalars():
    model = model_of_module(Roles(), (values((3, 2)),))
    assert model.tensors["shift"].shape == () == model.tensors["shift"].read().shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@torch.no_grad()
def test_floating_dtypes_survive(dtype):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).to(dtype)
    x = values((3, 4)).to(dtype)
    model = model_of_module(module, (x,))
    assert {t.dtype for t in model.tensors.values()} == {str(dtype).removeprefix("torch.")}
    if dtype is torch.bfloat16:
        assert model.tensors["0.weight"].read().dtype == np.float32
    received = build_module(model)
    assert received.state_dict()["0.weight"].dtype == dtype
    assert torch.equal(received(x), module(x))


def test_tensors_are_read_when_asked_for():
    module = nn.Linear(2, 2)
    model = model_of_module(module, (values((1, 2)),))
    with torch.no_grad():
        module.weight.fill_(7)
    assert (model.tensors["weight"].read() == 7).all()


def test_training_flags_stay_as_they_were():
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(2)).train()
    module[1].eval()
    model = model_of_module(module, (values((1, 2, 4, 4)),))
    assert [m.training for m in module.modules()] == [True, True, False]
    assert model.graph.nodes[0] == Node("aten.dropout.default", (Ref(0), 0.5, False))


def test_dynamic_shapes_may_be_given():
    module = nn.Conv2d(1, 1, 3)
    height = Dim("height", min=4, max=64)
    model = model_of_module(module, (values((2, 1, 8, 8)),), dynamic_shapes=({2: height},))
    (name,) = model.graph.dims
    assert model.graph.inputs[0].shape == (2, 1, name, 8)
    assert (model.graph.dims[name].low, model.graph.dims[name].high) == (4, 64)


def test_network_that_asks_about_sizes_is_exported_the_general_way():
    module = PadToMultiple().eval()
    received = through(module, values((1, 1, 16, 16)))
    for shape in ((1, 1, 16, 16), (1, 1, 11, 16), (3, 1, 24, 17)):
        assert torch.equal(received(values(shape)), module(values(shape)))


def test_bound_on_a_size_is_kept_and_enforced():
    def double_if_large(x):
        return x * 2 if x.shape[1] > 30 else x

    received = through(Function(double_if_large), values((2, 16)))
    received(values((5, 30)))
    with pytest.raises(ValueError, match=r"size 31 in axis 1, the model takes 0\.\.30"):
        received(values((2, 31)))


def test_network_that_counts_its_batch_is_exported_as_it_is():
    received = through(
        Function(lambda x: x.view(1, -1) if len(x) == 1 else 0 * x), values((1, 3, 2))
    )
    assert torch.equal(received(values((1, 3, 2))), values((1, 3, 2)).view(1, -1))
    with pytest.raises(ValueError, match="size 2 in axis 0"):
        received(values((2, 3, 2)))


def test_axes_that_become_fixed_are_said_with_the_reason(caplog):
    through(Function(lambda x: x.view(1, -1) if len(x) == 1 else 0 * x), values((1, 3, 2)))
    ((level, message),) = said(caplog)
    assert level == "WARNING"
    assert message.startswith("fixed in the graph: axis 0 of input 'x' to 1; ")
    assert "input 'x' has size 1 in axis 0, the model takes 2" in message


@pytest.mark.parametrize("most_axes", [0, 1])
def test_refusals_of_the_exporter_are_said(most_axes, monkeypatch, caplog):
    def limited(module, examples, dynamic_shapes):
        if dynamic_shapes is not None and any(len(axes) > most_axes for axes in dynamic_shapes):
            raise export_module._ExportError("too many axes\nfor this test")
        return original(module, examples, dynamic_shapes)

    original = export_module._export
    monkeypatch.setattr(export_module, "_export", limited)
    model = model_of_module(nn.ReLU(), (values((3, 4)),))
    assert len(model.graph.dims) == most_axes
    ((_, message),) = said(caplog)
    assert "axis 1 of input 'input' to 4; " in message
    assert ("axis 0 of input 'input' to 3, " in message) == (most_axes == 0)
    assert message.endswith("(too many axes)")


def test_axis_of_one_in_the_example_is_dynamic(caplog):
    received = through(nn.ReLU(), values((2, 1)))
    assert received(values((3, 4))).shape == (3, 4)
    assert not said(caplog)


def test_axis_of_one_that_is_stretched_stays(caplog):
    module = Function(lambda x: x + torch.arange(4.0))
    received = through(module, values((2, 1)))
    for shape in ((3, 1), (3, 4)):
        x = values(shape)
        with contextlib.suppress(ValueError):
            assert torch.equal(received(x), module(x))


def test_what_only_the_network_fixes_is_information(caplog):
    with caplog.at_level(logging.INFO):
        through(nn.Linear(4, 2), values((3, 4)))
    message = "fixed in the graph by the network: axis 1 of input 'input' to 4"
    assert said(caplog) == [("INFO", message)]


def test_sizes_that_the_module_refuses_are_said(caplog):
    def even_only(x):
        return x.unflatten(1, (2, -1))

    received = through(Function(even_only), values((2, 4)))
    ((level, message),) = said(caplog)
    assert level == "WARNING"
    assert "holds only for inputs with " in message
    assert "(x.shape[1] == 2) or ((x.shape[1] % 2) == 0)" in message
    assert received(values((3, 6))).shape == (3, 2, 3)
    with pytest.raises(ValueError, match=r"only for inputs with .* x.shape\[1\] is 5"):
        received(values((2, 5)))


def test_examples_are_moved_to_the_module(caplog):
    with pytest.raises(ModelError, match="not a dense tensor with values"):
        model_of_module(nn.Linear(3, 2, device="meta"), (values((2, 3)),))
    message = "example inputs are on cpu and are moved to meta, where the module is"
    assert said(caplog) == [("WARNING", message)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_modules_on_a_gpu_are_exported_like_others(network):
    there = model_of_module(network.module().to("cuda"), (network.example(),))
    assert there.graph == network.model().graph
    assert list(there.tensors) == list(network.model().tensors)


def test_gradient_switches_in_the_network_do_not_matter():
    def partly_frozen(x):
        with torch.no_grad():
            y = x * 2
        return y + x

    module, x = Function(partly_frozen), values((2, 3))
    for model in (model_of_module(module, (x,)), model_of_program(export(module, (x,)))):
        assert torch.equal(build_module(model)(x), 2 * x + x)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
def test_decomposed_programs_survive_where_their_operators_are_in_the_list():
    module, x = NETWORKS[0].module(), NETWORKS[0].example()
    program = export(module, (x,)).run_decompositions()
    received = build_module(model_of_program(program))
    assert torch.equal(received(x), module(x))


@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
def test_changes_in_a_decomposed_program_are_refused():
    program = export(Counter(), (values((2, 3)),)).run_decompositions()
    with pytest.raises(ModelError, match="'count' is changed"):
        model_of_program(program)


def test_device_of_a_cast_is_left_out():
    module = Function(
        lambda x: x.to(torch.device("cpu"), torch.float64) + torch.zeros(3, device="cpu")
    )
    model = model_of_module(module, (values((2, 3)),))
    leaves = [leaf for node in model.graph.nodes for leaf in node.leaves()]
    assert all(isinstance(leaf, Ref | TensorRef) or "cpu" not in str(leaf) for leaf in leaves)
    assert build_module(model)(values((2, 3))).dtype == torch.float64


def refusal(module, *inputs):
    with pytest.raises(ModelError) as caught:
        model_of_module(module, inputs)
    return str(caught.value)


def test_every_operator_outside_the_list_is_named_with_its_place():
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Function(lambda x: torch.linalg.eigvals(x).abs() + torch.rand_like(x[0]))

        def forward(self, x):
            return torch.linalg.qr(self.layer(x))[1] + torch.bernoulli(x[0])

    message = refusal(Bad(), values((3, 3, 3)))
    for name in ("aten.linalg_eigvals.default", "aten.rand_like.default", "aten.bernoulli.default"):
        assert len(re.findall(re.escape(name), message)) == 1
    assert re.search(r"eigvals.default at node 'linalg_eigvals' of layer 'layer'", message)
    assert "linalg_qr" in message
    assert "encode the module without example inputs" in message


def test_random_numbers_are_refused_with_what_to_do():
    message = refusal(Function(lambda x: x + torch.rand_like(x)), values((2, 3)))
    assert "draws random numbers (aten.rand_like.default" in message
    assert "make them an input" in message


def test_control_flow_is_refused():
    def branch(x):
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))

    assert "cond" in refusal(Function(branch), values((2, 3)))


def test_active_dropout_is_refused():
    assert "train" in refusal(Function(lambda x: functional.dropout(x, 0.5, True)), values((2, 3)))
    attention = Function(lambda x: functional.scaled_dot_product_attention(x, x, x, dropout_p=0.1))
    assert "dropout_p" in refusal(attention, values((2, 3, 4)))


class Counter(nn.Module):
    """Counts its calls."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x):
        self.count[1:].add_(1)
        return x + self.count


def test_changes_to_buffers_are_refused():
    assert "'b_count' in place" in refusal(Counter(), values((2, 3)))


def test_updates_of_running_statistics_are_refused():
    class AlwaysTraining(nn.BatchNorm2d):
        def forward(self, x):
            return functional.batch_norm(x, self.running_mean, self.running_var, training=True)

    message = refusal(AlwaysTraining(2), values((2, 2, 3, 3)))
    assert "batch_norm.default at node 'batch_norm' updates its running statistics" in message


def test_batch_norm_without_statistics_survives():
    norm = nn.BatchNorm2d(2, track_running_stats=False)
    x = values((2, 2, 3, 3))
    assert torch.equal(through(norm, x)(x), norm(x))


def test_inputs_must_be_tensors():
    assert "none of the example inputs" in refusal(Function(lambda x: x), 3)

    class TakesList(nn.Module):
        def forward(self, pair):
            return pair[0] + pair[1]

    with pytest.raises(ModelError, match="not lists"):
        model_of_program(export(TakesList(), ([values((2,)), values((2,))],)))

    class TakesNumber(nn.Module):
        def forward(self, x, factor):
            return x * factor

    with pytest.raises(ModelError, match="factor"):
        model_of_program(export(TakesNumber(), (values((2,)), 3)))


def test_complex_tensors_are_refused():
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("roots", torch.tensor([1j, -1j]))

        def forward(self, x):
            return x + self.roots.real

    assert "'roots' has dtype complex64" in refusal(Complex(), values((2, 2)))


def test_network_that_fails_is_reported():
    def fails(x):
        raise KeyError("nothing there")

    assert "nothing there" in refusal(Function(fails), values((2,)))
