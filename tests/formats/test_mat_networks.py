"""Networks of MatConvNet: what they compute, and that they come back for MatConvNet to load."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torch.nn.functional as F  # noqa: N812
from formats.mat_files import write

import nnrcodec
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats import load, save
from nnrcodec.graph.module import build_module

RNG = np.random.default_rng(0)
SHARED = Path(__file__).parents[3] / "shared" / "data" / "nets"


def values(*shape):
    return (RNG.standard_normal(shape) * 0.3).astype(np.float32)


W1, B1, W2, B2 = values(3, 3, 1, 8), values(8, 1), values(3, 3, 8, 1), values(1, 1)
SCALE, SHIFT, MOMENTS = values(8, 1), values(8, 1), np.abs(values(8, 2)) + np.float32(0.1)
SIMPLE = {
    "net": {
        "layers": (
            {"type": "conv", "name": "conv1", "weights": (W1, B1), "pad": 1.0, "stride": 1.0},
            {"type": "bnorm", "name": "bn1", "weights": (SCALE, SHIFT, MOMENTS), "epsilon": 1e-5},
            {"type": "relu", "name": "relu1", "leak": 0.1},
            {"type": "conv", "name": "conv2", "weights": (W2, B2), "pad": [[1.0, 1, 1, 1]]},
            {"type": "loss", "name": "loss"},
        ),
        "meta": {"inputSize": [[16.0, 16, 1]]},
    }
}


def torch_weight(filter_):
    return torch.from_numpy(np.ascontiguousarray(filter_.transpose(3, 2, 0, 1)))


def column(values_):
    return torch.from_numpy(values_.reshape(-1))


def simple(x):
    y = F.conv2d(x, torch_weight(W1), column(B1), padding=1)
    mean, sigma = (torch.from_numpy(MOMENTS[:, i, None, None].copy()) for i in (0, 1))
    y = (y - mean) / sigma * column(SCALE)[:, None, None] + column(SHIFT)[:, None, None]
    return F.conv2d(F.leaky_relu(y, 0.1), torch_weight(W2), column(B2), padding=1)


def run(model, *inputs):
    with torch.no_grad():
        return build_module(model)(*inputs)


@pytest.mark.parametrize("version", ["5", "7", "7.3"])
def test_a_simple_network_runs_on_any_size(tmp_path, version, caplog):
    model = load(write(tmp_path / "m.mat", SIMPLE, version))
    assert [name for name in model.tensors if "1" in name] == [
        *("conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias"),
        *("bn1.running_mean", "bn1.running_var"),
    ]
    x = torch.rand(2, 1, 9, 12)
    torch.testing.assert_close(run(model, x), simple(x))
    assert "'loss' (loss)" in caplog.text
    assert "choose with --residual" in caplog.text


@pytest.mark.parametrize("residual", ["none", "add", "subtract"])
def test_the_residual_is_chosen(tmp_path, residual, caplog):
    model = load(write(tmp_path / "m.mat", SIMPLE), residual=residual)
    x = torch.rand(1, 1, 8, 8)
    sign = {"none": None, "add": 1, "subtract": -1}[residual]
    torch.testing.assert_close(run(model, x), simple(x) if sign is None else x + sign * simple(x))
    assert "choose with --residual" not in caplog.text


def test_a_residual_that_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="expected 'none', 'subtract' or 'add'"):
        load(write(tmp_path / "m.mat", SIMPLE), residual="times")
    layers = ({"type": "conv", "weights": (values(3, 3, 1, 2), values(2, 1))},)
    path = write(tmp_path / "m.mat", {"net": {"layers": layers}})
    with pytest.raises(ConfigError, match="needs one output of the size of its one input"):
        load(path, residual="add")
    np.savez(tmp_path / "m.npz", w=np.ones((2, 2)))
    with pytest.raises(ConfigError, match="is a NumPy archive: --residual is for networks"):
        load(tmp_path / "m.npz", residual="add")


CHANGES = {
    "as it is": {},
    "low rank": {"low_rank": nnrcodec.LowRankConfig(ranks={"conv1": 2, "conv2": 3})},
    "channel": {"low_rank": nnrcodec.LowRankConfig(ranks={"conv2": 1}, scheme="channel")},
    "folded": {"fold_batch_norm": True},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_coded_network_comes_back_as_a_file_that_computes_the_same(tmp_path, change):
    model = load(write(tmp_path / "m.mat", SIMPLE), residual="add")
    config = nnrcodec.EncoderConfig(qp=-30, **CHANGES[change])
    data = nnrcodec.encode(model, config=config, calib=None)
    (tmp_path / "m.nnr").write_bytes(data)
    nnrcodec.decode_file(tmp_path / "m.nnr", tmp_path / "out.mat")
    x = torch.rand(1, 1, 8, 11)
    with torch.no_grad():
        expected = nnrcodec.decode_model(bytes(data))(x)
    torch.testing.assert_close(run(load(tmp_path / "out.mat", residual="add"), x), expected)
    read = scipy.io.loadmat(tmp_path / "out.mat", struct_as_record=False, squeeze_me=True)
    layers = {layer.name: layer for layer in read["net"].layers}
    assert ("bn1" in layers) is (change != "folded")
    assert ("conv2_u" in layers) is (change in ("low rank", "channel"))
    assert layers["relu1"].leak == 0.1
    assert [*read["net"].meta.inputSize] == [16, 16, 1]


def block(kind, name, inputs, outputs, params=(), **settings):
    return {
        "name": name,
        "type": f"dagnn.{kind}",
        "inputs": inputs,
        "outputs": outputs,
        "params": params,
        "block": {"opts": (), **settings},
    }


UP = values(4, 4, 1, 8)


def dag():
    def param(name, value):
        return {"name": name, "value": value, "learningRate": 1.0}

    return {
        "net": {
            # an order in which they cannot run
            "layers": [
                block("Sum", "sum", ("up", "x"), ("y",)),
                block(
                    *("ConvTranspose", "up", ("joined",), ("up",), ("u", "ub")),
                    **{"size": [[4.0, 4, 1, 8]], "hasBias": True},
                    **{"upsample": 2.0, "crop": 1.0, "numGroups": 1.0},
                ),
                block(
                    *("Conv", "c.1", ("x",), ("a",), ("w",)),
                    **{"size": [[3.0, 3, 1, 4]], "hasBias": False},
                    **{"pad": [[0.0, 1, 0, 1]], "stride": 2.0},
                ),
                block("BatchNorm", "bn", ("a",), ("b",), ("g", "s", "m"), numChannels=4.0),
                block("ReLU", "relu", ("b",), ("c",), leak=0.0),
                block(
                    *("Pooling", "pool", ("b",), ("d",)),
                    **{"method": "avg", "poolSize": [[3.0, 3]], "stride": 1.0, "pad": 1.0},
                ),
                block("Concat", "cat", ("c", "d"), ("joined",), dim=3.0),
                block("Loss", "objective", ("y", "label"), ("loss",)),
            ],
            "params": [
                param("w", W1[..., :4]),
                param("g", SCALE[:4]),
                param("s", SHIFT[:4]),
                param("m", MOMENTS[:4]),
                param("u", UP),
                param("ub", B2),
            ],
            "vars": [{"name": n, "precious": False} for n in "xabcdy"],
            "meta": (),
        }
    }


def dag_of(x):
    y = F.conv2d(F.pad(x, (0, 1, 0, 1)), torch_weight(W1[..., :4]), stride=2)
    mean, sigma = (torch.from_numpy(MOMENTS[:4, i, None, None].copy()) for i in (0, 1))
    y = (y - mean) / sigma * column(SCALE[:4])[:, None, None] + column(SHIFT[:4])[:, None, None]
    pooled = F.avg_pool2d(y, 3, 1, 1, count_include_pad=False)
    y = torch.cat([F.relu(y), pooled], 1)
    return F.conv_transpose2d(y, torch_weight(UP), column(B2), 2, 1) + x


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_a_network_of_blocks_runs_whatever_their_order(tmp_path, version, caplog):
    model = load(write(tmp_path / "m.mat", dag(), version))
    assert "c_1.weight" in model.tensors
    x = torch.rand(2, 1, 10, 14)
    torch.testing.assert_close(run(model, x), dag_of(x))
    assert "--residual" not in caplog.text  # there is a sum at the end


@pytest.mark.parametrize("change", ["low rank", "channel", "folded"])
def test_a_network_of_blocks_comes_back(tmp_path, change):
    model = load(write(tmp_path / "m.mat", dag()))
    changes = dict(CHANGES[change])
    if change == "low rank":
        changes["low_rank"] = nnrcodec.LowRankConfig(ranks={"c_1": 2, "up": 3})
    elif change == "channel":
        changes["low_rank"] = nnrcodec.LowRankConfig(ranks={"up": 1}, scheme="channel")
    config = nnrcodec.EncoderConfig(qp=-30, **changes)
    data = nnrcodec.encode(model, config=config, calib=None)
    (tmp_path / "m.nnr").write_bytes(data)
    nnrcodec.decode_file(tmp_path / "m.nnr", tmp_path / "out.mat")
    x = torch.rand(1, 1, 8, 12)
    with torch.no_grad():
        expected = nnrcodec.decode_model(bytes(data))(x)
    torch.testing.assert_close(run(load(tmp_path / "out.mat"), x), expected)
    read = scipy.io.loadmat(tmp_path / "out.mat", struct_as_record=False, squeeze_me=True)["net"]
    names = {layer.name for layer in read.layers}
    assert ("bn" in names) is (change != "folded")
    assert ("c.1_u" in names) is (change == "low rank")
    assert ("up_v" in names) is (change != "folded")
    used = {param for layer in read.layers for param in np.atleast_1d(layer.params)}
    assert used == {param.name for param in read.params}


def test_layers_with_the_same_parameters_keep_them(tmp_path):
    def param(name, value):
        return {"name": name, "value": value}

    w = values(3, 3, 1, 1)
    net = {
        "layers": [
            block("Conv", "one", ("x",), ("y",), ("w", "b"), pad=1.0),
            block("Conv", "two", ("y",), ("z",), ("w", "b"), pad=1.0),
        ],
        "params": [param("w", w), param("b", B2)],
    }
    model = load(write(tmp_path / "m.mat", {"net": net}), residual="none")
    assert model.ties == {"two.weight": "one.weight", "two.bias": "one.bias"}
    (tmp_path / "m.nnr").write_bytes(nnrcodec.encode(model, calib=None))
    decoded = nnrcodec.decode_file(tmp_path / "m.nnr", tmp_path / "out.mat")
    again = load(tmp_path / "out.mat", residual="none")
    assert again.ties == model.ties
    x = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(run(again, x), run(decoded, x))


def layers_of(*layers):
    return {"net": {"layers": layers}}


SETTINGS = {
    "a first filter without its dimension of 1": (
        layers_of({"type": "conv", "weights": (W1[:, :, 0], B1), "pad": 1.0}),
        lambda x: F.conv2d(x, torch_weight(W1), column(B1), padding=1),
    ),
    "old fields": (
        layers_of({"type": "conv", "filters": W1, "biases": B1.T, "stride": [[2.0, 1]]}),
        lambda x: F.conv2d(x, torch_weight(W1), column(B1), stride=(2, 1)),
    ),
    "no bias": (
        layers_of({"type": "conv", "weights": (W1, np.zeros((0, 0))), "dilate": 2.0}),
        lambda x: F.conv2d(x, torch_weight(W1), dilation=2),
    ),
    "groups": (
        layers_of(
            {"type": "conv", "weights": (W1, B1)},
            {"type": "conv", "weights": (values(1, 1, 4, 0 + 6) * 0 + 1, values(6, 1) * 0)},
            {"type": "tanh"},
        ),
        lambda x: torch.tanh(
            F.conv2d(F.conv2d(x, torch_weight(W1), column(B1)), torch.ones(6, 4, 1, 1), groups=2)
        ),
    ),
    "pool with pads of one side": (
        layers_of(
            {"type": "conv", "weights": (W1, B1)},
            {
                **{"type": "pool", "method": "max", "pool": [[3.0, 2]]},
                **{"stride": 2.0, "pad": [[0.0, 1, 0, 1]]},
            },
            {"type": "dropout", "rate": 0.5},
            {"type": "softmax"},
        ),
        lambda x: F.softmax(
            F.max_pool2d(
                F.pad(F.conv2d(x, torch_weight(W1), column(B1)), (0, 1, 0, 1), value=-float("inf")),
                (3, 2),
                2,
            ),
            1,
        ),
    ),
    "names of python": (
        layers_of(
            {"type": "conv", "name": "lambda", "weights": (W1, B1)},
            {"type": "sigmoid", "name": "layers"},
            {"type": "conv", "name": "type", "weights": (W2, B2)},
            {"type": "conv", "name": "type", "weights": (values(1, 1) * 0 + 2, B2 * 0)},
            {"type": "conv", "name": "self", "weights": (values(1, 1) * 0 + 1, B2 * 0)},
            {"type": "conv", "name": "training", "weights": (values(1, 1) * 0 + 1, B2 * 0)},
        ),
        lambda x: (
            2
            * F.conv2d(
                torch.sigmoid(F.conv2d(x, torch_weight(W1), column(B1))),
                torch_weight(W2),
                column(B2),
            )
        ),
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_layers_compute_what_matconvnet_does(tmp_path, case):
    content, expected = SETTINGS[case]
    model = load(write(tmp_path / "m.mat", content))
    x = torch.rand(2, 1, 11, 12)
    torch.testing.assert_close(run(model, x), expected(x))
    save(model, tmp_path / "out.mat")
    torch.testing.assert_close(run(load(tmp_path / "out.mat"), x), expected(x))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ({"type": "SubP", "scale": 2.0}, "layer 'layers.1' is of type 'SubP', not known"),
        ({"type": "bnorm", "weights": (SCALE, SHIFT)}, "a batch norm without moments"),
        ({"type": "conv", "weights": (values(3, 3, 5, 2), values(2, 1))}, "takes 5 channels"),
        ({"type": "pool", "pool": 2.0, "method": "median"}, "pools by 'median'"),
        ({"type": "relu", "leak": 0.0, "pad": "x"}, ""),
        ({"type": "pool", "pool": 300.0}, "does not run on inputs of 227x227"),
    ],
)
def test_what_cannot_run_is_coded_whole_without_a_graph(tmp_path, layer, reason, caplog):
    first = {"type": "conv", "weights": (W1, B1), "pad": 1.0}
    model = load(write(tmp_path / "m.mat", layers_of(first, layer)))
    assert (model.graph is None) is bool(reason)
    assert "layers.0.weight" in model.tensors
    assert reason in caplog.text
    nnrcodec.encode_file(tmp_path / "m.mat", tmp_path / "m.nnr", calib=None)
    nnrcodec.decode_file(tmp_path / "m.nnr", tmp_path / "out.mat")
    layers = scipy.io.loadmat(tmp_path / "out.mat", struct_as_record=False, squeeze_me=True)
    layers = layers["net"].layers
    assert len(layers) == 2
    assert np.abs(layers[0].weights[0].reshape(W1.shape) - W1).max() < 0.1
    if "weights" in layer:
        assert layers[1].weights[0].size == layer["weights"][0].size


def test_one_of_several_networks_is_chosen(tmp_path):
    nets = {"nets": (SIMPLE["net"], {"layers": SIMPLE["net"]["layers"][3:4]}), "sigma": 25.0}
    path = write(tmp_path / "m.mat", nets)
    with pytest.raises(ModelError, match=r"several networks \('nets.0', 'nets.1'\): choose"):
        load(path)
    with pytest.raises(ConfigError, match=r"no network 'nets.2'; there are 'nets.0', 'nets.1'"):
        load(path, "nets.2")
    model = load(path, "nets.1")
    assert [*model.tensors] == ["conv2.weight", "conv2.bias"]
    assert [left.name for left in model.source.left_out] == ["nets.0"]
    assert model.source.coded == "nets.1"
    everything = load(path, "all")
    assert everything.graph is None
    assert "nets.0.layers.0.weights.0" in everything.tensors


def test_a_network_of_variables_keeps_what_is_beside_it(tmp_path):
    mean = RNG.random((20, 20))
    content = {"layers": SIMPLE["net"]["layers"], "mean": mean, "momentum": values(9, 9)}
    model = load(write(tmp_path / "m.mat", content), residual="none")
    assert model.tensors["mean"].exact
    assert [left.name for left in model.source.left_out] == ["momentum"]
    nnrcodec.encode_file(tmp_path / "m.mat", tmp_path / "m.nnr", residual="none", calib=None)
    nnrcodec.decode_file(tmp_path / "m.nnr", tmp_path / "out.mat")
    np.testing.assert_array_equal(scipy.io.loadmat(tmp_path / "out.mat")["mean"], mean)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the files are not here")
def test_a_network_of_a_paper_is_that_of_its_export():
    model = load(SHARED / "dncnn_sigma25.mat", residual="subtract")
    assert len(model.tensors) == 34
    x = torch.rand(1, 1, 25, 30)
    exported = load(SHARED / "dncnn25.pt2")
    torch.testing.assert_close(run(model, x), run(exported, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"pad": 1e6}, "a layer gives a value of"),
        ({"pad": 1e300}, ""),
        ({"pad": np.nan}, "has pad of"),
        ({"stride": 0.0}, "has stride of"),
        ({"dilate": -1.0}, "has dilate of"),
    ],
)
def test_settings_of_hostile_files_end_in_no_graph(tmp_path, settings, reason, caplog):
    layer = {"type": "conv", "weights": (W1, B1), **settings}
    assert load(write(tmp_path / "m.mat", layers_of(layer))).graph is None
    assert f"without a graph, because {reason}" in caplog.text or reason in caplog.text


def test_layers_that_grow_without_end_are_not_run(tmp_path, caplog):
    layer = {"type": "convt", "weights": (values(4, 4, 1, 1), B2), "upsample": 4.0}
    assert load(write(tmp_path / "m.mat", layers_of(*[layer] * 9))).graph is None
    assert "a layer gives a value of" in caplog.text


def test_weights_of_class_double_are_said(tmp_path, caplog):
    layer = {"type": "conv", "weights": (W1.astype(np.float64), B1)}
    model = load(write(tmp_path / "m.mat", layers_of(layer)))
    assert model.tensors["layers.0.weight"].dtype == "float32"
    assert "coded as single" in caplog.text
