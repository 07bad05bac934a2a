"""The installed commands on a whole network, from one .pt2 file to another."""

import pytest
import torch


@pytest.fixture(scope="module")
def arguments(example):
    return torch.export.load(example).example_inputs[0]


def test_a_network_comes_back_and_runs(launch, call, example, arguments, tmp_path):
    stream, output = tmp_path / "net.nnr", tmp_path / "net.pt2"
    result = launch("nnr-encode", example, "-o", stream)
    assert (result.code, result.err) == (0, "")
    (line,) = result.out.splitlines()
    assert line.startswith(f"{stream}: ")
    assert stream.stat().st_size < example.stat().st_size / 2
    assert "a network with its graph" in call("nnr-info", stream).out

    result = launch("nnr-decode", stream, "-o", output)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"{output}: ")
    with torch.no_grad():
        decoded = torch.export.load(output).module()(*arguments)
        original = torch.export.load(example).module()(*arguments)
    assert decoded.shape == original.shape
    assert (decoded - original).abs().max() < 0.5 * original.abs().max()
    assert set(tmp_path.iterdir()) == {stream, output}


def test_low_rank_layers_can_be_merged(call, models, tmp_path):
    stream, output = tmp_path / "net.nnr", tmp_path / "net.pt2"
    result = call("nnr-encode", models / "net.pt2", "-o", stream, "--rank-ratio", "0.9")
    assert (result.code, result.err) == (0, "")
    assert "8x8x3x3" in result.out
    outputs = {}
    for options in ((), ("--merge",)):
        result = call("nnr-decode", stream, "-o", output, *options)
        assert (result.code, result.err) == (0, "")
        program = torch.export.load(output)
        outputs[options] = program.module()(torch.ones(1, 1, 12, 10))
        assert ("2.u.weight" in program.state_dict) == (options == ())
        assert ("2.weight" in program.state_dict) == (options == ("--merge",))
    torch.testing.assert_close(outputs[()], outputs[("--merge",)], rtol=1e-4, atol=1e-5)
