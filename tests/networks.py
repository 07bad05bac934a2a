"""Small networks of every kind that must survive a trip through the codec.

Each is an `nn.Module` in evaluation mode with random weights from a fixed seed, including the
running statistics of its batch normalisations, and an input that it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


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


def values(shape: tuple[int, ...]) -> torch.Tensor:
    """Return normally distributed values from a fixed seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


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
