"""The search for an operating point, on functions that are known and on small networks."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Inputs, inputs_of, model_of, network, outputs_of
from torch import nn

import nnrcodec
from nnrcodec.config import DistillationConfig, EncoderConfig, LowRankConfig, UniformConfig
from nnrcodec.encoder.pipeline import encode_model
from nnrcodec.encoder.search import (
    NEAR,
    TRIALS,
    ScoreOf,
    encode_best,
)
from nnrcodec.encoder.trials import QP_DENSITY, NothingBetweenError, solve
from nnrcodec.errors import ConfigError
from nnrcodec.model.model import Model, Tensor

SHAPE = (2, 3, 12, 12)


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 3, 3, padding=1),
    )
    return model_of(module.eval(), SHAPE)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return inputs_of(SHAPE, 6)


def score_on(model: Model, inputs: Inputs) -> ScoreOf:
    """Return the negative squared error of the outputs, in per cent of their mean square."""
    wanted = [made[0] for made in outputs_of(model, inputs)]
    power = sum(float(value.square().mean()) for value in wanted)

    def score(module: nn.Module) -> float:
        with torch.inference_mode():
            errors = [
                float((module(*each) - value).square().mean())
                for each, value in zip(inputs, wanted, strict=True)
            ]
        return -100 * sum(errors) / power

    return score


@given(
    exponent=st.floats(0.5, 4),
    target=st.floats(-6, 4),
    bend=st.floats(0, 0.3),
    rising=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_the_root_is_found_from_below_in_a_few_trials(
    exponent: float, target: float, bend: float, rising: bool
) -> None:
    sign = 1 if rising else -1
    calls: list[float] = []

    def excess(scale: float) -> float:
        calls.append(scale)
        at = math.log(scale) - target
        return sign * (exponent * at + bend * math.tanh(at))

    found = solve(excess, sign * 2.0, NEAR, 16)
    assert len(calls) <= 16
    assert found is not None
    assert -3 * NEAR <= excess(found) <= 0


def test_a_limit_that_nothing_keeps_is_out_of_reach() -> None:
    assert solve(lambda scale: 1 + scale, 2.0, NEAR, TRIALS) is None


def test_the_search_ends_where_there_is_nothing_between() -> None:
    calls: list[float] = []

    def excess(scale: float) -> float:
        calls.append(scale)
        if len(calls) == 3:
            raise NothingBetweenError
        return -1.0 if len(calls) == 1 else 1.0

    assert solve(excess, 2.0, NEAR, TRIALS) == 1.0
    assert len(calls) == 3


def test_no_scale_is_tried_twice_where_the_loss_does_not_rise_with_it() -> None:
    tried: list[float] = []

    def excess(scale: float) -> float:
        tried.append(scale)
        return -0.4 if scale == 1 else 0.1 if scale > 1.2 else 0.3

    assert solve(excess, 2.0, NEAR, TRIALS) == 1.0
    assert 2 < len(tried) == len(set(tried)) <= TRIALS


def test_without_a_target_nothing_is_searched(model: Model, inputs: Inputs) -> None:
    config = EncoderConfig()
    found = encode_best(model, config, inputs=inputs)
    assert found.trials == ()
    assert found.encoded.data == encode_model(model, config, inputs=inputs).data


@pytest.mark.parametrize("part", [0.3, 1.5])
def test_bytes_of_a_state_dict_keep_to_their_target(part: float) -> None:
    rng = np.random.default_rng(0)
    state = {f"fc{n}.weight": rng.normal(size=(60, 80)).astype(np.float32) for n in range(3)}
    target = int(part * len(nnrcodec.encode(state)))
    stream = nnrcodec.encode(state, config=EncoderConfig(target_bytes=target))
    assert 0.93 * target <= len(stream) <= target


def test_bytes_keep_to_their_target_with_inputs_and_open_ranks(
    model: Model, inputs: Inputs
) -> None:
    target = int(0.6 * len(encode_model(model, EncoderConfig(), inputs=inputs).data))
    config = EncoderConfig(target_bytes=target, low_rank=LowRankConfig(scheme="auto"))
    found = encode_best(model, config, inputs=inputs)
    assert 0.8 * target <= len(found.encoded.data) <= target
    assert 2 <= len(found.trials) <= TRIALS
    assert found.taken in found.trials
    assert all(trial.loss is None for trial in found.trials)


def test_trials_do_not_repeat_what_was_said(
    model: Model, inputs: Inputs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nnrcodec")
    config = EncoderConfig(target_bytes=3000, low_rank=LowRankConfig(scheme="auto"))
    report = nnrcodec.encode(model, config=config, calib=inputs).report
    assert len(report.trials) > 1
    assert any("no rank is clearly worth its error" in message for message in caplog.messages)
    assert len(set(caplog.messages)) == len(caplog.messages)


def test_a_target_below_all_streams_names_the_smallest() -> None:
    state = {"fc.weight": np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)}
    with pytest.raises(ConfigError, match=r"^20 bytes are out of reach; the smallest .* has \d+$"):
        nnrcodec.encode(state, config=EncoderConfig(target_bytes=20))


@pytest.mark.parametrize("low_rank", [None, LowRankConfig(ranks={"2": 6})], ids=["whole", "ranks"])
def test_a_loss_keeps_to_its_limit_and_is_used(
    model: Model, inputs: Inputs, low_rank: LowRankConfig | None
) -> None:
    score = score_on(model, inputs)
    limit = 1.0 if low_rank is None else 30.0
    config = EncoderConfig(max_loss=limit, low_rank=low_rank)
    found = encode_best(model, config, inputs=inputs, score=score)
    decoded = nnrcodec.decode_model(found.encoded.data)
    loss = -score(decoded)
    assert found.taken is not None
    assert found.taken.loss == pytest.approx(loss, rel=1e-3)
    assert loss <= limit
    within = [t for t in found.trials if t.loss is not None and t.loss <= limit]
    assert found.taken.bytes == min(trial.bytes for trial in within)
    plain = encode_model(
        model,
        replace(
            config,
            max_loss=None,
            quantization=UniformConfig(scale=found.taken.scale, qp_density=QP_DENSITY),
        ),
        inputs=inputs,
    )
    assert found.encoded.data == plain.data


def test_open_ranks_are_found_for_a_loss_with_distillation(model: Model, inputs: Inputs) -> None:
    config = EncoderConfig(
        max_loss=8.0,
        low_rank=LowRankConfig(optimise="runtime", scheme="auto"),
        distillation=DistillationConfig(steps=20),
    )
    score = score_on(model, inputs)
    found = encode_best(model, config, inputs=inputs, score=score)
    assert any(layer.rank is not None for layer in found.encoded.layers)
    assert found.encoded.distilled is not None
    assert -score(nnrcodec.decode_model(found.encoded.data)) <= 8.0
    again = encode_best(model, config, inputs=inputs, score=score)
    assert again.encoded.data == found.encoded.data


def test_a_loss_needs_a_score_and_a_network_that_runs(model: Model) -> None:
    config = EncoderConfig(max_loss=0.1)
    with pytest.raises(ConfigError, match="score"):
        encode_best(model, config)
    bare = Model.of(model.tensors.values())
    with pytest.raises(ConfigError, match="network that runs"):
        encode_best(bare, config, score=lambda _: 0.0)
    with pytest.raises(ConfigError, match="score of the network is inf"):
        encode_best(model, config, score=lambda _: math.inf)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_loss": 0.0}, "max_loss is 0.0"),
        ({"max_loss": math.nan}, "max_loss is nan"),
        ({"target_bytes": 0}, "target_bytes is 0"),
        ({"target_bytes": 9, "max_loss": 1.0}, "give one"),
        ({"target_bytes": 9, "quantization": UniformConfig(qp=-20)}, "give no qp"),
    ],
)
def test_targets_that_mean_nothing_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EncoderConfig(**options)  # type: ignore[arg-type]


def test_a_tensor_of_zeros_does_not_stop_a_search() -> None:
    tensors = [Tensor.of("a.weight", np.zeros((20, 20), np.float32))]
    tensors.append(Tensor.of("b.weight", np.eye(20, dtype=np.float32)))
    found = encode_best(Model.of(tensors), EncoderConfig(target_bytes=3000))
    assert len(found.encoded.data) <= 3000


def test_a_network_of_the_standard_kind_runs_with_synthetic_inputs() -> None:
    chosen = network("resnet")
    target = 6000
    data = nnrcodec.encode(
        chosen.module(),
        (chosen.example(),),
        EncoderConfig(target_bytes=target),
        calib="synthetic",
    )
    assert len(data) <= target
    assert nnrcodec.decode_model(data)(chosen.example()).shape[1] == 5
