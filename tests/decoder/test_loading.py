from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import NETWORKS
from torch import nn

import nnrcodec
from nnrcodec import EncoderConfig, LowRankConfig, ModelError

IMAGE = torch.randn((2, 6, 13, 11), generator=torch.Generator().manual_seed(3))

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "padded": {"padding": (2, 1)},
    "strided": {"stride": (2, 3), "padding": 1},
    "dilated": {"dilation": (2, 3), "padding": (1, 4)},
    "same": {"padding": "same"},
    "valid": {"padding": "valid"},
    "wide": {"kernel_size": (3, 5)},
    "without bias": {"bias": False, "stride": 2},
    "all of it": {"stride": (2, 1), "padding": (3, 2), "dilation": (1, 2), "kernel_size": (5, 3)},
}


def network(**options: Any) -> nn.Module:
    torch.manual_seed(1)
    options = {"kernel_size": 3} | options
    return nn.Sequential(nn.Conv2d(6, 10, **options), nn.ReLU(), nn.Conv2d(10, 4, 1)).eval()


def factorised(module: nn.Module, layer: str = "0", rank: int = 4) -> bytes:
    config = EncoderConfig(low_rank=LowRankConfig(ranks={layer: rank}))
    return nnrcodec.encode(module, config=config)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_two_thin_convolutions_compute_what_the_merged_one_does(name: str) -> None:
    data = factorised(network(**CONVOLUTIONS[name]))
    thin = nnrcodec.load_into(network(**CONVOLUTIONS[name]), data)
    merged = nnrcodec.load_into(network(**CONVOLUTIONS[name]), data, merge=True)
    assert isinstance(thin[0], nn.Sequential)
    assert thin[0].u.weight.shape[0] == 4
    assert isinstance(merged[0], nn.Conv2d)
    with torch.no_grad():
        torch.testing.assert_close(thin(IMAGE), merged(IMAGE), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", NETWORKS, ids=lambda n: n.name)
def test_every_network_takes_its_own_stream(part: Any) -> None:
    module = part.module()
    data = nnrcodec.encode(module)
    decoded = nnrcodec.decode(data)
    assert nnrcodec.load_into(module, data) is module
    for name, value in module.state_dict().items():
        assert torch.equal(value, torch.from_numpy(decoded[name]))


def test_tied_weights_are_loaded() -> None:
    module = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20))
    module[1].weight = module[0].weight
    nnrcodec.load_into(module, nnrcodec.encode(module))
    assert module[1].weight is module[0].weight


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_take_the_dtype_of_the_module(dtype: torch.dtype) -> None:
    data = factorised(network())
    thin = nnrcodec.load_into(network().to(dtype), data)
    assert {p.dtype for p in thin.parameters()} == {dtype}


@pytest.mark.parametrize("training", [False, True])
def test_new_layers_are_in_the_mode_of_the_old_one(training: bool) -> None:
    module = network().train(training)
    nnrcodec.load_into(module, factorised(network()))
    assert {part.training for part in module.modules()} == {training}


def grouped() -> nn.Module:
    module = network()
    module[0] = nn.Conv2d(12, 10, 3, groups=2)
    return module


def circular() -> nn.Module:
    return network(padding=1, padding_mode="circular")


def linear() -> nn.Module:
    module = network()
    module[0] = nn.Linear(6, 10)
    return module


class Doubled(nn.Conv2d):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(image)


def unusual() -> nn.Module:
    module = network()
    module[0] = Doubled(6, 10, 3)
    return module


def lacking() -> nn.Module:
    return nn.Sequential(nn.Identity(), *network()[1:])


def other_kernel() -> nn.Module:
    return network(kernel_size=5)


def other_bias() -> nn.Module:
    return network(bias=False)


def more_layers() -> nn.Module:
    return nn.Sequential(*network(), nn.Linear(3, 3))


def other_last_layer() -> nn.Module:
    return nn.Sequential(*network()[:2], nn.Conv2d(10, 5, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (grouped, "groups=2, .* load with merge=True"),
        (circular, "padding_mode='circular'"),
        (linear, "'0' was coded as two thin layers, but in this module it is a Linear"),
        (lacking, "it is a Identity"),
        (unusual, r"it is a Doubled; expected a torch\.nn\.Conv2d"),
        (other_kernel, r"kernel of shape \(10, 6, 5, 5\), the stream has factors for"),
        (other_bias, "'0.v.bias' is in the stream only"),
        (more_layers, "'3.bias' is in the module only; '3.weight' is in the module only"),
        (other_last_layer, r"'2.bias' has shape \(5,\) in the module, \(4,\) in the stream"),
    ],
)
def test_a_module_that_does_not_fit_is_refused_and_unchanged(make: Any, message: str) -> None:
    module = make()
    layers = list(module.modules())
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ModelError, match=message):
        nnrcodec.load_into(module, factorised(network()))
    assert all(a is b for a, b in zip(module.modules(), layers, strict=True))
    assert module.state_dict().keys() == before.keys()
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match=r"'0' .* it is not there"):
        nnrcodec.load_into(nn.ModuleDict({"a": nn.Linear(3, 3)}), factorised(network()))


def test_a_loader_that_fails_leaves_the_layers_as_they_were() -> None:
    class Stubborn(nn.Sequential):
        def load_state_dict(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no")

    module = Stubborn(*network())
    first = module[0]
    with pytest.raises(ModelError, match="does not take the state dict: RuntimeError: no"):
        nnrcodec.load_into(module, factorised(network()))
    assert module[0] is first


def test_only_a_few_of_many_disagreements_are_listed() -> None:
    data = nnrcodec.encode(nn.Sequential(*[nn.Linear(2, 2) for _ in range(6)]))
    with pytest.raises(ModelError, match="; and 7 more"):
        nnrcodec.load_into(nn.Identity(), data)
