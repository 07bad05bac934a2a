import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import nnrcodec

REFERENCE = Path(__file__).parents[2] / "conformance" / "reference"


@pytest.fixture
def low_rank(state, tmp_path):
    factors = nnrcodec.LowRankConfig(ranks={"2": 4})
    config = nnrcodec.EncoderConfig(entropy="ans", low_rank=factors)
    path = tmp_path / "low.nnr"
    path.write_bytes(nnrcodec.encode(state, config=config))
    return path


def test_tables_and_summary(call, low_rank):
    info = nnrcodec.inspect(low_rank.read_bytes())
    result = call("nnr-info", low_rank)
    assert (result.code, result.err) == (0, "")
    units, tensors, (summary,) = (part.splitlines() for part in result.out.split("\n\n"))

    assert units[0].split() == ["bytes", "of", "all", "units", "type"]
    by_type = {line.split()[-1]: line.split() for line in units[1:]}
    assert by_type.keys() == {"NNR_STR", "NNR_MPS", "NNR_TPL", "NNR_XDU"}
    assert by_type["NNR_XDU"][-2] == "10"
    sizes = (int(line[0].replace(",", "")) for line in by_type.values())
    assert sum(sizes) == info.stream_bytes

    assert len(tensors) == 11
    position = tensors[0].index("tensor")
    for line, tensor in zip(tensors[1:], info.tensors, strict=True):
        (name,) = tensor.names
        assert line[position:] == name
        assert line.split()[0] == str(tensor.unit_bytes)
        assert line.split()[1] == f"{tensor.bits_per_weight:.2f}"
        assert line.split()[2] == tensor.coder
        assert line.split()[3] == (tensor.coding or "-")
        assert line.split()[4] == ("-" if tensor.qp is None else str(tensor.qp))
        is_factor = name.startswith("2.") and tensor.rank
        assert line.split()[6:8] == (["separable", "4"] if is_factor else ["-", "-"])
        assert line.split()[9] == "x".join(map(str, tensor.shape))

    assert summary.startswith(f"{low_rank}: {info.stream_bytes:,} bytes, 10 tensors, ")
    for part in (" weights, ", "bits per weight", "qp density 2", "tensors only"):
        assert part in summary
    assert summary.endswith(f"written by {info.writer}")


def test_json_agrees_with_inspect(call, low_rank):
    data = low_rank.read_bytes()
    result = call("nnr-info", low_rank, "--json")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    info = nnrcodec.inspect(data)

    assert found.pop("file") == str(low_rank)
    weights = sum(int(np.prod(tensor.shape)) for tensor in info.tensors)
    assert found.pop("weights") == weights
    assert found.pop("bits_per_weight") == 8 * len(data) / weights
    for tensor, expected in zip(found["tensors"], info.tensors, strict=True):
        assert tensor.pop("bits_per_weight") == expected.bits_per_weight
    assert info.measured is not None
    assert found.pop("measured") == asdict(info.measured) | {"on": info.measured.on.name.lower()}
    expected = asdict(info)
    del expected["measured"]
    assert found == json.loads(json.dumps(expected))


def test_the_keys_of_json_are_those_of_the_help(call, low_rank):
    text = call("nnr-info", "--help-all").out
    found = json.loads(call("nnr-info", low_rank, "--json").out)
    for key in (*found, *found["units"][0], *found["tensors"][0]):
        assert key in text


@pytest.mark.parametrize("kind", ["stream", "foreign"])
def test_a_trace_covers_every_bit(call, kind, request):
    path = request.getfixturevalue(kind)
    result = call("nnr-info", path, "--trace")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    position = 0
    for line in lines:
        bit, bits = map(int, line.split()[:2])
        assert bit == position
        position += bits
    assert position == 8 * path.stat().st_size
    assert "unit[1] NNR_MPS/topology_carriage_flag" in result.out

    events = [
        json.loads(line)
        for line in call("nnr-info", path, "--trace", "--json").out.split("\n")[:-1]
    ]
    assert len(events) == len(lines)
    for event, line in zip(events, lines, strict=True):
        assert [str(event["bit"]), str(event["bits"])] == line.split()[:2]
        assert event["path"] in line


def test_a_trace_goes_as_far_as_the_stream_is_sound(call, stream):
    stream.write_bytes(stream.read_bytes()[:-1])
    result = call("nnr-info", stream, "--trace")
    assert result.code == 3
    assert "NNR_MPS/mps_qp_density" in result.out
    assert "the unit declares" in result.err


