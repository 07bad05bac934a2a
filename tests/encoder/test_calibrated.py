"""Quantization that looks at what a network does, against quantization that does not."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import Inputs, error_between, inputs_of, model_of, outputs_of, with_values
from torch import nn

from nnrcodec.calibration.amount import in_batches
from nnrcodec.calibration.sensitivity import sensitivities
from nnrcodec.config import CabacConfig, EncoderConfig, Profile, UniformConfig
from nnrcodec.decoder.pipeline import decode_stream
from nnrcodec.encoder import calibrated as module_of_quantization
from nnrcodec.encoder.calibrated import QuantizedModel, quantize_with_inputs
from nnrcodec.encoder.pipeline import encode_model
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.graph.export import model_of_module
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model
from nnrcodec.quant.quantized import FEWEST_ELEMENTS
from nnrcodec.quant.step_size import dequantize, step_size

IMAGES = (2, 3, 14, 14)


def convolutions(width: int = 18) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, 2),
        nn.ReLU(),
        nn.Conv2d(width, 4, 3),
    )


def without_biases() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, bias=False), nn.Tanh(), nn.Conv2d(12, 4, 3, bias=False)
    )


def normalized(width: int = 18) -> nn.Module:
    """Layers without biases, before batch norms that have learned."""
    module = nn.Sequential(
        nn.Conv2d(3, width, 3, bias=False),
        nn.BatchNorm2d(width, momentum=None),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, bias=False),
        nn.BatchNorm2d(width, momentum=None),
        nn.ReLU(),
        nn.Conv2d(width, 4, 3),
    ).train()
    with torch.no_grad():
        module(inputs_of(IMAGES, 1, seed=9)[0][0])
    return module


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 1),
        nn.ReLU6(),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.SiLU(),
        nn.Conv2d(16, 8, 3, groups=4),
        nn.SiLU(),
        nn.Conv2d(8, 4, 1),
    )


def transposed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 5, 4, 2, 1))


def signals() -> nn.Module:
    return nn.Sequential(nn.Conv1d(3, 16, 5, padding=2), nn.Tanh(), nn.Conv1d(16, 2, 3))


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 5)
    )


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolutions": (convolutions, IMAGES),
    "few channels": (lambda: convolutions(8), IMAGES),
    "without biases": (without_biases, IMAGES),
    "batch norm": (normalized, IMAGES),
    "batch norm of few channels": (lambda: normalized(8), IMAGES),
    "depthwise": (depthwise, IMAGES),
    "transposed": (transposed, IMAGES),
    "one axis": (signals, (4, 3, 30)),
    "linear": (perceptron, (60, 12)),
}


@functools.cache
def made(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Model:
    """Return a network as it is exported, which takes a while the first time."""
    torch.manual_seed(0)
    return model_of(make().eval(), shape)


def asked(qp: int = -18, **options: object) -> EncoderConfig:
    """Return a configuration with a step size for all weights; -18 is 3/64."""
    return EncoderConfig(quantization=UniformConfig(qp=qp), **options)  # type: ignore[arg-type]


def decoded(model: Model, config: EncoderConfig, inputs: Inputs | None = None) -> Model:
    return decode_stream(encode_model(model, config, inputs=inputs).data, Limits())


def promised(found: QuantizedModel) -> Model:
    """Return the model that is to be decoded."""
    return with_values(found.model, {name: each.value for name, each in found.quantized.items()})


def means(model: Model, inputs: Inputs) -> torch.Tensor:
    """Return the mean of each channel of the output."""
    joined = torch.cat([output.double() for (output,) in outputs_of(model, inputs)])
    return joined.movedim(1, 0).flatten(1).mean(1)


# What it is for


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dq", [True, False])
def test_at_the_same_step_size_the_output_errs_less(case: str, dq: bool) -> None:
    make, shape = CASES[case]
    model, inputs = made(make, shape), inputs_of(shape, 4)
    config = asked(dq=dq)
    plain = error_between(model, decoded(model, config), inputs)
    found = error_between(model, promised(quantize_with_inputs(model, inputs, config)), inputs)
    assert found < (0.85 if case == "one axis" else 0.7) * plain


@pytest.mark.parametrize("case", ["convolutions", "batch norm", "linear"])
def test_inputs_that_were_not_seen_gain_as_well(case: str) -> None:
    make, shape = CASES[case]
    model, inputs = made(make, shape), inputs_of(shape, 12)
    config = asked()
    found = promised(quantize_with_inputs(model, inputs[:8], config))
    plain = decoded(model, config)
    assert error_between(model, found, inputs[8:]) < error_between(model, plain, inputs[8:])


@pytest.mark.parametrize("case", ["convolutions", "batch norm", "linear"])
def test_for_fewer_bytes_the_output_errs_less_without_a_step_size_too(case: str) -> None:
    make, shape = CASES[case]
    model, inputs = made(make, shape), inputs_of(shape, 4)
    plain, found = (encode_model(model, EncoderConfig(), inputs=each) for each in (None, inputs))
    errors = [error_between(model, decode_stream(e.data, Limits()), inputs) for e in (plain, found)]
    assert errors[1] * len(found.data) ** 2 < errors[0] * len(plain.data) ** 2


# What it promises


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("profile", ["ext", "nnc"])
def test_what_is_decoded_is_what_was_promised(case: str, profile: Profile) -> None:
    make, shape = CASES[case]
    model = made(make, shape)
    inputs = in_batches(model, inputs_of(shape, 3))
    for config in (
        EncoderConfig(profile=profile),
        asked(profile=profile, dq=False, blocks=False),
        asked(profile=profile, cabac=CabacConfig(scan_order=1)),
    ):
        found = quantize_with_inputs(model, inputs, config)
        made_of_it = decoded(model, config, inputs)
        assert list(made_of_it.tensors) == list(model.tensors)
        for name, each in found.quantized.items():
            tensor = made_of_it.tensors[name]
            assert tensor.dtype == model.tensors[name].dtype
            np.testing.assert_array_equal(tensor.read(), each.value)
        for name, tensor in found.model.tensors.items():
            if name not in found.quantized:
                value = tensor.read()
                is_stored = value.size < FEWEST_ELEMENTS and profile == "ext"
                step = 0.0 if is_stored else 2 * step_size(config.quantization.qp_for(value), 2)
                np.testing.assert_allclose(
                    made_of_it.tensors[name].read(), value, rtol=0, atol=step
                )


@pytest.mark.parametrize("entropy", ["auto", "cabac", "ans"])
def test_any_coder_takes_the_levels(entropy: str) -> None:
    model = made(convolutions, IMAGES)
    inputs, config = in_batches(model, inputs_of(IMAGES, 2)), asked(entropy=entropy)
    found = quantize_with_inputs(model, inputs, config)
    assert {each.dq for each in found.quantized.values()} == {entropy != "ans"}
    for name, each in found.quantized.items():
        np.testing.assert_array_equal(
            decoded(model, config, inputs).tensors[name].read(), each.value
        )


@pytest.mark.parametrize("dq", [True, False])
def test_a_higher_lambda_saves_bytes_and_costs_error(dq: bool) -> None:
    model, inputs = made(convolutions, IMAGES), inputs_of(IMAGES, 2)
    sizes, errors = [], []
    for lambda_ in (0.0, 0.3, 2.0):
        data = encode_model(model, asked(dq=dq, lambda_=lambda_), inputs=inputs).data
        sizes.append(len(data))
        errors.append(error_between(model, decode_stream(data, Limits()), inputs))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert sizes[2] < 0.9 * sizes[0]


def test_a_lambda_that_weighs_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"lambda weighs bits .* omit it"):
        encode_model(made(convolutions, IMAGES), asked(dq=False, lambda_=0.3))


def test_values_are_levels_times_the_step_size_that_was_asked_for() -> None:
    model, inputs = made(convolutions, IMAGES), inputs_of(IMAGES, 2)
    config = EncoderConfig(quantization=UniformConfig(qp=-18, nonweight_qp=-30))
    for name, each in quantize_with_inputs(model, inputs, config).quantized.items():
        assert each.qp == (-18 if name.endswith("weight") else -30)
        assert each.levels.shape == model.tensors[name].shape
        assert each.levels.dtype == np.int32
        np.testing.assert_array_equal(each.value, each.levels * np.float32(step_size(each.qp, 2)))


def test_levels_are_dependent_where_they_are_coded_in_the_order_of_the_search() -> None:
    model, inputs = made(transposed, IMAGES), inputs_of(IMAGES, 2)
    for config, dependent in (
        (asked(), {"0.weight": True, "2.weight": False}),
        (asked(dq=False), {"0.weight": False, "2.weight": False}),
        (asked(entropy="ans"), {"0.weight": False, "2.weight": False}),
        (asked(cabac=CabacConfig(scan_order=2)), {"0.weight": False, "2.weight": False}),
    ):
        found = quantize_with_inputs(model, inputs, config).quantized
        assert {name: found[name].dq for name in dependent} == dependent


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_values_have_the_dtype_of_their_tensor(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = convolutions().to(dtype)
    inputs = [(value.to(dtype),) for (value,) in inputs_of(IMAGES, 2)]
    model = model_of_module(module, inputs[0])
    inputs = in_batches(model, inputs)
    found = quantize_with_inputs(model, inputs, asked())
    made_of_it = decoded(model, asked(), inputs)
    for name, each in found.quantized.items():
        assert f"torch.{made_of_it.tensors[name].dtype}" == str(dtype)
        values = dequantize(each.levels, each.qp, 2)
        np.testing.assert_array_equal(each.value, torch.from_numpy(values).to(dtype).double())
        np.testing.assert_array_equal(made_of_it.tensors[name].read(), each.value)


@pytest.mark.parametrize("case", ["convolutions", "batch norm", "depthwise", "transposed"])
def test_the_same_comes_out_again_and_the_model_is_not_changed(case: str) -> None:
    make, shape = CASES[case]
    model, inputs = made(make, shape), inputs_of(shape, 2)
    before = {name: tensor.read().tobytes() for name, tensor in model.tensors.items()}
    found, again = (quantize_with_inputs(model, inputs, EncoderConfig()) for _ in range(2))
    assert found.quantized.keys() == again.quantized.keys()
    for name, each in found.quantized.items():
        np.testing.assert_array_equal(each.levels, again.quantized[name].levels)
        assert each.qp == again.quantized[name].qp
    for name, tensor in found.model.tensors.items():
        assert tensor.read().tobytes() == again.model.tensors[name].read().tobytes()
        assert model.tensors[name].read().tobytes() == before[name]


@pytest.mark.parametrize("case", ["convolutions", "depthwise"])
def test_whole_sensitivities_and_their_diagonals_give_the_same(case: str) -> None:
    make, shape = CASES[case]
    model, inputs = made(make, shape), inputs_of(shape, 2)
    found, other = (
        quantize_with_inputs(
            model, inputs, EncoderConfig(), output_sensitivities=output_sensitivities
        ).quantized
        for output_sensitivities in (None, sensitivities(model, inputs))
    )
    assert found.keys() == other.keys()
    for name, each in found.items():
        np.testing.assert_array_equal(each.levels, other[name].levels)
        assert each.qp == other[name].qp


# The mean of the output


@pytest.mark.parametrize(
    "case",
    [
        "convolutions",
        "few channels",
        "depthwise",
        "transposed",
        "linear",
        "batch norm",
        "batch norm of few channels",
    ],
)
def test_the_mean_of_the_output_stays(case: str) -> None:
    """The last layer has few outputs: its bias is not quantized."""
    make, shape = CASES[case]
    model, inputs = made(make, shape), inputs_of(shape, 4)
    found = quantize_with_inputs(model, inputs, asked(-16))
    torch.testing.assert_close(
        means(promised(found), inputs), means(model, inputs), atol=1e-5, rtol=0
    )
    plain = decoded(model, asked(-16))
    assert (means(plain, inputs) - means(model, inputs)).abs().max() > 1e-3


@pytest.mark.parametrize("width", [18, 8])
def test_the_mean_of_a_batch_norm_is_moved(width: int) -> None:
    model, inputs = made(lambda: normalized(width), IMAGES), inputs_of(IMAGES, 4)
    found = quantize_with_inputs(model, inputs, asked(-14))
    changed = {
        name
        for name, tensor in found.model.tensors.items()
        if not np.array_equal(tensor.read(), model.tensors[name].read())
    }
    assert changed == {
        *("1.running_mean", "1.running_var", "4.running_mean", "4.running_var", "6.bias")
    }
    assert ("1.running_mean" in found.quantized) == (width == 18)
    first = model_of(nn.Sequential(*normalized(width)[:2]).eval(), IMAGES)
    start = with_values(first, {n: model.tensors[n].read() for n in first.tensors})
    there = {
        n: found.quantized[n].value if n in found.quantized else found.model.tensors[n].read()
        for n in first.tensors
    }
    moved = means(with_values(first, there), inputs) - means(start, inputs)
    there["1.running_mean"] = model.tensors["1.running_mean"].read()
    unmoved = means(with_values(first, there), inputs) - means(start, inputs)
    assert moved.abs().max() < 0.2 * unmoved.abs().max()


def test_a_batch_norm_makes_up_for_the_scale_of_what_is_quantized() -> None:
    """Coarse steps with a rate make weights smaller; what comes out of the batch norm is not."""
    model, inputs = made(lambda: normalized(18), IMAGES), inputs_of(IMAGES, 4)
    found = quantize_with_inputs(model, inputs, asked(-14))
    kept = {"1.running_var", "4.running_var"}
    without = with_values(promised(found), {n: model.tensors[n].read() for n in kept})
    errors = [error_between(model, other, inputs) for other in (promised(found), without)]
    assert errors[0] < errors[1]


def test_biases_of_their_own_only_are_corrected() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
            self.b.bias = self.a.bias
            self.c = nn.Conv2d(3, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.b(self.a(x)))

    model, inputs = model_of(Shared(), IMAGES), inputs_of(IMAGES, 2)
    found = quantize_with_inputs(model, inputs, asked())
    for name, changed in (("a.bias", False), ("c.bias", True)):
        value = found.model.tensors[name].read()
        assert changed != np.array_equal(value, model.tensors[name].read())


def test_later_layers_make_up_for_earlier_ones() -> None:
    """What the walk sees is what is decoded: the last layer is fitted to that."""
    model, inputs = made(lambda: convolutions(8), IMAGES), inputs_of(IMAGES, 4)
    coarse = quantize_with_inputs(model, inputs, asked(-14))
    first = {n: each.value for n, each in coarse.quantized.items() if n in ("0.weight", "2.weight")}
    first |= {n: coarse.model.tensors[n].read() for n in ("0.bias", "2.bias")}
    behind = with_values(model, first)
    last = {n: promised(coarse).tensors[n].read() for n in ("4.weight", "4.bias")}
    fitted = error_between(model, with_values(behind, last), inputs)
    step = step_size(-14, 2)
    rounded = {n: step * np.rint(model.tensors[n].read() / step) for n in ("4.weight",)}
    assert fitted < 0.9 * error_between(model, with_values(behind, rounded), inputs)


# Step sizes


def test_a_larger_scale_is_coarser() -> None:
    model, inputs = made(convolutions, IMAGES), inputs_of(IMAGES, 3)
    errors, sizes, qps = [], [], []
    for scale in (0.5, 1.0, 2.0):
        config = EncoderConfig(quantization=UniformConfig(scale=scale))
        found = quantize_with_inputs(model, inputs, config)
        errors.append(error_between(model, promised(found), inputs))
        sizes.append(len(encode_model(model, config, inputs=inputs).data))
        qps.append(found.quantized["2.weight"].qp)
    assert errors[0] < errors[1] / 2 < errors[2] / 4
    assert sizes[0] > sizes[1] > sizes[2]
    assert [after - before for before, after in itertools.pairwise(qps)] == [4, 4]


def test_a_layer_that_counts_more_gets_a_finer_step() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.weak, self.strong = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weak(x) + 8 * self.strong(x)

    model, inputs = model_of(Branches(), IMAGES), inputs_of(IMAGES, 3)
    found = quantize_with_inputs(model, inputs, EncoderConfig()).quantized
    assert 11 <= found["weak.weight"].qp - found["strong.weight"].qp <= 13  # 3 octaves of 4


# What is out of the ordinary


@pytest.mark.parametrize(
    "dead",
    [
        {"0.bias": -100.0},
        {"0.weight": 0.0},
        {"2.weight": 0.0},
        {"2.weight": 0.0, "2.bias": 0.0},
        {"4.weight": 0.0},
        {"0.weight": 0.0, "0.bias": 0.0, "2.weight": 0.0, "2.bias": 0.0, "4.weight": 0.0},
    ],
    ids=" and ".join,
)
@pytest.mark.parametrize("profile", ["ext", "nnc"])
def test_dead_layers_do_no_harm(dead: dict[str, float], profile: Profile) -> None:
    model, inputs = made(convolutions, IMAGES), inputs_of(IMAGES, 2)
    changes = {n: np.full(model.tensors[n].shape, v, np.float32) for n, v in dead.items()}
    changed = with_values(model, changes)
    config = EncoderConfig(profile=profile)
    found = quantize_with_inputs(changed, inputs, config)
    assert set(found.quantized) >= {"0.weight", "2.weight", "4.weight"}
    made_of_it = decoded(changed, config, inputs)
    for name, each in found.quantized.items():
        np.testing.assert_array_equal(made_of_it.tensors[name].read(), each.value)
    energy = float(np.mean([float(o.square().mean()) for (o,) in outputs_of(changed, inputs)]))
    assert error_between(changed, made_of_it, inputs) <= 0.1 * energy + 1e-9


@pytest.mark.parametrize("value", [0.0, 0.6, 255.0])
def test_inputs_that_do_not_vary_do_no_harm(value: float) -> None:
    """Steps are then those without inputs, not the finest there are."""
    model = made(perceptron, (60, 12))
    inputs = [(torch.full((60, 12), value),)] * 2
    found = quantize_with_inputs(model, inputs, EncoderConfig())
    assert error_between(model, promised(found), inputs) < 1e-3 * max(value, 1)
    for name, each in found.quantized.items():
        assert np.abs(each.levels).max() < 2**12, name


def test_inputs_far_from_zero_are_told_apart() -> None:
    """A variance of a millionth of the squared mean still counts."""
    model = made(perceptron, (60, 12))
    inputs = [(300 + 0.3 * value,) for (value,) in inputs_of((60, 12), 4)]
    plain = error_between(model, decoded(model, asked()), inputs)
    found = quantize_with_inputs(model, inputs, asked())
    assert error_between(model, promised(found), inputs) < 0.01 * plain


def test_where_the_mean_of_its_inputs_is_does_not_matter_to_a_layer_with_a_bias() -> None:
    model = made(lambda: nn.Sequential(nn.Linear(12, 24)), (60, 12))
    inputs = inputs_of((60, 12), 4)
    moved = [(value + 8,) for (value,) in inputs]
    found, other = (
        quantize_with_inputs(model, each, asked()).quantized for each in (inputs, moved)
    )
    same = found["0.weight"].levels == other["0.weight"].levels
    assert same.mean() > 0.95


def test_what_cannot_be_quantized_is_left_out() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.small, self.twice = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)
            self.last, self.scale = nn.Conv2d(3, 4, 3), nn.Parameter(torch.randn(3, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.twice(self.twice(self.small(x))) * self.scale)

    model, inputs = model_of(Parts(), IMAGES), inputs_of(IMAGES, 2)
    huge = {
        "last.weight": np.full((4, 3, 3, 3), 2.0**101, np.float32),
        "twice.weight": np.full((3, 3, 3, 3), 2.0**101, np.float32),
    }
    found = quantize_with_inputs(model, inputs, asked()).quantized
    assert set(found) == {"twice.weight", "last.weight"}
    found = quantize_with_inputs(with_values(model, huge), inputs, EncoderConfig()).quantized
    assert not found


class Words(nn.Module):
    """A table, a recurrent layer, and a layer that runs twice."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.gates = nn.Embedding(60, 24), nn.GRU(24, 24, batch_first=True)
        self.twice, self.gain = nn.Linear(24, 24), gain

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y, _ = self.gates(self.gain * self.table(ids))
        return self.twice(torch.tanh(self.twice(y)))


