from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest

from nnrcodec import (
    CabacConfig,
    DistillationConfig,
    EncoderConfig,
    LayerRank,
    LowRankConfig,
    UniformConfig,
)
from nnrcodec.config import as_config
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
        ({"profile": "nnc", "entropy": "ans"}, "'nnc' has no rANS"),
        ({"entropy": "ans", "codebook": True}, "a codebook goes with DeepCABAC"),
        ({"lambda_": -0.1}, "lambda is -0.1, expected a number of at least 0"),
        ({"lambda_": float("nan")}, "lambda is nan"),
        ({"lambda_": float("inf")}, "lambda is inf"),
        ({"threads": 0}, "threads is 0, expected at least 1"),
        ({"threads": -1}, "threads is -1, expected at least 1"),
        ({"low_rank": "auto"}, "low_rank is 'auto', expected a LowRankConfig or None"),
        ({"quantization": -20}, "quantization is -20, expected a UniformConfig"),
        ({"target_bytes": 0}, "target_bytes is 0, expected at least 1"),
        ({"qp": -20.5}, "qp is -20.5, expected a whole number or None"),
        ({"dq": 1}, "dq is 1, expected True or False"),
        ({"max_loss": "0.5%"}, "max_loss is '0.5%', expected a number or None"),
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


WRONG = ["text", 1.5, True, -20, b"", {}, [], Ellipsis, np.float32(0.5), float("nan")]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@pytest.mark.parametrize(
    "kind", [EncoderConfig, UniformConfig, CabacConfig, LowRankConfig, DistillationConfig]
)
def test_a_value_of_any_type_is_taken_or_refused_with_the_name_of_its_field(
    kind: Any, wrong: object
) -> None:
    for field in fields(kind):
        try:
            kind(**{field.name: wrong})
        except ConfigError as error:
            assert not isinstance(wrong, bytes | list) or field.name in str(error)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (UniformConfig, {"qp": True}, "qp is True, expected a whole number or None"),
        (UniformConfig, {"scale": "2"}, "scale is '2', expected a number"),
        (CabacConfig, {"scan_order": 1.0}, "scan_order is 1.0, expected a whole number"),
        (CabacConfig, {"row_skipping": None}, "row_skipping is None, expected True or False"),
        (LowRankConfig, {"energy": "0.9"}, "energy is '0.9', expected a number or None"),
        (LowRankConfig, {"scheme": "linear"}, "expected one of separable, channel, auto"),
        (LowRankConfig, {"ranks": [3]}, r"ranks is \[3\], expected a mapping or None"),
        (LowRankConfig, {"ranks": {2: 3}}, "ranks names layer 2, expected a text such as"),
        (LowRankConfig, {"ranks": {"a": 0}}, "the rank of layer 'a' is 0, expected a whole"),
        (LowRankConfig, {"ranks": {"a": LayerRank("channel", 1.5)}}, "rank of layer 'a' is 1.5"),  # type: ignore[arg-type]
        (LowRankConfig, {"ranks": {"a": LayerRank("thin", 3)}}, "scheme of layer 'a' is 'thin'"),  # type: ignore[arg-type]
        (DistillationConfig, {"minutes": "1"}, "minutes is '1', expected a number or None"),
        (DistillationConfig, {"steps": 1.5}, "steps is 1.5, expected a whole number or None"),
        (DistillationConfig, {"steps": 1, "seed": -1}, "seed is -1, expected at least 0"),
    ],
)
def test_wrong_types_and_values_say_what_is_allowed(
    kind: Any, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**arguments)


def test_numbers_of_numpy_become_numbers_of_python() -> None:
    config = EncoderConfig(
        qp=np.int64(-20),  # type: ignore[arg-type]
        threads=np.uint8(2),  # type: ignore[arg-type]
        lambda_=np.float32(0.5),  # type: ignore[arg-type]
        low_rank=LowRankConfig(ranks={"a": np.int32(3)}),  # type: ignore[dict-item]
    )
    assert type(config.quantization.qp) is type(config.threads) is int
    assert type(config.lambda_) is float
    assert config.low_rank is not None
    assert config.low_rank.ranks == {"a": 3}


def test_fields_of_tools_may_be_given_flat() -> None:
    config = EncoderConfig(qp=-20, scan_order=2, row_skipping=False, dq=False)
    assert config.quantization == UniformConfig(qp=-20)
    assert config.cabac == CabacConfig(scan_order=2, row_skipping=False)
    nested = EncoderConfig(quantization=config.quantization, cabac=config.cabac, dq=False)
    assert config == nested
    assert hash(config) == hash(nested)
    own = {field.name for field in fields(EncoderConfig)}
    values = {"cabac_unary_length": 3, "optimise_parameters": False, "scale": 2.0, "qp": -8}
    values |= {"nonweight_qp": -30, "qp_density": 3, "scan_order": 1, "row_skipping": False}
    for name, kind in (("quantization", UniformConfig), ("cabac", CabacConfig)):
        for field in fields(kind):
            assert field.name not in own
            flat = EncoderConfig(**{field.name: values[field.name]})  # type: ignore[arg-type]
            assert getattr(flat, name) == kind(**{field.name: values[field.name]})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"quantization": UniformConfig(), "qp": -20},
            "qp is a field of quantization: give only one of the two",
        ),
        ({"cabac": CabacConfig(), "scan_order": 0}, "scan_order is a field of cabac"),
    ],
)
def test_flat_and_whole_together_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EncoderConfig(**arguments)


def test_a_configuration_can_be_changed_by_replace_only() -> None:
    config = EncoderConfig(qp=-20, dq=False)
    changed = replace(config, entropy="cabac", quantization=UniformConfig(qp=-24))
    assert (changed.entropy, changed.dq, changed.quantization.qp) == ("cabac", False, -24)
    assert replace(changed, entropy="auto", quantization=config.quantization) == config
    with pytest.raises(FrozenInstanceError):
        config.dq = True  # type: ignore[misc]
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config  # noqa: S301
    assert repr(config).startswith("EncoderConfig(profile='ext', entropy='auto', quantization=U")


def test_a_configuration_or_none_is_expected() -> None:
    config = EncoderConfig(qp=-20)
    assert as_config(None) == EncoderConfig()
    assert as_config(config) is config
    wrong: Any
    for wrong in ({}, UniformConfig(qp=-20), "auto"):
        with pytest.raises(ConfigError, match=r"expected an EncoderConfig, such as .*, or None"):
            as_config(wrong)
