import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import nnrcodec
from nnrcodec.config import EncoderConfig
from nnrcodec.errors import ConfigError
from nnrcodec.evaluate import OutputsTask, PsnrTask, Score, evaluate
from nnrcodec.inspection import inspect
from nnrcodec.reduce.decomposition import Decomposition
from nnrcodec.reduce.schemes import Scheme

QUICK = {"rounds": 1, "encode_time": False, "memory_use": False}


def test_the_original_is_compared_with_each_stream(evaluation, streams):
    original, plain, thin = evaluation.networks
    assert [n.label for n in evaluation.networks] == ["original", "plain", "thin"]
    assert evaluation.original is original
    assert evaluation.coded == (plain, thin)
    elements = 6 * 9 + 6 + 6 * 9 + 1
    assert (original.parameters, plain.parameters) == (elements, elements)
    # separable: 2 times (1 * 3 + 6 * 3) and 3 times (6 * 3 + 1 * 3), and the biases
    assert thin.parameters == 2 * 21 + 6 + 3 * 21 + 1
    for network in evaluation.networks:
        assert network.fp32_bytes == 4 * network.parameters
    assert (original.coded_bytes, original.ratio) == (None, None)
    for network, stream in zip(evaluation.coded, streams.values(), strict=True):
        assert network.coded_bytes == len(stream)
        assert network.ratio == pytest.approx(len(stream) / original.fp32_bytes)


def test_what_networks_compute(evaluation):
    assert evaluation.input_shapes == ((1, 1, 96, 96),)
    original, plain, thin = (network.multiply_adds for network in evaluation.networks)
    assert original == plain == 96 * 96 * (6 * 9 + 6 * 9)
    assert thin == 96 * 96 * (2 * 21 + 3 * 21)


def test_times_are_there_for_what_was_measured(evaluation):
    original, plain, thin = evaluation.networks
    assert original.encode_seconds.median > 0
    assert (plain.encode_seconds, original.decode_seconds) == (None, None)
    for seconds in (thin.decode_seconds, *(n.run_seconds for n in evaluation.networks)):
        first, last = seconds.quartiles
        assert 0 < first <= seconds.median <= last
    assert (evaluation.rounds, evaluation.threads) == (3, 1)
    assert str(torch.__version__) in evaluation.machine


def test_scores_are_those_of_the_task(evaluation, original, pictures, module):
    task = PsnrTask(pictures)
    assert evaluation.task == "PSNR"
    assert evaluation.baseline == task.baseline
    assert evaluation.original.score.value == pytest.approx(task.score(module).value, abs=1e-3)
    for network in evaluation.coded:
        assert network.score.groups["picture, QP"].keys() == {
            f"{name}, {qp}" for name in ("lake", "tree") for qp in (22, 37)
        }


def test_the_bytes_of_layers_are_all_bytes_of_the_stream(evaluation, streams):
    original, *coded = evaluation.networks
    assert original.layer_bytes == {"first": 4 * 60, "last": 4 * 55}
    for network in coded:
        units = inspect(streams[network.label]).tensors
        assert list(network.layer_bytes) == ["first", "last"]
        for layer, size in network.layer_bytes.items():
            of_layer = [unit.unit_bytes for unit in units if unit.names[0].startswith(layer)]
            assert size == sum(of_layer) > 0
        assert sum(network.layer_bytes.values()) + network.other_bytes == network.coded_bytes
    assert [network.ranks for network in coded] == [{}, {"first": 2, "last": 3}]


def test_spectra_are_singular_values_of_the_original(evaluation, original):
    first, last = evaluation.spectra
    assert (first.layer, last.layer) == ("first", "last")
    assert (first.ranks, last.ranks) == ({"thin": 2}, {"thin": 3})
    for spectrum in evaluation.spectra:
        kernel = original.tensors[f"{spectrum.layer}.weight"].read()
        scheme = Scheme("separable", kernel.shape)
        values = Decomposition.of(scheme, kernel).singular_values
        np.testing.assert_allclose(spectrum.values, values / values[0], atol=1e-6)
        assert spectrum.energy(1) == pytest.approx(values[0] ** 2 / np.sum(values**2))
        assert spectrum.energy(len(values)) == pytest.approx(1)


def test_everything_is_json(evaluation):
    infinite = replace(
        evaluation.original,
        score=Score(math.inf, "dB", {"a": {"b": math.nan}}, {"c": -math.inf, "d": 1.5}),
    )
    values = replace(evaluation, networks=(infinite, *evaluation.coded)).as_dict()
    again = json.loads(json.dumps(values, allow_nan=False))
    assert again["networks"][0]["score"] == {
        "value": None,
        "unit": "dB",
        "groups": {"a": {"b": None}},
        "more": {"c": None, "d": 1.5},
    }
    thin = again["networks"][2]
    assert thin["run_seconds"].keys() == {"median", "quartiles"}
    assert thin["score"]["groups"]["picture, QP"]["lake, 22"] > 30
    assert again["spectra"][0]["ranks"] == {"thin": 2}