def words(count: int, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randint(60, (4, 12), generator=generator),) for _ in range(count)]


@functools.cache
def model_of_words(gain: float = 1.0) -> Model:
    return model_of_module(Words(gain).eval(), words(1)[0])


def test_weights_outside_of_layers_are_quantized_by_their_effect() -> None:
    strong, weak = (
        quantize_with_inputs(model_of_words(gain), words(4), EncoderConfig()).quantized
        for gain in (1.0, 0.01)
    )
    table = {"table.weight"}
    both = {"gates.weight_ih_l0", "gates.weight_hh_l0", "twice.weight"}
    assert strong.keys() == weak.keys() == table | both
    steps = {
        name: step_size(weak[name].qp, 2) / step_size(strong[name].qp, 2)
        for name in ("table.weight", "twice.weight")
    }
    assert steps["table.weight"] > 8 * steps["twice.weight"]


def test_layers_after_them_see_what_became_of_them() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table, self.last = nn.Embedding(60, 24), nn.Linear(24, 8)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.last(self.table(ids))

    model = model_of_module(Table().eval(), words(1)[0])
    config = EncoderConfig(scale=4.0)
    found = quantize_with_inputs(model, words(8), config)
    taken = {name: coded.value for name, coded in found.quantized.items()}
    apart = taken | {
        name: coded.value
        for name, coded in quantize_with_inputs(
            with_values(model, {"table.weight": taken["table.weight"]}), words(8), config
        ).quantized.items()
        if name == "last.weight"
    }
    ours, theirs = (
        error_between(model, with_values(found.model, values), words(20, seed=5))
        for values in (taken, apart)
    )
    assert ours < theirs


