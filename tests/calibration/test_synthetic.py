"""Inputs that are made up: what a network takes, and like what it has learned from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import Inputs, model_of, network, outputs_of
from torch import nn

import nnrcodec
from nnrcodec.calibration.default import default_inputs
from nnrcodec.calibration.pictures import FITTED, HELD_OUT
from nnrcodec.calibration.sizes import free_size
from nnrcodec.calibration.synthetic import synthetic_inputs
from nnrcodec.calibration.walk import walk
from nnrcodec.errors import ConfigError
from nnrcodec.graph.export import model_of_module
from nnrcodec.graph.graph import Dim, Graph, Input, Node, Ref, TensorRef
from nnrcodec.model.model import Model, Tensor

TABLE = Tensor.of("table.weight", np.ones((9, 2), np.float32))


def taking(*inputs: Input, nodes: tuple[Node, ...] = (), tensors: tuple[Tensor, ...] = ()) -> Model:
    """Return a model that takes inputs and returns the first."""
    dims = {"n": Dim(1, None, 2), "h": Dim(1, None, 7), "small": Dim(1, 5, 3)}
    return Model.of(tensors, Graph(inputs, nodes, Ref(0), dims))


def joined(inputs: Inputs) -> np.ndarray:
    return torch.cat([each[0] for each in inputs]).double().numpy()


@pytest.mark.parametrize(
    "name", ["plain_cnn", "resnet", "unet", "transformer", "classifier", "conv1d", "conv3d"]
)
def test_a_network_runs_with_them(name: str) -> None:
    model = network(name).model()
    inputs = synthetic_inputs(model, 1)
    assert [value.dtype for each in inputs for value in each] == [torch.float32]
    for (made,) in outputs_of(model, list(inputs)):
        assert made.isfinite().all()
    assert sum(1 for _ in walk(model, inputs)) > 0


def test_the_seed_decides() -> None:
    model = network("plain_cnn").model()
    found, again, other = (synthetic_inputs(model, 3, seed) for seed in (1, 1, 2))
    assert [len(inputs) for inputs in (found, again, other)] == [3, 3, 3]
    np.testing.assert_array_equal(joined(found), joined(again))
    assert not np.array_equal(joined(found), joined(other))
    assert not np.array_equal(found[0][0], found[1][0])
    first = synthetic_inputs(model, 1, 1)
    np.testing.assert_array_equal(joined(first), joined(found[:1]))


def test_held_out_ones_are_of_other_families(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = network("plain_cnn").model(), []

    def picture(family: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        seen.append(family)
        return rng.random(shape)

    monkeypatch.setattr("nnrcodec.calibration.pictures.picture", picture)
    for held_out, families in ((False, FITTED), (True, HELD_OUT)):
        synthetic_inputs(model, 1, held_out=held_out)
        seen.clear()
        synthetic_inputs(model, 12, held_out=held_out)
        assert sorted(seen[-12:]) == sorted(12 // len(families) * families)


@pytest.mark.parametrize("name", ["plain_cnn", "conv1d", "transformer"])
def test_held_out_ones_are_others_of_the_same_sizes(name: str) -> None:
    model = network(name).model()
    made, held_out = (synthetic_inputs(model, 2, held_out=each) for each in (False, True))
    assert all(a[0].shape == b[0].shape for a, b in zip(made, held_out, strict=True))
    assert not torch.equal(made[0][0], held_out[0][0])


def test_threads_change_nothing() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 24, 3, bias=False), nn.BatchNorm2d(24)).eval()
    model, threads = model_of(module, (1, 3, 32, 32)), torch.get_num_threads()
    made = []
    for count in (1, 2):
        torch.set_num_threads(count)
        made.append(joined(synthetic_inputs(model, 4)))
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(*made)


# Sizes


def test_sizes_that_are_free_are_chosen_and_kept_to_what_the_network_takes() -> None:
    dims = {
        "free": Dim(1, None, 7),
        "few": Dim(2, 5, 3),
        "many": Dim(200, None, 300),
        "two": Dim(2, 8, 2),
    }
    picture = Input("x", "float32", ("free", 3, "free", "few"))
    tokens = Input("t", "int64", ("two", "free", "many"))
    graph = Graph((picture, tokens), (), Ref(0), dims)
    assert [free_size(graph, picture, axis) for axis in range(4)] == [1, 3, 96, 5]
    assert [free_size(graph, picture, axis, 40) for axis in range(4)] == [1, 3, 40, 5]
    assert [free_size(graph, picture, axis, 1) for axis in range(4)] == [1, 3, 1, 2]
    assert [free_size(graph, tokens, axis) for axis in range(3)] == [2, 64, 200]


def test_where_a_network_takes_no_other_size_it_is_that_of_the_export() -> None:
    (each,) = synthetic_inputs(network("classifier").model(), 1)
    assert each[0].shape == (1, 1, 16, 16)


class Wave(nn.Module):
    """Takes a signal of any length, and looks at all pairs of its samples."""

    def __init__(self, channels: int, pairs: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pairs = nn.Conv1d(1, channels, 9, padding=4), pairs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return (y.mT @ y).mean(2) if self.pairs else y


@pytest.mark.parametrize(
    ("wave", "length"), [(Wave(4), 16000), (Wave(4, pairs=True), 16000), (Wave(40, True), 4000)]
)
def test_signals_are_as_long_as_does_not_take_too_much_time(wave: Wave, length: int) -> None:
    ((x,),) = synthetic_inputs(model_of(wave.eval(), (1, 1, 90)), 1)
    assert x.shape == (1, 1, length)


def test_features_are_as_long_as_a_recurrent_network_remembers() -> None:
    class Recurrent(nn.Module):
        def __init__(self, batch_first: bool) -> None:
            super().__init__()
            self.layer = nn.GRU(5, 4, batch_first=batch_first)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)[0]

    for first, shape in ((True, (1, 160, 5)), (False, (160, 1, 5))):
        model = model_of(Recurrent(first).eval(), (9, 9, 5))
        assert model.graph is not None
        sizes = ("n", "t", 5) if first else ("t", "n", 5)
        dims = {**model.graph.dims, "n": Dim(1, None, 9), "t": Dim(1, None, 9)}
        graph = replace(model.graph, inputs=(Input("x", "float32", sizes),), dims=dims)
        inputs = synthetic_inputs(replace(model, graph=graph), 2)
        assert [tuple(x.shape) for (x,) in inputs] == [shape] * 2
        assert min(x.min() for (x,) in inputs) >= 0


def test_sizes_that_inputs_share_are_the_same() -> None:
    """96 rows would be chosen for a picture, and 64 for a matrix."""

    class Both(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    model = model_of(Both(), (2, 3, 7, 9), (7, 9))
    ((x, y),) = synthetic_inputs(model, 1)
    assert x.shape[2:] == y.shape


# Values


def test_pictures_have_bytes_divided_by_255() -> None:
    made = joined(synthetic_inputs(network("plain_cnn").model(), 6))
    assert made.shape == (6, 1, 96, 96)
    assert made.min() >= 0
    assert made.max() <= 1
    np.testing.assert_allclose(255 * made, np.rint(255 * made), atol=1e-4)
    assert made.std() > 0.1


def test_colours_are_correlated_but_not_the_same() -> None:
    made = joined(synthetic_inputs(network("super_resolution").model(), 6))
    correlation = np.corrcoef(made.transpose(1, 0, 2, 3).reshape(3, -1))
    assert 0.5 < correlation[0, 1] < 0.999


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(1, 3, 17, 30), (2, 1, 1, 9), (4, 5)])
def test_values_have_the_dtype_that_the_network_takes(dtype: str, shape: tuple[int, ...]) -> None:
    ((value,),) = synthetic_inputs(taking(Input("x", dtype, shape)), 1)
    assert value.dtype == getattr(torch, dtype)
    assert value.shape == shape
    assert value.double().std() > 0


def test_anything_else_is_white_noise() -> None:
    (each,) = synthetic_inputs(taking(Input("x", "float32", (40, 60))), 1)
    made = each[0].numpy()
    assert abs(made.mean()) < 0.1
    assert made.std() == pytest.approx(1, abs=0.1)


class Guided(nn.Module):
    """Takes a picture, and a map or a number beside it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, 3, padding=1)

    def forward(self, x: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * beside


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 1, 1, 1)])
def test_a_second_picture_is_constant_in_half_of_the_inputs(shape: tuple[int, ...]) -> None:
    made = synthetic_inputs(model_of(Guided(1), (1, 1, 8, 8), shape), 40)
    constant = [bool((beside == beside[0, 0, 0, 0]).all()) for _, beside in made]
    assert all(constant) if shape[2] == 1 else 10 <= sum(constant) <= 30
    levels = {float(beside[0, 0, 0, 0]) for _, beside in made}
    assert len(levels) > 20
    assert 0 <= min(levels) < max(levels) <= 1
    assert all(x.std() > 0 for x, _ in made)


