from __future__ import annotations

import pytest

from nnrcodec import EncoderConfig
from nnrcodec.entropy.cabac.config import CabacConfig
from nnrcodec.errors import ConfigError


def test_defaults_are_the_profile_with_all_coders() -> None:
    config = EncoderConfig()
    assert (config.profile, config.entropy, config.dq) == ("ext", "auto", True)
    assert (config.codebook, config.fold_batch_norm, config.low_rank) == (False, False, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profile": "nnr"}, "profile is 'nnr', expected one of ext, nnc"),
        ({"entropy": "huffman"}, "entropy is 'huffman', expected one of auto, cabac, ans"),
        ({"profile": "nnc", "entropy": "ans"}, "'nnc' has no static tables"),
        ({"entropy": "ans", "codebook": True}, "a codebook goes with DeepCABAC"),
        ({"lambda_": -0.1}, "lambda is -0.1, expected a number of at least 0"),
        ({"lambda_": float("nan")}, "lambda is nan"),
        ({"lambda_": float("inf")}, "lambda is inf"),
        ({"threads": 0}, "threads is 0, expected at least 1"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EncoderConfig(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scan_order": 5}, "scan_order is 5, allowed are 0 to 4"),
        ({"scan_order": -1}, "scan_order is -1"),
        ({"cabac_unary_length": 0}, "cabac_unary_length is 0, allowed are 1 to 256"),
        ({"cabac_unary_length": 257}, "cabac_unary_length is 257"),
    ],
)
def test_what_no_header_can_say_is_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CabacConfig(**arguments)  # type: ignore[arg-type]