def test_what_has_no_effect_that_could_be_measured_keeps_its_own_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table, self.last = nn.Embedding(60, 24), nn.Linear(24, 8)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.last(torch.round(self.table(ids)))

    model = model_of_module(Rounded().eval(), words(1)[0])
    assert "table.weight" not in quantize_with_inputs(model, words(2), EncoderConfig()).quantized
    assert "on the output of table.weight" in caplog.text


def test_progress_is_told_for_each_layer() -> None:
    told: list[tuple[int, int]] = []
    model, inputs = made(convolutions, IMAGES), inputs_of(IMAGES, 1)
    quantize_with_inputs(model, inputs, asked(), progress=lambda *each: told.append(each))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_what_does_not_fit_is_refused() -> None:
    model, inputs = made(convolutions, IMAGES), inputs_of(IMAGES, 1)
    with pytest.raises(ConfigError, match=r"'0\.weight': qp -120 .* works"):
        quantize_with_inputs(model, inputs, asked(-120))
    with pytest.raises(ConfigError, match="has size 2 in axis 1, the model takes 3"):
        quantize_with_inputs(model, inputs_of((1, 2, 9, 9), 1), asked())
    with pytest.raises(ModelError, match="no graph"):
        quantize_with_inputs(replace(model, graph=None), inputs, asked())


