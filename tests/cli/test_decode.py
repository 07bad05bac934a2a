from pathlib import Path

import numpy as np
import pytest
import torch
from data_units import coded, header_of, stream_of, unit_of, update_of
from safetensors.torch import load_file

import nnrcodec
from nnrcodec.cli import decode

REFERENCE = Path(__file__).parents[2] / "conformance" / "reference"


def refuse_to_decode(*arguments, **options):
    raise AssertionError("this is noticed before the stream is decoded")


@pytest.mark.parametrize("ending", ["pt", "pth", "safetensors"])
def test_state_dicts_of_every_format(call, stream, tmp_path, ending):
    output = tmp_path / f"out.{ending}"
    result = call("nnr-decode", stream, "-o", output)
    assert (result.code, result.err) == (0, "")
    (line,) = result.out.splitlines()
    assert line.startswith(f"{output}: 9 tensors, 1,713 weights from ")
    loaded = load_file(output) if ending == "safetensors" else torch.load(output)
    expected = nnrcodec.decode(stream.read_bytes())
    assert loaded.keys() == expected.keys()
    assert all((loaded[name].numpy() == expected[name]).all() for name in expected)


def test_merge_gives_the_original_architecture(call, state, tmp_path):
    config = nnrcodec.EncoderConfig(low_rank=nnrcodec.LowRankConfig(ranks={"2": 4}))
    (tmp_path / "net.nnr").write_bytes(nnrcodec.encode(state, config=config))
    output = tmp_path / "out.safetensors"
    assert call("nnr-decode", tmp_path / "net.nnr", "-o", output).code == 0
    assert {"2.u.weight", "2.v.weight"} < load_file(output).keys()
    assert call("nnr-decode", tmp_path / "net.nnr", "-o", output, "--merge").code == 0
    merged = load_file(output)
    assert {name: value.shape for name, value in merged.items()} == {
        name: value.shape for name, value in state.items()
    }


def test_an_existing_model_is_replaced(call, stream, tmp_path):
    output = tmp_path / "out.pt"
    output.write_bytes(b"old")
    assert call("nnr-decode", stream, "-o", output).code == 0
    assert "0.weight" in torch.load(output)
    assert set(tmp_path.iterdir()) == {stream, output}


def test_usage_that_cannot_work_is_noticed_before_work(call, stream, tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "decode_all", refuse_to_decode)
    monkeypatch.setattr(decode, "UpdateDecoder", refuse_to_decode)
    twin = tmp_path / "twin.pt"
    twin.hardlink_to(stream)
    for arguments, hint in (
        (
            (stream, "-o", tmp_path / "net.tflite"),
            "endings .pt2, .pt, .pth, .ckpt, .bin, .safetensors",
        ),
        ((stream, "-o", tmp_path / "net"), "endings .pt2, .pt, .pth, .ckpt, .bin, .safetensors"),
        ((stream, "-o", tmp_path / "none/net.pt"), "there is no folder"),
        ((stream, "-o", twin), "is the input as well"),
        ((stream,), "the following arguments are required: -o/--output"),
        ((stream, stream, "-o", twin), "is the input as well"),
        (
            (stream, "-o", tmp_path / "net.pt", "--threads", "0"),
            "0 is not allowed, expected a whole number of at least 1",
        ),
        (
            (stream, "-o", tmp_path / "net.pt", "--max-bytes", "0"),
            "0 is not allowed, expected a whole number of at least 1",
        ),
        ((stream, "-o", tmp_path / "net.pt", "--max-bytes", "1G"), "1G is not allowed"),
        ((tmp_path / "none.nnr", "-o", tmp_path / "net.pt"), "No such file or directory"),
        ((tmp_path, "-o", tmp_path / "net.pt"), "is a folder, not a file"),
    ):
        result = call("nnr-decode", *arguments)
        assert (result.code, result.out) == (2, "")
        assert hint in result.err
    assert set(tmp_path.iterdir()) == {stream, twin}


def test_tensors_alone_make_no_network(call, stream, tmp_path):
    result = call("nnr-decode", stream, "-o", tmp_path / "net.pt2")
    assert result.code == 2
    assert "write a .safetensors or .pt file" in result.err
    assert list(tmp_path.iterdir()) == [stream]


