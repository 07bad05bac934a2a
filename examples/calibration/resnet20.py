"""The ResNet-20 for CIFAR-10: three stages of three blocks, shortcuts without parameters.

K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016, section
4.2, option A.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from nnrcodec.formats.sources import model_of
from nnrcodec.model.model import Model

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two convolutions, and what comes in added to what they make of it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, (outputs - inputs) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the block."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.added:
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, self.added, self.added))
        return functional.relu(y + x)


class ResNet20(nn.Module):
    """The network; takes (n, 3, 32, 32), gives ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (inputs, outputs) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            blocks = [Block(inputs, outputs, 1 if stage == 1 else 2)]
            blocks += [Block(outputs, outputs, 1) for _ in range(2)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.layer3(self.layer2(self.layer1(y)))
        return self.linear(functional.avg_pool2d(y, y.shape[3]).flatten(1))


def load_images(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures, uint8 of shape (n, 32, 32, 3), and their labels."""
    with np.load(path, allow_pickle=False) as held:
        return held["images"], held["labels"]


def normalized(images: np.ndarray) -> torch.Tensor:
    """Return what the network takes of 8-bit pictures."""
    values = (images.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


def load_resnet20(path: Path, example: torch.Tensor) -> Model:
    """Return the trained network with its graph."""
    module = ResNet20()
    module.load_state_dict(load_file(path))
    return model_of(module.eval(), (example,))