@pytest.mark.parametrize(("channels", "few"), [(1, 0), (2, 10), (3, 0), (4, 10), (7, 10)])
def test_a_channel_that_may_be_a_map_is_constant_in_half_of_the_inputs(
    channels: int, few: int
) -> None:
    model = model_of(nn.Conv2d(channels, 1, 3), (1, channels, 9, 9))
    made = [x[0, -1] for (x,) in synthetic_inputs(model, 40)]
    assert few <= sum(bool((x == x[0, 0]).all()) for x in made) <= 3 * few


def test_pictures_of_bytes_have_bytes() -> None:
    class Bytes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float() / 255

    model = model_of_module(Bytes(), (torch.zeros(1, 3, 9, 9, dtype=torch.uint8),))
    ((x,),) = synthetic_inputs(model, 1)
    assert x.dtype == torch.uint8
    assert x.max() > 200


# Indices


class Words(nn.Module):
    """Takes tokens and where they stand, with another table for each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = nn.Embedding(11, 4), nn.Embedding(5, 4)
        self.layer = nn.Linear(4, 3)

    def forward(self, tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return self.layer(self.words(tokens) + self.places(places))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_indices_go_over_all_rows_of_their_table(dtype: torch.dtype) -> None:
    example = torch.zeros(2, 6, dtype=dtype)
    model = model_of_module(Words(), (example, example.clone()))
    inputs = synthetic_inputs(model, 30)
    assert {value.dtype for each in inputs for value in each} == {dtype}
    assert all(a.shape == b.shape for a, b in inputs)
    tokens, places = (torch.cat([each[side][0] for each in inputs]) for side in (0, 1))
    assert tokens.unique().tolist() == list(range(11))
    assert places.unique().tolist() == list(range(5))
    again = synthetic_inputs(model, 30)
    assert torch.equal(tokens, torch.cat([each[0][0] for each in again]))
    assert [visit.layer.name for visit in walk(model, inputs)] == ["layer"]


def test_of_several_tables_the_smallest_bounds_the_indices() -> None:
    tables = (TABLE, Tensor.of("other.weight", np.ones((3, 2), np.float32)))
    nodes = tuple(Node("aten.embedding.default", (TensorRef(t.name), Ref(0))) for t in tables)
    (each,) = synthetic_inputs(taking(Input("x", "int64", (1, 50)), nodes=nodes, tensors=tables), 1)
    assert each[0].unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_integers_that_are_no_indices_cannot_be_made_up(dtype: str) -> None:
    node = Node("aten.embedding.default", (TensorRef(TABLE.name), Ref(0)))
    tokens, sizes = Input("x", "int64", (1, 6)), Input("sizes", dtype, (3,))
    model = taking(tokens, sizes, nodes=(node,), tensors=(TABLE,))
    with pytest.raises(ConfigError, match=f"input 'sizes' is {dtype}, and neither an index into"):
        synthetic_inputs(model)


def test_lengths_vary_and_inputs_one_after_another_have_the_same() -> None:
    example = torch.zeros(2, 6, dtype=torch.int64)
    model = model_of_module(Words(), (example, example.clone()))
    lengths = [each[0].shape[1] for each in synthetic_inputs(model, 80)]
    assert all(len(set(lengths[start : start + 8])) == 1 for start in range(0, 80, 8))
    assert 5 <= len(set(lengths)) <= 10
    assert 8 <= min(lengths) < max(lengths) <= 64
    assert lengths[0] == 24


# Masks


class Sentences(nn.Module):
    """Attention between tokens, as far as a mask allows."""

    def __init__(self, ignored: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.ignored = nn.Embedding(50, 8), ignored
        self.query, self.value = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.words(tokens)
        masked = mask.bool() if self.ignored else mask == 0
        weights = (self.query(x) @ x.mT).masked_fill(masked[:, None], -torch.inf).softmax(2)
        return weights @ self.value(x)


def sentences(dtype: torch.dtype, *, ignored: bool = False) -> Model:
    tokens = torch.ones(2, 6, dtype=torch.int64)
    mask = torch.zeros(2, 6, dtype=dtype) if ignored else torch.ones(2, 6, dtype=dtype)
    return model_of_module(Sentences(ignored), (tokens, mask))


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_masks_have_padding_at_the_end_where_tokens_are_0(
    dtype: torch.dtype, ignored: bool
) -> None:
    model = sentences(dtype, ignored=ignored)
    inputs = synthetic_inputs(model, 40)
    assert all(mask.dtype == dtype and mask.shape == tokens.shape for tokens, mask in inputs)
    assert all(made.isfinite().all() for (made,) in outputs_of(model, list(inputs)))
    padded = 0
    for tokens, mask in inputs:
        kept = (mask == 0) if ignored else (mask != 0)
        end = int(kept.sum())
        assert kept[0, :end].all()
        assert end >= tokens.shape[1] // 3
        assert not tokens[0, end:].any()
        padded += end < tokens.shape[1]
    assert 8 <= padded <= 30


def test_a_network_with_a_mask_is_calibrated(caplog: pytest.LogCaptureFixture) -> None:
    model = sentences(torch.int64)
    assert len(default_inputs(model)) >= 32
    data = nnrcodec.encode(model, calib_count=4)
    assert data == nnrcodec.encode(model, calib="synthetic", calib_count=4)
    assert data != nnrcodec.encode(model, calib=None)
    assert "weights alone" not in caplog.text


@pytest.mark.parametrize("model", [Model.of([TABLE]), taking(tensors=(TABLE,))])
def test_without_inputs_there_are_none(model: Model) -> None:
    with pytest.raises(ConfigError, match="without a graph or inputs"):
        synthetic_inputs(model)


# The range that a batch norm tells


@pytest.mark.parametrize(("scale", "offset"), [(255.0, 0.0), (4.5, -2.0)])
def test_pictures_are_in_the_range_that_the_first_batch_norm_has_learned(
    scale: float, offset: float
) -> None:
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 24, 3, bias=False), nn.BatchNorm2d(24, momentum=None)
    seen = joined(synthetic_inputs(network("super_resolution").model(), 12, seed=9))
    seen = scale * seen + offset
    module = nn.Sequential(convolution, norm)
    with torch.no_grad():
        module(torch.from_numpy(seen).float())
    model = model_of(module.eval(), (1, 3, 32, 32))
    made = joined(synthetic_inputs(model, 12))
    assert made.dtype == np.float64
    np.testing.assert_allclose(made.mean((0, 2, 3)), seen.mean((0, 2, 3)), atol=0.1 * scale)
    assert made.std() == pytest.approx(seen.std(), rel=0.2)
    assert synthetic_inputs(model, 1)[0][0].dtype == torch.float32


def test_a_batch_norm_further_on_tells_nothing() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_var.fill_(1e6)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), norm).eval()
    made = joined(synthetic_inputs(model_of(module, (1, 1, 32, 32)), 2))
    expected = joined(synthetic_inputs(network("plain_cnn").model(), 2))
    np.testing.assert_array_equal(made, expected)
