"""Small networks of every kind that must survive a trip through the codec.

Each is an `nn.Module` in evaluation mode with random weights from a fixed seed, including the
running statistics of its batch normalisations, and an input that it takes. Beside them, single
layers of any geometry, and what tests do with models.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from nnrcodec.calibration.outputs import real_tensors
from nnrcodec.graph.export import model_of_module
from nnrcodec.graph.graph import Argument, Dim, Graph, Input, Node, Ref, TensorRef, Word
from nnrcodec.graph.layers import Layer, find_layers
from nnrcodec.graph.module import build_module
from nnrcodec.model.model import Model, Tensor

Inputs = list[tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Network:
    """A network with an example input, and inputs of other sizes that it takes as well."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    other_shapes: tuple[tuple[int, ...], ...] = ()

    def module(self) -> nn.Module:
        """Return the network, the same one every time."""
        torch.manual_seed(0)
        module = self.make().eval()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.5, 1.5)
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.1)
        return module

    def example(self) -> torch.Tensor:
        """Return the example input, the same one every time."""
        return values(self.shape)

    @functools.cache  # noqa: B019 (there are few networks, for as long as tests run)
    def model(self) -> Model:
        """Return the network as it is exported, which takes a while the first time."""
        return model_of(self.module(), self.shape)


def network(name: str) -> Network:
    """Return one of the networks."""
    return next(each for each in NETWORKS if each.name == name)


def model_of(module: nn.Module, *shapes: tuple[int, ...]) -> Model:
    """Return a network as it is exported with inputs of some shapes."""
    return model_of_module(module, tuple(values(shape) for shape in shapes))


def inputs_of(shape: tuple[int, ...], count: int, seed: int = 0) -> Inputs:
    """Return calibration inputs of mixed channels (axis 1), so that those are correlated."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(shape[1]) + torch.randn(shape[1], shape[1], generator=generator)
    plain = (torch.randn(shape, generator=generator) for _ in range(count))
    mixed = (torch.einsum("dc,nc...->nd...", mixing, value) for value in plain)
    return [(value.contiguous() + 0.3,) for value in mixed]


def outputs_of(model: Model, inputs: Inputs) -> list[list[torch.Tensor]]:
    """Return the real outputs of a network."""
    module = build_module(model)
    with torch.inference_mode():
        return [real_tensors(module(*each)) for each in inputs]


def error_between(model: Model, other: Model, inputs: Inputs) -> float:
    """Return the mean squared difference of the outputs of two networks."""
    pairs = zip(outputs_of(model, inputs), outputs_of(other, inputs), strict=True)
    errors = [
        (a.double() - b.double()).square().flatten()
        for first, second in pairs
        for a, b in zip(first, second, strict=True)
    ]
    return float(torch.cat(errors).mean())


def with_values(model: Model, changes: dict[str, np.ndarray]) -> Model:
    """Return a model with other values of some tensors."""
    tensors = (
        Tensor.of(t.name, changes[t.name], t.dtype, t.role) if t.name in changes else t
        for t in model.tensors.values()
    )
    return Model.of(tensors, model.graph, model.factors)


def values(shape: tuple[int, ...]) -> torch.Tensor:
    """Return normally distributed values from a fixed seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class SingleLayer:
    """A network of one layer, named ``layer``.

    Its weight and its inputs are from a fixed seed.
    """

    op: str
    weight_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    options: tuple[tuple[str, Argument], ...] = ()

    def model(self) -> Model:
        """Return the network; sizes of its input are free, but for the channels of a batch."""
        sizes: list[int | str] = [f"d{axis}" for axis in range(len(self.input_shape))]
        sizes[self._channels] = self.input_shape[self._channels]
        return Model.of(
            [Tensor.of("layer.weight", values(self.weight_shape).numpy())],
            Graph(
                (Input("x", "float32", tuple(sizes)),),
                (Node(self.op, (Ref(0), TensorRef("layer.weight")), self.options),),
                Ref(1),
                {size: Dim(1, None, 2) for size in sizes if isinstance(size, str)},
            ),
        )

    def layer(self) -> Layer:
        """Return its layer."""
        (layer,) = find_layers(self.model())
        return layer

    def weight(self) -> np.ndarray:
        """Return its weight."""
        return self.model().tensors["layer.weight"].read()

    def input(self, seed: int = 1) -> torch.Tensor:
        """Return an input that is not centred."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(self.input_shape, generator=generator) + 0.5

    def output(self, weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return what PyTorch makes of an input, channels last."""
        module = build_module(self.model())
        del module.layer.weight
        module.layer.register_buffer("weight", weight)
        made: torch.Tensor = module(value)
        return made.movedim(self._channels, -1)

    @property
    def _channels(self) -> int:
        return len(self.input_shape) - len(self.weight_shape) + 1


