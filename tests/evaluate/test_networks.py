from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import nnrcodec
from nnrcodec.config import EncoderConfig, LowRankConfig
from nnrcodec.encoder.pipeline import encode_model
from nnrcodec.errors import BitstreamError, ConfigError
from nnrcodec.evaluate.networks import (
    coded_network,
    limits_for,
    original_network,
    original_of,
    picture_channels,
    running,
    streams_of,
)
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model, Role, Tensor

PICTURE = torch.rand(1, 1, 10, 12, generator=torch.Generator().manual_seed(0))


def ran(network, picture=PICTURE):
    with torch.inference_mode():
        return running(network.runnable)(picture)


def test_originals_of_every_kind(module, original, file, tmp_path):
    expected = module(PICTURE).detach()
    program = torch.export.export(module, (PICTURE,))
    torch.save(module.state_dict(), tmp_path / "net.pt")
    for source in (original, file, str(file), program):
        assert torch.allclose(ran(original_network(original_of(source))), expected, atol=1e-6)
    exported = original_of(module, (PICTURE,))
    assert torch.allclose(ran(original_network(exported)), expected, atol=1e-6)
    for source in (module, module.state_dict(), tmp_path / "net.pt"):
        network = original_network(original_of(source))
        assert network.runnable is None
        assert network.model.tensors.keys() == original.tensors.keys()
    with pytest.raises(ConfigError, match="no tensors"):
        original_network(original_of({}))


def test_a_stream_runs_with_its_own_graph(original, streams):
    plain, thin = (coded_network(label, data, original) for label, data in streams.items())
    expected = ran(original_network(original))
    assert (ran(plain) - expected).abs().max() < 0.02
    assert {"first.u.weight", "last.v.weight"} <= thin.runnable.tensors.keys()
    assert torch.equal(ran(thin), nnrcodec.decode_model(streams["thin"])(PICTURE))


def test_a_stream_of_tensors_runs_with_the_graph_of_the_original(module, original):
    for config in (
        EncoderConfig(),
        EncoderConfig(profile="nnc"),
        EncoderConfig(low_rank=LowRankConfig(ranks={"first": 3})),
    ):
        data = nnrcodec.encode(module.state_dict(), config=config)
        network = coded_network("a", data, original)
        assert network.runnable.tensors.keys() == original.tensors.keys()
        assert ("first.u.weight" in network.model.tensors) == (config.low_rank is not None)
        changed = type(module)()
        nnrcodec.load_into(changed, data, merge=True)
        assert torch.allclose(ran(network), changed(PICTURE), atol=1e-5)


def test_a_graph_gets_its_constants_and_its_dtypes_from_the_original(module, original):
    bias = original.tensors["last.bias"]
    constant = replace(bias, role=Role.CONSTANT)
    halved = replace(original.tensors["first.bias"], dtype="float16")
    changed = replace(
        original, tensors={**original.tensors, "last.bias": constant, "first.bias": halved}
    )
    state = {n: v for n, v in module.state_dict().items() if n != "last.bias"}
    network = coded_network("a", nnrcodec.encode(state), changed)
    assert network.runnable.tensors["last.bias"] is constant
    assert network.runnable.tensors["first.bias"].dtype == "float16"


def test_batch_norms_may_be_folded(export):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
    original = export(network)
    folded = encode_model(original, EncoderConfig(fold_batch_norm=True)).data
    coded = coded_network("folded", folded, original)
    assert "0.bias" in coded.model.tensors
    assert (ran(coded) - network(PICTURE)).abs().max() < 0.05
    whole = coded_network("whole", encode_model(original, EncoderConfig()).data, original)
    assert "1.running_mean" in whole.model.tensors


class Other(nn.Module):
    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, picture):
        return self.last(torch.relu(self.first(picture)))


