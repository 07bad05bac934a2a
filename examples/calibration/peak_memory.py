"""Print the peak memory of quantization with calibration inputs.

The network is the example filter, or a U-Net with random weights: 32 channels at full size, twice
as many on each of the three levels below, two convolutions with batch norm on each level. Each
line is measured in a process of its own, so that the peak (``ru_maxrss``) is that of one run:

    python peak_memory.py                      # all six lines
    python peak_memory.py unet quantize        # one line

"load" is the network and its inputs, without quantization: what the others start from.
"quantize" is `quantize_with_inputs`, "encode" is the whole encoder.
"""

import argparse
import hashlib
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nnrcodec import EncoderConfig
from nnrcodec.calibration.synthetic import Inputs
from nnrcodec.encoder.calibrated import quantize_with_inputs
from nnrcodec.encoder.pipeline import encode_model
from nnrcodec.formats import load
from nnrcodec.graph.export import model_of_module
from nnrcodec.model.model import Model

FILTER = Path(__file__).resolve().parents[1] / "postfilter" / "filter.pt2"

CASES = {"filter": (1, 96, 32), "unet": (3, 512, 4)}
"""Channels, side and number of the calibration inputs."""

STAGES = ("load", "quantize", "encode")


class UNet(nn.Module):
    """Four levels with skip connections; 32 channels on the first."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128, 256)
        self.down = nn.ModuleList(
            convolutions(before, width) for before, width in zip((3, *widths), widths, strict=False)
        )
        self.up = nn.ModuleList(
            convolutions(below + width, width)
            for below, width in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.leave = nn.Conv2d(widths[0], 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return one channel of the size of the input."""
        skipped = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else nn.functional.max_pool2d(x, 2))
            skipped.append(x)
        skipped.pop()
        for block in self.up:
            enlarged = nn.functional.interpolate(x, scale_factor=2.0)
            x = block(torch.cat([enlarged, skipped.pop()], 1))
        return self.leave(x)


def convolutions(inputs: int, outputs: int) -> nn.Sequential:
    """Return two convolutions with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def loaded(case: str) -> tuple[Model, Inputs]:
    """Return a network and smooth random inputs for it."""
    channels, side, count = CASES[case]
    rng = np.random.default_rng(0)
    coarse = rng.random((count, channels, side // 8, side // 8), np.float32)
    values = nn.functional.interpolate(torch.from_numpy(coarse), (side, side), mode="bilinear")
    inputs = [(value[None],) for value in values]
    if case == "filter":
        return load(FILTER), inputs
    torch.manual_seed(0)
    return model_of_module(UNet().eval(), inputs[0]), inputs


def measure(case: str, stage: str) -> str:
    """Run one stage; return time, peak memory of this process, and a digest of the result."""
    model, inputs = loaded(case)
    start = time.perf_counter()
    digest = hashlib.sha256()
    if stage == "quantize":
        found = quantize_with_inputs(model, inputs, EncoderConfig())
        for name, part in found.quantized.items():
            digest.update(name.encode() + np.int64(part.qp).tobytes() + part.levels.tobytes())
    elif stage == "encode":
        digest.update(encode_model(model, EncoderConfig(), inputs=inputs).data)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{case:8} {stage:9} {seconds:6.1f} s {peak:7.0f} MiB  {digest.hexdigest()[:12]}"


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("case", nargs="?", choices=CASES, help="by default all")
    parser.add_argument("stage", nargs="?", choices=STAGES, help="by default all")
    options = parser.parse_args()
    if options.stage:
        print(measure(options.case, options.stage), flush=True)
        return
    for case in [options.case] if options.case else CASES:
        for stage in STAGES:
            subprocess.run([sys.executable, __file__, case, stage], check=True)


if __name__ == "__main__":
    main()