@st.composite
def single_layers(draw: st.DrawFn) -> SingleLayer:
    """Return a layer of any geometry."""
    axes = draw(st.integers(0, 3))
    if axes == 0:
        batch = draw(st.lists(st.integers(1, 4), max_size=3))
        rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 5))
        return SingleLayer("aten.linear.default", (rows, columns), (*batch, columns))
    transposed = draw(st.booleans())
    groups, inputs, outputs = (draw(st.integers(1, 3)) for _ in range(3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    kernel, stride, dilation, padding = each(1, 3), each(1, 3), each(1, 2), each(0, 2)
    given: dict[str, Argument] = {"stride": stride, "dilation": dilation, "groups": groups}
    if transposed:
        extra = each(0, 2)
        most = zip(extra, stride, dilation, strict=True)
        given |= {
            "padding": padding,
            "output_padding": tuple(min(e, max(s, d) - 1) for e, s, d in most),
        }
        op = f"aten.conv_transpose{axes}d.{'default' if axes == 1 else 'input'}"
        weight = (groups * inputs, outputs, *kernel)
    elif draw(st.booleans()):
        word = draw(st.sampled_from(["same", "valid"]))
        given["padding"] = Word("padding", word)
        given["stride"] = (1,) * axes if word == "same" else stride
        op, weight = f"aten.conv{axes}d.padding", (groups * outputs, inputs, *kernel)
    else:
        given["padding"] = padding
        op, weight = f"aten.conv{axes}d.default", (groups * outputs, inputs, *kernel)
    batch = draw(st.sampled_from([(), (1,), (2,)]))
    options = tuple(given.items()) if draw(st.booleans()) else _without_defaults(given)
    return SingleLayer(op, weight, (*batch, groups * inputs, *each(5, 6)), options)


def _without_defaults(given: dict[str, Any]) -> tuple[tuple[str, Argument], ...]:
    """Return the options that are not what they are by default."""
    defaults = {"stride": 1, "dilation": 1, "groups": 1, "padding": 0, "output_padding": 0}

    def is_default(name: str, value: Any) -> bool:
        several: Sequence[Any] = value if isinstance(value, tuple) else (value,)
        return all(each == defaults[name] for each in several) or value == Word("padding", "valid")

    return tuple((name, value) for name, value in given.items() if not is_default(name, value))


def plain_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(8, 8, (5, 3), padding="same"),
        nn.PReLU(8),
        nn.Conv2d(8, 1, 3, padding=1),
    )


class ResidualFilter(nn.Module):
    """A filter that adds what it computes to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.body = plain_cnn()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.clamp(image + self.body(image), -2, 2)


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        ResidualBlock(8, 8, 1),
        ResidualBlock(8, 12, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(12, 5),
    )


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.ReLU6(inplace=True),
        nn.Conv2d(8, 8, 3, 2, 1, groups=8),
        nn.Hardswish(),
        nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=4),
        nn.SiLU(),
        nn.GroupNorm(3, 12),
        nn.Hardsigmoid(),
    )


class SuperResolution(nn.Module):
    """Pixel shuffle, with an interpolated skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 12, 3, padding=1)
        self.tail = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.pixel_shuffle(functional.gelu(self.head(x)), 2)
        bilinear = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        nearest = functional.interpolate(x, size=y.shape[-2:], mode="nearest")
        bicubic = functional.interpolate(
            functional.pixel_unshuffle(y, 2)[:, :3], scale_factor=2.0, mode="bicubic"
        )
        return self.tail(y) + bilinear - 0.5 * nearest + bicubic