@pytest.mark.parametrize(
    ("layers", "hint"),
    [
        ({"first": nn.Conv2d(1, 5, 3), "last": nn.Conv2d(5, 1, 3)}, r"'first.weight' has shape"),
        ({"first": nn.Conv2d(1, 6, 3, bias=False), "last": nn.Conv2d(6, 1, 3)}, "lacks tensor"),
        ({"first": nn.Conv2d(1, 6, 3), "last": nn.Sequential(nn.Conv2d(6, 1, 3))}, "lacks tensor"),
        (
            {"first": nn.Conv2d(1, 6, 3), "last": nn.Conv2d(6, 1, 3), "more": nn.Linear(2, 2)},
            "'more.weight' is not in the original",
        ),
    ],
)
def test_streams_of_another_model(original, layers, hint):
    network = Other(**layers)
    for data in (
        nnrcodec.encode(network, (PICTURE,)),
        nnrcodec.encode(network.state_dict()),
    ):
        with pytest.raises(ConfigError, match=f"^a is of another model.*{hint}"):
            coded_network("a", data, original)


def test_a_stream_of_a_model_that_takes_something_else(original, module):
    class Two(type(module)):
        def forward(self, picture, other):
            return super().forward(picture) + other

    data = nnrcodec.encode(Two(), (PICTURE, PICTURE))
    with pytest.raises(ConfigError, match="another model: it takes other inputs"):
        coded_network("a", data, original)


def test_an_update_is_no_network(module, original):
    state = module.state_dict()
    encoder = nnrcodec.UpdateEncoder(nnrcodec.encode(state))
    update = encoder.encode({name: value + 0.1 for name, value in state.items()})
    with pytest.raises(ConfigError, match=r"^a is an update.*write the whole model first"):
        coded_network("a", update, original)


def test_a_damaged_stream_is_named(original, streams):
    with pytest.raises(BitstreamError) as caught:
        coded_network("bad one", streams["plain"][:200], original)
    assert caught.value.__notes__ == ["in the stream 'bad one'"]


def test_limits_let_a_stream_decode_to_as_much_as_the_original_is():
    huge = Model.of([Tensor("w", "float32", (2**20, 2**17), lambda: np.zeros(0, np.float32))])
    assert limits_for(huge).for_stream(10).max_decoded_bytes >= 4 * 2**37
    small = Model.of([Tensor.of("w", np.zeros(3, np.float32))])
    assert limits_for(small) == Limits()


def test_streams_from_paths_and_bytes(streams, tmp_path):
    (tmp_path / "a.nnr").write_bytes(streams["plain"])
    read = streams_of({"a": tmp_path / "a.nnr", "b": str(tmp_path / "a.nnr"), **streams})
    assert read == {"a": streams["plain"], "b": streams["plain"], **streams}
    with pytest.raises(ConfigError, match=r"cannot read .*none.nnr: No such file"):
        streams_of({"a": tmp_path / "none.nnr"})
    with pytest.raises(ConfigError, match="no streams"):
        streams_of({})


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(2, 3, 3), (1, 2, 9)),
        (nn.Conv2d(2, 3, 3), (1, 2, 9, 8)),
        (nn.Conv3d(2, 3, 3), (1, 2, 5, 9, 8)),
        (nn.Linear(4, 3), (2, 4)),
    ],
)
def test_layers_of_any_number_of_axes_run(export, layer, shape):
    values = torch.rand(shape)
    network = running(export(layer, shape, ()))
    assert torch.allclose(network(values), layer(values), atol=1e-5)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_convolutions_run_with_channels_last(export):
    network = running(export(nn.Conv2d(4, 3, 3), (1, 4, 9, 8)))
    (weight,) = (p for p in network.parameters() if p.ndim == 4)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_which_pictures_a_network_takes(export, original):
    assert picture_channels(original) == 1
    assert picture_channels(export(nn.Conv2d(3, 1, 3), (1, 3, 8, 8))) == 3
    with pytest.raises(ConfigError, match="4 channels; pictures have 1 or 3"):
        picture_channels(export(nn.Conv2d(4, 1, 3), (1, 4, 8, 8)))
    with pytest.raises(ConfigError, match="does not take pictures"):
        picture_channels(export(nn.Linear(4, 3), (2, 4), ()))
    with pytest.raises(ConfigError, match="tensors only, no graph"):
        picture_channels(Model.of(original.tensors.values()))