def test_a_module_with_example_inputs_is_timed_on_these(module, streams):
    seen = []

    def largest_weight(network):
        seen.append(network)
        return max(float(p.abs().max()) for p in network.parameters())

    picture = torch.rand(1, 1, 6, 7)
    evaluation = evaluate(module, streams, largest_weight, example_inputs=(picture,), **QUICK)
    assert evaluation.input_shapes == ((1, 1, 6, 7),)
    assert (evaluation.task, evaluation.name, len(seen)) == ("largest_weight", "network", 3)
    expected = max(float(p.detach().abs().max()) for p in module.parameters())
    assert evaluation.original.score.value == pytest.approx(expected)
    assert evaluation.original.decode_seconds is None
    assert evaluation.original.encode_seconds is None


def test_an_exported_program_and_a_file(module, file, streams):
    program = torch.export.export(module, (torch.rand(1, 1, 6, 7),))
    assert evaluate(program, streams, **QUICK).input_shapes == ((1, 1, 6, 7),)
    evaluation = evaluate(file, streams, input_size=(8, 12), **QUICK)
    assert (evaluation.name, evaluation.input_shapes) == ("filter.pt2", ((1, 1, 8, 12),))


def test_agreement_with_the_original(original, streams):
    task = OutputsTask(original, [torch.rand(1, 1, 9, 9)])
    evaluation = evaluate(original, streams, task, **QUICK)
    assert evaluation.original.score.value > 120  # other threads may sum in another order
    assert all(10 < network.score.value < 200 for network in evaluation.coded)
    json.dumps(evaluation.as_dict(), allow_nan=False)


def test_state_dicts_are_compared_in_size_and_decoding(module, original, streams):
    state = module.state_dict()
    evaluation = evaluate(state, streams, **QUICK)
    for network in evaluation.networks:
        assert (network.run_seconds, network.multiply_adds, network.score) == (None, None, None)
    assert evaluation.input_shapes == ()
    (note,) = evaluation.notes
    assert note.startswith("networks did not run: the original has tensors only, no graph; weights")
    assert evaluation.original.weight_errors == {}
    for network in evaluation.coded:
        assert network.weight_errors.keys() == state.keys()
    exact = evaluate(
        state, {"exact": nnrcodec.encode(state, config=EncoderConfig(qp=-90))}, **QUICK
    )
    (network,) = exact.coded
    assert 0 < max(network.weight_errors.values()) < 1e-5
    assert evaluation.coded[0].decode_seconds.median > 0
    assert evaluation.original.fp32_bytes == 4 * 115
    assert [spectrum.layer for spectrum in evaluation.spectra] == ["first", "last"]
    bare = evaluate(original, {"bare": nnrcodec.encode(state)}, **QUICK)
    assert bare.coded[0].run_seconds is not None
    for options in ({"task": lambda network: 1.0}, {"input_size": (8, 8)}):
        with pytest.raises(ConfigError, match="tensors only, no graph, so it does not run"):
            evaluate(state, streams, **options, **QUICK)


def test_blocks_of_the_standard_are_layers(module, original):
    data = nnrcodec.encode(module, (torch.rand(1, 1, 8, 8),), EncoderConfig(profile="nnc"))
    (network,) = evaluate(original, {"nnc": data}, **QUICK).coded
    assert list(network.layer_bytes) == ["first", "last"]
    assert sum(network.layer_bytes.values()) + network.other_bytes == len(data)


def test_networks_whose_input_cannot_be_made_up_are_not_timed(export):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3))

        def forward(self, values, mask):
            return values * mask * self.weight

    inputs = (torch.rand(2, 3), torch.ones(2, 3, dtype=torch.int64))
    program = torch.export.export(Masked(), inputs)
    data = nnrcodec.encode(program)
    evaluation = evaluate(
        program, {"a": data}, lambda network: float(network(*inputs).sum()), **QUICK
    )
    assert evaluation.original.run_seconds is None
    assert evaluation.original.score.value > 0
    assert len(evaluation.notes) == 1
    assert evaluation.notes[0].startswith("run time was not measured: input 'mask' is int64")
    timed = evaluate(Masked(), {"a": data}, example_inputs=inputs, **QUICK)
    assert timed.original.run_seconds is not None


def test_errors_of_a_function_of_yours_are_yours(original, streams):
    def fails(network):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate(original, streams, fails, **QUICK)


def test_numbers_that_cannot_be(original, streams):
    for options in ({"rounds": 0}, {"threads": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            evaluate(original, streams, **options)


def test_threads_are_those_that_are_asked_for(original, streams):
    before, seen = torch.get_num_threads(), []

    def threads(network):
        seen.append(torch.get_num_threads())
        return 0.0

    evaluate(original, streams, threads, threads=before + 1, **QUICK)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
