from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nnrcodec.config import EncoderConfig
from nnrcodec.encoder.pipeline import encode_model
from nnrcodec.errors import ConfigError
from nnrcodec.evaluate import evaluate, memory
from nnrcodec.evaluate.memory import decoding_memory, peak_is_available, running_memory
from nnrcodec.graph.export import model_of_module
from nnrcodec.model.model import Model, Tensor

needs_peak = pytest.mark.skipif(not peak_is_available(), reason="the system does not tell")


@needs_peak
def test_decoding_takes_the_memory_of_the_tensors_and_not_much_more():
    weight = np.random.default_rng(0).integers(-1, 2, (1500, 1000)).astype(np.float32)
    model = Model.of([Tensor.of("w", weight)])
    stream = encode_model(model, EncoderConfig(entropy="ans")).data
    growth = decoding_memory(stream, 1)
    assert weight.nbytes <= growth < 12 * weight.nbytes


@needs_peak
def test_running_takes_the_memory_of_tensors_and_of_what_lies_between():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(16, 1, 1, 1))
            self.unused = nn.Parameter(torch.rand(2_000_000))

        def forward(self, picture):
            return (picture * self.weight[:, 0]).sum(1) + self.unused[:1]

    model = model_of_module(Wide(), (torch.rand(1, 1, 700, 500),))
    picture = torch.rand(1, 1, 700, 500)
    between, tensors = 16 * picture.nbytes, 8_000_000
    assert between + tensors <= running_memory(model, (picture,), 1) < 4 * (between + tensors)


@needs_peak
def test_a_process_that_fails_says_why(original):
    with pytest.raises(ConfigError, match=r"measuring memory failed.*does not run on an input"):
        running_memory(original, (torch.rand(3, 3),), 1)


def test_a_process_that_is_killed_is_reported(monkeypatch, original):
    class Killed:
        returncode, stderr = -9, ""

    monkeypatch.setattr(memory, "peak_is_available", lambda: True)
    monkeypatch.setattr(memory.subprocess, "run", lambda *given, **options: Killed)
    with pytest.raises(ConfigError, match="exit code -9"):
        running_memory(original, (torch.rand(1, 1, 8, 8),), 1)


def test_where_the_system_does_not_tell_memory_is_left_out(monkeypatch, original, streams):
    monkeypatch.setattr(memory, "_STATUS", Path("/nowhere/status"))
    assert not peak_is_available()
    assert decoding_memory(streams["plain"], 1) is None
    assert running_memory(original, (torch.rand(1, 1, 8, 8),), 1) is None
    evaluation = evaluate(original, streams, rounds=1, encode_time=False)
    assert {n.run_memory for n in evaluation.networks} == {
        n.decode_memory for n in evaluation.networks
    }
    assert evaluation.original.run_memory is None
    assert any("memory was not measured" in note for note in evaluation.notes)
    assert evaluation.original.run_seconds is not None