# What is left out or replaced is said


def test_layers_without_steps_influence_or_order_are_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.small, self.dead = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 6, 3)
            self.back = nn.ConvTranspose2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.small(x)
            return self.back(x) + 0 * self.dead(x).mean()

    quantize_with_inputs(model_of(Parts(), IMAGES), inputs_of(IMAGES, 2), EncoderConfig())
    found = [
        (record.levelname, " ".join(record.getMessage().split()[:6]))
        for record in caplog.records
        if record.name == "nnrcodec.encoder.calibrated"
    ]
    assert found == [
        ("INFO", "layer small is not quantized with"),
        ("INFO", "layer back gets uniform instead of"),
        ("WARNING", "layer dead has no influence on"),
    ]


def test_layers_without_bias_correction_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for make, expected in ((without_biases, 1), (convolutions, 0), (normalized, 0)):
        caplog.clear()
        quantize_with_inputs(made(make, IMAGES), inputs_of(IMAGES, 2), EncoderConfig())
        said = "no bias correction for 0, 2: no bias is theirs alone, and no batch norm after"
        assert sum(said in message for message in caplog.messages) == expected


def test_gains_that_a_batch_norm_does_not_get_are_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = made(normalized, IMAGES), inputs_of(IMAGES, 2)
    caplog.set_level("INFO", "nnrcodec")
    quantize_with_inputs(model, inputs, EncoderConfig())
    assert "cannot make up" not in caplog.text
    caplog.clear()
    monkeypatch.setattr(module_of_quantization, "_GAINS", (0.25, 0.5))
    quantize_with_inputs(model, inputs, EncoderConfig())
    said = [message.split(":")[0] for message in caplog.messages if "cannot make up" in message]
    assert said == [
        f"the batch norm of {mean} cannot make up for what quantization does to 18 of 18 outputs"
        for mean in ("1.running_mean", "4.running_mean")
    ]


def test_inputs_that_tell_no_step_sizes_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    inputs = [(torch.full((60, 12), 0.6),)] * 2
    quantize_with_inputs(made(perceptron, (60, 12)), inputs, EncoderConfig())
    texts = [record.getMessage() for record in caplog.records]
    assert sum(text.startswith("no error is expected") for text in texts) == 1