def test_damaged_streams_exit_with_3_and_leave_the_old_model(call, stream, tmp_path):
    old = tmp_path / "net.pt"
    old.write_bytes(b"old")
    data = stream.read_bytes()
    changed = bytearray(data)
    changed[-10] ^= 0x10
    damaged = [data[:length] for length in (0, 1, 3, 50, len(data) // 2, len(data) - 1)]
    for content in (*damaged, bytes(changed), b"PK\x03\x04 a zip", bytes(100), data + b"\0"):
        stream.write_bytes(content)
        result = call("nnr-decode", stream, "-o", old)
        assert (result.code, result.out) == (3, "")
        assert len(result.err.splitlines()) == 1
        assert result.err.startswith(f"nnr-decode: error: {stream}: ")
        assert old.read_bytes() == b"old"
        assert set(tmp_path.iterdir()) == {stream, old}


def test_the_limit_of_decoded_bytes(call, stream, tmp_path):
    output = tmp_path / "net.pt"
    result = call("nnr-decode", stream, "-o", output, "--max-bytes", "1000")
    assert result.code == 3
    assert "--max-bytes" in result.err
    assert call("nnr-decode", stream, "-o", output, "--max-bytes", "1000000").code == 0


def test_the_help_says_what_a_stream_may_decode_to(call):
    limits = nnrcodec.Limits()
    words = " ".join(call("nnr-decode", "--help-all").out.split())
    free, per_byte = limits.free_decoded_bytes >> 20, round(limits.decoded_bytes_per_byte)
    assert f"[{free} MiB and {per_byte} bytes for each byte of the stream, 64 GiB at most]" in words


def test_a_record_can_be_required(call, stream, foreign, tmp_path):
    output = tmp_path / "net.pt"
    for streams in ((foreign,), (foreign, foreign)):
        result = call("nnr-decode", *streams, "-o", output, "--require-record")
        assert result.code == 3
        assert "there is no container record" in result.err
    assert not output.exists()
    assert call("nnr-decode", stream, "-o", output, "--require-record").code == 0


def test_a_stream_of_other_software(call, foreign, tmp_path):
    output = tmp_path / "net.safetensors"
    result = call("nnr-decode", foreign, "-o", output)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"{output}: 1 tensor, 12 weights from 76 bytes, no digests to co")
    assert load_file(output)["fc.weight"].tolist() == [[1.0] * 4] * 3


def test_a_stream_that_needs_what_there_is_not_exits_with_4(call, foreign, tmp_path):
    header = header_of("w", 2, 3, first_tensor_dimension_shift=1)
    foreign.write_bytes(stream_of(unit_of(header, b"abc")))
    result = call("nnr-decode", foreign, "-o", tmp_path / "net.pt")
    assert result.code == 4
    assert "first_tensor_dimension_shift" in result.err
    assert list(tmp_path.iterdir()) == [foreign]


def reference(name):
    return REFERENCE / f"{name}.nnc"


def outputs(name):
    with np.load(REFERENCE / f"{name}.npz") as arrays:
        return {key[5:]: arrays[key] for key in arrays if key.startswith("out__")}


def test_a_base_model_and_its_updates(call, tmp_path):
    names = [f"upd_tca_hdsp_{part}" for part in ("0_base", "1", "2", "3")]
    output = tmp_path / "net.safetensors"
    result = call("nnr-decode", *map(reference, names), "-o", output, "--threads", 2)
    assert (result.code, result.err) == (0, "")
    assert "from 1,281 bytes, a base model and 3 updates, " in result.out
    total = outputs(names[0])["w"]
    for name in names[1:]:
        total = total + outputs(name)["w"]
    assert (load_file(output)["w"].numpy() == total).all()


def test_updates_of_a_network_with_its_graph(call, models, tmp_path):
    base, update, output = tmp_path / "b.nnr", tmp_path / "u.nnc", tmp_path / "net.pt2"
    assert call("nnr-encode", models / "net.pt2", "-o", base).code == 0
    before = nnrcodec.decode(base.read_bytes())["0.weight"]
    ones = np.ones(before.shape, np.int32)
    unit = coded(update_of("0.weight", *ones.shape), {"0.weight": ones}, 0)
    update.write_bytes(stream_of(unit, update=1))
    assert call("nnr-decode", base, update, "-o", output).code == 0
    found = torch.export.load(output).state_dict["0.weight"]
    assert (found.detach().numpy() == before + np.float32(1)).all()


def test_an_update_alone_gives_differences_and_says_so(call, tmp_path):
    output = tmp_path / "net.safetensors"
    result = call("nnr-decode", reference("upd_tca_1"), "-o", output)
    assert result.code == 0
    assert "an update: these are differences to its base model, " in result.out
    assert (load_file(output)["w"].numpy() == outputs("upd_tca_1")["w"]).all()


def test_an_update_that_needs_others_says_so(call, tmp_path):
    base, first, second, third = (
        reference(f"upd_tca_{part}") for part in ("0_base", "1", "2", "3")
    )
    for streams, wrong, hint in (
        ((second,), second, "'w' builds on earlier updates, which were not decoded here"),
        ((base, second), second, "'w' builds on earlier updates, which were not decoded here"),
        ((base, first, third), third, "an update is missing, or not in its place"),
        ((first, second), first, "a base model, which has to be decoded first"),
    ):
        result = call("nnr-decode", *streams, "-o", tmp_path / "net.pt")
        assert result.code == 3
        assert result.err.startswith(f"nnr-decode: error: {wrong}: ")
        assert hint in result.err
    assert not list(tmp_path.iterdir())


def test_there_is_one_base_model(call, stream, tmp_path):
    base, first = reference("upd_tca_0_base"), reference("upd_tca_1")
    result = call("nnr-decode", base, first, base, "-o", tmp_path / "net.pt")
    assert result.code == 2
    assert f"{base} is a base model, not an update" in result.err


def test_a_failure_while_writing_leaves_the_old_model(call, tmp_path):
    stream, old = tmp_path / "net.nnr", tmp_path / "net.safetensors"
    stream.write_bytes(nnrcodec.encode({"__metadata__": torch.ones(3)}))
    old.write_bytes(b"old")
    result = call("nnr-decode", stream, "-o", old)
    assert result.code == 1
    assert "__metadata__" in result.err
    assert old.read_bytes() == b"old"
    assert set(tmp_path.iterdir()) == {stream, old}


def test_a_model_file_is_no_stream(call, models, tmp_path):
    result = call("nnr-decode", models / "net.pt", "-o", tmp_path / "net.pt")
    assert result.code == 3
    assert result.err.endswith("by its name it is a model file, not a stream\n")


def test_an_update_of_bit_patterns_alone_is_refused(call, tmp_path):
    state = {"w": np.arange(40, dtype=np.float32)}
    lossless = nnrcodec.EncoderConfig(lossless=True)
    update = nnrcodec.UpdateEncoder(state, config=lossless).encode({"w": state["w"] + 1})
    (tmp_path / "u.nnc").write_bytes(update)
    result = call("nnr-decode", tmp_path / "u.nnc", "-o", tmp_path / "out.pt")
    assert result.code == 2
    assert "give the base model, then its updates" in result.err
    assert not (tmp_path / "out.pt").exists()