class UNet(nn.Module):
    """Skip connections by concatenation; takes sizes that are multiples of four."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, 4, 3, padding=1)
        self.down = nn.ModuleList([nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(16, 8, 2, 2), nn.ConvTranspose2d(8, 4, 2, 2)])
        self.join = nn.ModuleList([nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)])
        self.leave = nn.Conv2d(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stages = [functional.elu(self.enter(x))]
        for down in self.down:
            stages.append(functional.elu(down(stages[-1])))
        y = stages.pop()
        for up, join in zip(self.up, self.join, strict=True):
            y = functional.elu(join(torch.cat([stages.pop(), up(y)], dim=1)))
        return torch.sigmoid(self.leave(y))


class PadToMultiple(nn.Module):
    """Asks whether the size is a multiple of 8, as many image filters do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, 2, 1)
        self.back = nn.ConvTranspose2d(4, 1, 4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        bottom, right = (8 - height % 8) % 8, (8 - width % 8) % 8
        if bottom or right:
            x = functional.pad(x, (0, right, 0, bottom), "reflect")
        return self.back(torch.tanh(self.conv(x)))[..., :height, :width]


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.project(y.transpose(1, 2).reshape(batch, length, width))


class Transformer(nn.Module):
    """Two pre-norm blocks, one with the attention written out and a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(16, 2)
        self.norms = nn.ModuleList([nn.LayerNorm(16) for _ in range(4)])
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU("tanh"), nn.Linear(32, 16))
        self.qk = nn.Linear(16, 32, bias=False)
        mask = torch.full((64, 64), float("-inf")).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norms[0](x))
        x = x + self.mlp(self.norms[1](x))
        q, k = self.qk(self.norms[2](x)).chunk(2, dim=-1)
        length = x.shape[1]
        scores = q @ k.transpose(-2, -1) / 4 + self.mask[:length, :length]
        return self.norms[3](x + torch.softmax(scores, dim=-1) @ x)


def encoder_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)


class Classifier(nn.Module):
    """Fixed input size: the linear layer counts the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 8, 3), nn.ReLU()
        )
        self.classify = nn.Sequential(
            nn.Flatten(), nn.Linear(8 * 6 * 6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.log_softmax(self.classify(self.features(x)), dim=1)


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 6, 5, padding=2, padding_mode="replicate"),
        nn.Softplus(),
        nn.Conv1d(6, 6, 2, 2),
        nn.InstanceNorm1d(6, affine=True),
        nn.ConvTranspose1d(6, 2, 4, 2, 1),
    )


def conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.Mish(),
        nn.MaxPool3d(2),
        nn.Upsample(scale_factor=2, mode="trilinear"),
        nn.ConvTranspose3d(4, 1, 3, padding=1),
    )


NETWORKS = (
    Network("plain_cnn", plain_cnn, (1, 1, 12, 10), ((3, 1, 9, 17), (1, 1, 1, 1))),
    Network("residual_filter", ResidualFilter, (1, 1, 12, 10), ((2, 1, 20, 7),)),
    Network("resnet", resnet, (1, 3, 32, 32), ((2, 3, 47, 33),)),
    Network("depthwise", depthwise, (1, 3, 16, 16), ((2, 3, 11, 21),)),
    Network("super_resolution", SuperResolution, (1, 3, 8, 10), ((2, 3, 7, 5),)),
    Network("unet", UNet, (1, 1, 16, 24), ((2, 1, 8, 32),)),
    Network("pad_to_multiple", PadToMultiple, (1, 1, 16, 24), ((2, 1, 13, 30), (1, 1, 16, 31))),
    Network("transformer", Transformer, (1, 10, 16), ((3, 7, 16),)),
    Network("encoder_layer", encoder_layer, (1, 10, 16), ((3, 7, 16),)),
    Network("classifier", Classifier, (1, 1, 16, 16), ((4, 1, 16, 16),)),
    Network("conv1d", conv1d, (1, 2, 20), ((3, 2, 30),)),
    Network("conv3d", conv3d, (1, 1, 4, 6, 8), ((2, 1, 6, 4, 4),)),
)
"""All of them."""
