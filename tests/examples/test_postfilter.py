"""The codec on a real network and real pictures: the trained post-filter of the examples."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nnrcodec
from nnrcodec import EncoderConfig, LowRankConfig
from nnrcodec.formats import load
from nnrcodec.model.model import Model

FOLDER = Path(__file__).parents[2] / "examples" / "postfilter"
PAPER_RANKS = {"net.2": 32, "net.4": 24}


@pytest.fixture(scope="module")
def evaluate() -> Any:
    """The example's own measurements."""
    sys.path.insert(0, str(FOLDER))
    try:
        import evaluate
    finally:
        sys.path.remove(str(FOLDER))
    return evaluate


@pytest.fixture(scope="module")
def network() -> Model:
    return load(FOLDER / "filter.pt2")


@pytest.fixture(scope="module")
def default(network: Model) -> bytes:
    return nnrcodec.encode(network)


@pytest.fixture(scope="module")
def low_rank(network: Model) -> bytes:
    config = EncoderConfig(low_rank=LowRankConfig(ranks=PAPER_RANKS))
    return nnrcodec.encode(network, config=config)


def test_the_filter_helps_and_default_options_keep_what_it_gains(
    evaluate: Any, network: Model, default: bytes
) -> None:
    pairs = evaluate.load_pairs(FOLDER / "eval")
    original = evaluate.load_filter(FOLDER / "filter.safetensors")
    gain = evaluate.mean_gain(evaluate.score_pairs(original, pairs))
    assert gain >= 0.25
    decoded = nnrcodec.decode_model(default)
    change = evaluate.mean_gain(evaluate.score_pairs(decoded, pairs)) - gain
    assert change >= -0.02
    assert len(default) < 0.16 * sum(4 * tensor.size for tensor in network.tensors.values())


RECORDED_BYTES = {"default": 73_584, "weights alone": 122_708, "low rank": 56_105}
"""What these options gave on the machine of their last change, as README and CHANGELOG say."""


def test_sizes_are_within_three_percent_of_the_recorded_ones(
    network: Model, default: bytes, low_rank: bytes
) -> None:
    sizes = {
        "default": len(default),
        "weights alone": len(nnrcodec.encode(network, calib=None)),
        "low rank": len(low_rank),
    }
    for name, size in sizes.items():
        assert abs(size / RECORDED_BYTES[name] - 1) <= 0.03, (name, size)


def test_coded_bytes_stay_within_three_percent_of_the_entropy(default: bytes) -> None:
    decoded = nnrcodec.decode(default)
    for unit in nnrcodec.inspect(default).tensors:
        value = decoded[unit.names[0]]
        if value.size > 10_000:
            _, counts = np.unique(value, return_counts=True)
            entropy = -(counts * np.log2(counts / value.size)).sum() / 8
            assert unit.unit_bytes < 1.03 * entropy


def test_decoded_network_is_the_original_one_with_decoded_weights(
    evaluate: Any, default: bytes
) -> None:
    original = evaluate.load_filter(FOLDER / "filter.safetensors")
    receiver = nnrcodec.load_into(copy.deepcopy(original), default)
    decoded = nnrcodec.decode_model(default)
    assert list(decoded.state_dict()) == list(receiver.state_dict())
    for height, width in ((48, 64), (37, 81)):
        picture = torch.rand(2, 1, height, width)
        with torch.no_grad():
            torch.testing.assert_close(decoded(picture), receiver(picture), atol=1e-6, rtol=0)


def test_low_rank_is_smaller_thinner_and_merges_back(
    evaluate: Any, default: bytes, low_rank: bytes
) -> None:
    thin = nnrcodec.decode_model(low_rank)
    merged = nnrcodec.decode_model(low_rank, merge=True)
    assert len(low_rank) < len(default)
    assert thin.state_dict()["net.2.u.weight"].shape == (32, 64, 3, 1)
    assert thin.state_dict()["net.4.v.weight"].shape == (64, 24, 1, 3)
    assert list(merged.state_dict()) == list(nnrcodec.decode_model(default).state_dict())
    picture = torch.rand(1, 1, 40, 56)
    with torch.no_grad():
        torch.testing.assert_close(thin(picture), merged(picture), atol=1e-5, rtol=0)
        receiver = evaluate.load_filter(FOLDER / "filter.safetensors")
        loaded = nnrcodec.load_into(receiver, low_rank)(picture)
        torch.testing.assert_close(loaded, thin(picture), atol=1e-6, rtol=0)


def test_both_files_hold_the_same_filter(network: Model) -> None:
    weights = load(FOLDER / "filter.safetensors")
    assert weights.tensors.keys() == network.tensors.keys()
    for name, tensor in weights.tensors.items():
        np.testing.assert_array_equal(tensor.read(), network.tensors[name].read())
