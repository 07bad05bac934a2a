"""Every kind of network goes through JSON and computes the same, bit for bit."""

import functools
import json
import zlib
from dataclasses import replace

import pytest
import torch
from networks import NETWORKS, Network, values
from torch import nn

from nnrcodec.graph.export import model_of_module, model_of_program
from nnrcodec.graph.guards import holds
from nnrcodec.graph.module import DecodedModel, build_module
from nnrcodec.graph.program import program_of_module
from nnrcodec.graph.text import from_json, to_json
from nnrcodec.model.model import Model


def through_json(model: Model) -> Model:
    text = json.dumps(to_json(model.graph), separators=(",", ":"), allow_nan=False)
    return replace(model, graph=from_json(json.loads(text)))


@functools.cache
def exported(network: Network) -> Model:
    return model_of_module(network.module(), (network.example(),))


def decoded(network: Network) -> DecodedModel:
    received = through_json(exported(network))
    assert received.graph == exported(network).graph
    return build_module(received)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
@torch.no_grad()
def test_outputs_are_identical_at_all_sizes(network):
    module, received = network.module(), decoded(network)
    for shape in (network.shape, *network.other_shapes):
        assert torch.equal(received(values(shape)), module(values(shape)))


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_state_dict_is_that_of_the_original(network):
    original, received = network.module().state_dict(), decoded(network).state_dict()
    assert list(received) == list(original)
    assert all(torch.equal(received[name], original[name]) for name in original)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
@torch.no_grad()
def test_decoded_network_exports_to_the_same_graph(network):
    received = decoded(network)
    graph = received._nnr_graph
    program = program_of_module(received)
    exported = model_of_program(program, is_own=True).graph
    assert replace(exported, guards=(), dims={}) == replace(graph, guards=(), dims={})
    assert exported.dims.keys() == graph.dims.keys()
    for name, dim in exported.dims.items():  # of 0 and 1 not all that was tried is known
        assert graph.dims[name] == replace(dim, low=max(dim.low, graph.dims[name].low))
        assert graph.dims[name].low in (0, 1, 2, dim.low)
    # an export finds out again which sizes its operators asked about, of all of them
    for step in range(-6, 12):
        near = {name: max(dim.example + step, 2) for name, dim in graph.dims.items()}
        if all(holds(guard, near) for guard in exported.guards):
            assert all(holds(guard, near) for guard in graph.guards)
    sizes = [graph.dims[s].example if isinstance(s, str) else s for s in graph.inputs[0].shape]
    assert torch.equal(program.module()(values(sizes)), network.module()(values(sizes)))


@torch.no_grad()
def test_channels_last_images_pass_through():
    network = NETWORKS[0]
    image = values((2, 1, 9, 11)).to(memory_format=torch.channels_last)
    assert torch.equal(decoded(network)(image), network.module()(image))


def chain(*, batch_norm: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in [(1, 64), *[(64, 64)] * 18]:
        layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
        layers.extend([nn.BatchNorm2d(outputs)] * batch_norm)
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Conv2d(64, 1, 3, padding=1))


@pytest.mark.parametrize(("batch_norm", "budget"), [(False, 400), (True, 750)])
def test_graph_of_twenty_layers_fits_the_budget(batch_norm, budget):
    model = model_of_module(chain(batch_norm=batch_norm), (values((1, 1, 16, 16)),))
    assert [type(size) for size in model.graph.inputs[0].shape] == [str, int, str, str]
    text = json.dumps(to_json(model.graph), separators=(",", ":"))
    base85_bytes = len(zlib.compress(text.encode(), 9)) * 1.25
    assert base85_bytes <= budget
