import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nnrcodec.config import EncoderConfig, LowRankConfig
from nnrcodec.encoder.pipeline import encode_model
from nnrcodec.evaluate import PsnrTask, evaluate
from nnrcodec.evaluate.measure import Seconds
from nnrcodec.formats import pt2
from nnrcodec.graph.export import model_of_module


class Filter(nn.Module):
    """A post-filter of two convolutions that starts from its input."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 1, 3, padding=1)

    def forward(self, picture):
        return picture + 0.1 * self.last(torch.relu(self.first(picture)))


def exported(module, shape=(1, 1, 16, 20), free=(2, 3)):
    """Return a module as a model, with axes that may have any size."""
    dynamic = (dict.fromkeys(free, torch.export.Dim.AUTO),) if free else None
    return model_of_module(module.eval(), (torch.rand(shape),), dynamic)


@pytest.fixture(scope="session")
def export():
    return exported


@pytest.fixture(scope="session")
def module():
    torch.manual_seed(5)
    return Filter().eval()


@pytest.fixture(scope="session")
def original(module):
    return exported(module)


@pytest.fixture(scope="session")
def streams(original):
    """Return two streams of the filter, one of low rank."""
    low_rank = EncoderConfig(low_rank=LowRankConfig(ranks={"first": 2, "last": 3}))
    return {
        "plain": encode_model(original, EncoderConfig()).data,
        "thin": encode_model(original, low_rank).data,
    }


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Return a folder with two pictures, each decoded at two QPs."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(2)
    for name, shape in (("lake", (12, 16)), ("tree", (20, 14))):
        original = rng.integers(30, 220, shape)
        Image.fromarray(original.astype(np.uint8)).save(folder / f"{name}_orig.png")
        for qp, most in ((22, 3), (37, 15)):
            decoded = original + rng.integers(-most, most + 1, shape)
            Image.fromarray(decoded.astype(np.uint8)).save(folder / f"{name}_qp{qp}_dec.png")
    return folder


@pytest.fixture(scope="session")
def evaluation(original, streams, pictures):
    return evaluate(original, streams, PsnrTask(pictures), rounds=3, memory_use=False)


@pytest.fixture(scope="session")
def timed(evaluation):
    """Return the evaluation with times and memory as if they had been measured, always the same."""
    times = [Seconds(0.05, (0.04, 0.06)), Seconds(0.051, (0.05, 0.06)), Seconds(0.025, (0.02, 0.1))]
    networks = [
        dataclasses.replace(n, run_seconds=seconds, run_memory=2_000_000)
        for n, seconds in zip(evaluation.networks, times, strict=True)
    ]
    return dataclasses.replace(evaluation, networks=tuple(networks))


@pytest.fixture(scope="session")
def file(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "filter.pt2"
    pt2.save(original, path)
    return path