def test_a_stream_of_other_software(call, foreign):
    result = call("nnr-info", foreign)
    assert (result.code, result.err) == (0, "")
    tensor, summary = (part.splitlines()[-1] for part in result.out.split("\n\n")[1:])
    assert tensor.split() == ["66", "44.00", "raw", *"-----", "float32", "3x4", "fc.weight"]
    assert "1 tensor, 12 weights, " in summary
    assert summary.endswith("tensors only, writer not known")
    found = json.loads(call("nnr-info", foreign, "--json").out)
    assert found["writer"] is found["qp_density"] is found["tensors"][0]["qp"] is None
    assert found["tensors"][0]["dtype"] == "float32"
    assert found["record_bytes"] == 0
    assert found["has_graph"] is False


def test_a_block(call):
    result = call("nnr-info", REFERENCE / "p1_block_w_bi.nnc")
    tensor, summary = (part.splitlines()[-1] for part in result.out.split("\n\n")[1:])
    assert tensor.split()[2:4] == ["cabac", "dependent"]
    assert "12x4x3x3, 12" in tensor
    assert tensor.endswith("conv.weight, conv.bias")
    assert "2 tensors, 444 weights, " in summary
    found = json.loads(call("nnr-info", REFERENCE / "p1_block_w_bi.nnc", "--json").out)
    assert found["tensors"][0]["shapes"] == [[12, 4, 3, 3], [12]]
    assert found["weights"] == 444


def test_an_update(call):
    result = call("nnr-info", REFERENCE / "upd_tca_2.nnc")
    assert "an update: differences to a base model, writer not known" in result.out
    rows = [line.split() for line in result.out.split("\n\n")[1].splitlines()[1:]]
    assert [row[2:6] for row in rows] == [
        ["cabac", "dependent", "-24", "0.01562"],
        ["cabac", "dependent", "-40", "0.0009766"],
    ]


def test_hundreds_of_tensors_stay_aligned(call, tmp_path):
    shapes = [(3, 3), (5,), (1000, 1), ()]
    state = {
        f"block{i}.{'deeply.' * (i % 9)}weight": np.ones(shapes[i % 4], np.float32)
        for i in range(120)
    }
    path = tmp_path / "net.nnr"
    path.write_bytes(nnrcodec.encode(state))
    lines = call("nnr-info", path).out.split("\n\n")[1].splitlines()
    position = lines[0].index("tensor")
    assert [line[position:] for line in lines[1:]] == list(state)
    assert {line[position - 1] for line in lines} == {" "}
    assert "scalar" in lines[4]


def test_names_do_nothing_to_the_terminal(call, launch, tmp_path):
    path = tmp_path / "net.nnr"
    path.write_bytes(nnrcodec.encode({"\x1b[2Jnaïve ☃": torch.ones(3)}))
    for options in ((), ("--json",), ("--trace",), ("--trace", "--json")):
        assert "\x1b" not in call("nnr-info", path, *options).out
    assert r"\x1b[2Jnaïve ☃" in call("nnr-info", path).out
    result = launch("nnr-info", path, env={"PYTHONIOENCODING": "ascii"})
    assert result.code == 0
    assert r"\x1b[2Jna\xefve \u2603" in result.out


def test_damaged_or_missing_streams(call, stream):
    data = stream.read_bytes()
    for content in (b"", data[:1], data[:-1], bytes(100), b"\xff" * 100):
        stream.write_bytes(content)
        result = call("nnr-info", stream)
        assert (result.code, result.out) == (3, "")
        assert result.err.startswith(f"nnr-info: error: {stream}: ")
    stream.unlink()
    assert call("nnr-info", stream).code == 2


def test_a_newer_version_exits_with_4(call, stream):
    data = stream.read_bytes()
    changed, count = re.subn(rb"nnrcodec \d+\.\d+ ", b"nnrcodec 9.0 ", data)
    assert count == 1
    stream.write_bytes(changed)
    assert call("nnr-info", stream).code == 4


def test_a_reader_that_stops_early(tmp_path):
    path = tmp_path / "net.nnr"
    path.write_bytes(nnrcodec.encode({f"{i}.weight": torch.ones(3) for i in range(2000)}))
    command = [Path(sys.executable).with_name("nnr-info"), path, "--trace"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"        0     1  unit[0]/")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("more", [[], ["--json"], ["--trace"]])
def test_a_record_can_be_required(call, low_rank, foreign, more):
    assert call("nnr-info", low_rank, "--require-record", *more).code == 0
    result = call("nnr-info", foreign, "--require-record", *more)
    assert result.code == 3
    assert "there is no container record" in result.err


def test_formats_are_listed_without_a_stream(call):
    result = call("nnr-info", "--formats")
    assert (result.code, result.err) == (0, "")
    kinds = result.out.splitlines()
    assert any(line.startswith("yes   .safetensors ") for line in kinds)
    assert any(line.startswith("no    no ") and "GGUF" in line for line in kinds)
    listed = json.loads(call("nnr-info", "--formats", "--json").out)
    assert {kind["name"] for kind in listed if not kind["is_read"]} >= {"a TFLite model"}
