"""No single bit that is flipped changes silently what a stream decodes to."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from fuzz.bit_flips import CONFORMANCE, SAME_AT_START, WRONG, flips

import nnrcodec


def state() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "w_G": rng.normal(size=(6, 5)).astype(np.float16),
        "zeros": np.zeros((2, 3), np.float32),
        "count": np.array(17, np.int64),
    }


def tensors(profile: str) -> bytes:
    return nnrcodec.encode(state(), config=nnrcodec.EncoderConfig(profile=profile))


def network(profile: str) -> bytes:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()).eval()
    config = nnrcodec.EncoderConfig(profile=profile)
    return nnrcodec.encode(module, (torch.zeros(1, 2),), config, calib=None)


@pytest.mark.parametrize("profile", ["ext", "nnc"])
@pytest.mark.parametrize("make", [tensors, network])
def test_no_flip_of_a_bit_goes_unseen_or_changes_anything(
    make: Callable[[str], bytes], profile: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    found = list(flips(make(profile)))
    assert not [flip for flip in found if flip[1] == WRONG]
    assert not [flip for flip in found if flip[1] == SAME_AT_START]


@pytest.mark.parametrize("name", ["zeros", "nnc_tiny_doubles"])
def test_no_flip_makes_an_older_record_disappear(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    data = (CONFORMANCE / f"{name}.nnr").read_bytes()
    start = data.index(b"nnrcodec ") - 3
    wrong = [bit // 8 for bit, kind, _ in flips(data) if kind == WRONG]
    assert not [byte for byte in wrong if byte >= start]
