import json
import logging
import os
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks import NETWORKS
from PIL import Image

import nnrcodec
from nnrcodec.cli import encode
from nnrcodec.entropy.cabac.config import CabacConfig


@pytest.mark.parametrize("ending", ["pt", "pth", "safetensors"])
def test_state_dicts_of_every_format(call, models, state, tmp_path, ending):
    result = call("nnr-encode", models / f"net.{ending}", "-o", tmp_path / "net.nnr")
    assert (result.code, result.err) == (0, "")
    decoded = nnrcodec.decode((tmp_path / "net.nnr").read_bytes())
    assert {name: value.shape for name, value in decoded.items()} == {
        name: tuple(value.shape) for name, value in state.items()
    }


def test_defaults_write_one_line_and_a_stream_beside_the_model(call, state, tmp_path):
    torch.save(state, tmp_path / "net.v2.pt")
    result = call("nnr-encode", tmp_path / "net.v2.pt")
    assert result.code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"net.v2.pt", "net.v2.nnr"}
    assert (tmp_path / "net.v2.nnr").read_bytes() == nnrcodec.encode(state)
    (line,) = result.out.splitlines()
    assert line.startswith(f"{tmp_path / 'net.v2.nnr'}: 6,852 -> ")
    assert " %), " in line
    assert " bits per weight, " in line


def test_quantization_options(call, models, state, tmp_path):
    options = ["--qp", "-10", "--nonweight-qp", "-30", "--qp-density", "3"]
    result = call("nnr-encode", models / "net.pt", "-o", tmp_path / "net.nnr", *options)
    assert result.code == 0
    quantization = nnrcodec.UniformConfig(qp=-10, nonweight_qp=-30, qp_density=3)
    config = nnrcodec.EncoderConfig(quantization=quantization)
    assert (tmp_path / "net.nnr").read_bytes() == nnrcodec.encode(state, config=config)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (["--profile", "nnc"], {"profile": "nnc"}),
        (["--entropy", "cabac", "--no-dq"], {"entropy": "cabac", "dq": False}),
        (["--entropy", "ans"], {"entropy": "ans"}),
        (["--dq", "--lambda", "0.05"], {"lambda_": 0.05}),
        (["--codebook", "--threads", "2"], {"codebook": True}),
        (
            ["--scan-order", "1", "--unary-length", "3", "--no-row-skipping"],
            {"cabac": CabacConfig(scan_order=1, cabac_unary_length=3, row_skipping=False)},
        ),
    ],
)
def test_coding_options(call, models, state, tmp_path, options, arguments):
    result = call("nnr-encode", models / "net.pt", "-o", tmp_path / "net.nnr", *options)
    assert (result.code, result.err) == (0, "")
    config = nnrcodec.EncoderConfig(**arguments)
    assert (tmp_path / "net.nnr").read_bytes() == nnrcodec.encode(state, config=config)


def test_the_summary_says_which_coder_took_how_many_tensors(call, models, state, tmp_path):
    result = call("nnr-encode", models / "net.pt", "-o", tmp_path / "net.nnr", "--profile", "nnc")
    assert f"s; tensors: {len(state)} DeepCABAC; output not measured, weights off by" in result.out
    result = call("nnr-encode", models / "net.pt", "-o", tmp_path / "net.nnr", "--entropy", "ans")
    assert " rANS" in result.out


def test_updates_one_after_the_other(call, state, tmp_path):
    base, first, second = (tmp_path / name for name in ("base.nnr", "1.nnr", "2.nnr"))
    decoder = nnrcodec.UpdateDecoder()
    for number, (output, options) in enumerate(
        [
            (base, []),
            (first, ["--base", base]),
            (second, ["--base", base, "--base", first]),
        ]
    ):
        now = {name: value + 0.01 * number for name, value in state.items()}
        torch.save(now, tmp_path / "net.pt")
        result = call("nnr-encode", tmp_path / "net.pt", "-o", output, *options)
        assert (result.code, result.err) == (0, "")
        decoder.decode(output.read_bytes())
        for name, value in now.items():
            assert abs(decoder.state[name] - value.numpy()).max() < 0.1
        (line,) = result.out.splitlines()
        assert line.startswith(f"{output}: update of " if number else f"{output}: 6,852 -> ")


def test_bases_that_cannot_be_exit_with_2(call, models, tmp_path):
    base, output = tmp_path / "base.nnr", tmp_path / "1.nnr"
    assert call("nnr-encode", models / "net.pt", "-o", base).code == 0
    content = base.read_bytes()
    (tmp_path / "cut.nnr").write_bytes(content[:500])
    for options, hint in (
        (["--base", tmp_path / "none.nnr"], "cannot read"),
        (["--base", tmp_path / "cut.nnr"], "the streams of --base do not decode"),
        (["--base", base, "--base", base], "stream 2 of those to build on is no update"),
        (["--base", base, "--energy", "0.9"], "are for the base model only"),
        (["--base", base, "-o", base], "is the input as well"),
    ):
        result = call("nnr-encode", models / "net.pt", "-o", output, *options)
        assert result.code == 2
        assert hint in result.err
        assert base.read_bytes() == content
        assert not output.exists()


def test_differences_and_streams_without_a_record(call, models, tmp_path):
    torch.save({"w": torch.zeros(40, 30)}, tmp_path / "old.pt")
    torch.save({"w": torch.ones(40, 30)}, tmp_path / "new.pt")
    stream, output = tmp_path / "d.nnc", tmp_path / "sum.pt"
    for options, message in (
        (["--difference"], "give --base, too"),
        (["--no-record"], "use profile 'nnc', too"),
        (["--difference", "--base", tmp_path / "old.pt", "--lossless"], "omit one of the two"),
    ):
        result = call("nnr-encode", tmp_path / "new.pt", "-o", stream, *options)
        assert result.code == 2
        assert message in result.err
        assert not stream.exists()
    options = ["--base", tmp_path / "old.pt", "--difference", "-o", stream]
    assert call("nnr-encode", tmp_path / "new.pt", *options).code == 0
    result = call("nnr-decode", tmp_path / "old.pt", stream, "-o", output)
    assert result.code == 0
    assert "its tensors are taken for differences" in result.err
    assert abs(torch.load(output)["w"] - 1).max() < 0.02
    result = call("nnr-decode", stream, "-o", output)
    assert (result.code, result.err) == (0, "")


def test_a_stream_is_no_model_file(call, models, tmp_path):
    stream = tmp_path / "net.nnr"
    assert call("nnr-encode", models / "net.pt", "-o", stream).code == 0
    content = stream.read_bytes()
    for options in ([], ["-o", tmp_path / "other.nnr"]):
        result = call("nnr-encode", stream, *options)
        assert (result.code, result.err) == (
            1,
            f"nnr-encode: error: {stream} is an NNR stream: nnr-decode reads it, nnr-info shows "
            "what is in it\n",
        )
    assert stream.read_bytes() == content


def test_batch_norms_are_folded_on_request_and_reported(call, tmp_path):
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.ReLU()
    ).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(1, 2, 8, 8),)), tmp_path / "n.pt2")
    result = call("nnr-encode", tmp_path / "n.pt2", "--fold-batch-norm")
    assert (result.code, result.err) == (0, "")
    headings, layer, _ = result.out.splitlines()
    assert headings.split() == ["layer", "batch", "norm"]
    assert layer.split() == ["0", "folded"]
    decoded = nnrcodec.decode((tmp_path / "n.nnr").read_bytes())
    assert not any("running" in name for name in decoded)


def test_energy_and_rank_ratio(call, models, state, tmp_path):
    for option, config in (
        ("--energy", nnrcodec.LowRankConfig(energy=0.6)),
        ("--rank-ratio", nnrcodec.LowRankConfig(rank_ratio=0.6)),
    ):
        result = call("nnr-encode", models / "net.pt", "-o", tmp_path / "net.nnr", option, "0.6")
        assert result.code == 0
        expected = nnrcodec.encode(state, config=nnrcodec.EncoderConfig(low_rank=config))
        assert (tmp_path / "net.nnr").read_bytes() == expected


def test_ranks_are_reported_layer_by_layer_and_aligned(call, models, tmp_path):
    result = call("nnr-encode", models / "net.pt", "-o", tmp_path / "n.nnr", "--rank", "2=3,4=12")
    assert result.code == 0
    headings, *layers, summary = result.out.splitlines()
    assert headings.split() == ["layer", "shape", "scheme", "rank", "energy", "weights", "now"]
    assert [layer.split()[0] for layer in layers] == ["0", "2", "4", "6"]
    assert layers[1].split()[1:4] == ["8x8x3x3", "separable", "3"]
    assert layers[1].split()[-2:] == ["576", "144"]
    assert layers[3].endswith("left as it is: it is given no rank")
    assert len({layer.index("x3") for layer in layers[:2]}) == 1
    assert layers[1].index(" 3 ") == layers[2].index("12 ")
    assert summary.startswith(f"{tmp_path / 'n.nnr'}: ")


def test_an_existing_stream_is_replaced(call, models, tmp_path):
    output = tmp_path / "net.nnr"
    output.write_bytes(b"old")
    assert call("nnr-encode", models / "net.pt", "-o", output).code == 0
    assert output.read_bytes() != b"old"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--energy", "1.5"], "energy must be above 0 and at most 1"),
        (["--energy", "0.9", "--rank-ratio", "0.5"], "not allowed with"),
        (["--rank", "2=three"], "layer=rank"),
        (["--rank", "22=3"], "there is no layer '22'"),
        (["--rank", "2=1000"], "at most rank"),
        (["--qp", "100000"], "allowed are"),
        (["--qp", "high"], "invalid int value"),
        (["--qp-density", "8"], "allowed are 0 to 7"),
        (["--quality", "3"], "unrecognized arguments"),
        (["--profile", "nnc", "--entropy", "ans"], "has no rANS"),
        (["--no-dq", "--lambda", "1"], "which is off"),
        (["--scan-order", "5"], "allowed are 0 to 4"),
        (["--threads", "0"], "at least 1"),
        (["--threads", "two"], "two is not allowed, expected a whole number of at least 1"),
        (["--calib-count", "-3"], "-3 is not allowed, expected a whole number of at least 1"),
        (["--seed", "-1"], "-1 is not allowed, expected a whole number of at least 0"),
        (["--target-bytes", "1.5"], "1.5 is not allowed"),
        (["--qp", "-20.5"], "invalid int value"),
        (["--distill", "nan", "--low-rank", "auto"], "cannot take nan"),
        (["--quiet", "--verbose"], "not allowed with"),
        (["--json", "-o", "/dev/stdout"], "the stream cannot go there, too"),
        (["--nonw", "3"], "unrecognized arguments"),
    ],
)
def test_options_that_cannot_work_exit_with_2(call, models, tmp_path, options, hint):
    result = call("nnr-encode", models / "net.pt", "-o", tmp_path / "net.nnr", *options)
    assert (result.code, result.out) == (2, "")
    assert hint in result.err
    assert list(tmp_path.iterdir()) == []


def refuse_to_load(path):
    raise AssertionError("this is noticed before the model is read")


def test_an_output_that_cannot_be_is_noticed_before_work(call, models, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "load", refuse_to_load)
    torch.save({}, tmp_path / "net.pt")
    (tmp_path / "net.nnr").hardlink_to(tmp_path / "net.pt")
    for output, hint in (
        (tmp_path, "it is a folder"),
        (tmp_path / "none/net.nnr", "there is no folder"),
        (tmp_path / "net.nnr", "is the input as well"),
        (tmp_path / "other.pt2", "writes a stream: give it another ending, such as other.nnr"),
        (tmp_path / f"{300 * 'n'}.nnr", "File name too long"),
    ):
        result = call("nnr-encode", tmp_path / "net.pt", "-o", output)
        assert result.code == 2
        assert hint in result.err
    monkeypatch.setattr("os.access", lambda path, mode: False)
    result = call("nnr-encode", tmp_path / "net.pt", "-o", tmp_path / "new.nnr")
    assert result.code == 2
    assert "write-protected" in result.err


@pytest.mark.parametrize("name", ["net.onnx", "net.tflite", "net.pt", "net"])
def test_what_is_no_model_exits_with_1_and_is_named(call, tmp_path, name):
    (tmp_path / name).write_bytes(b"content")
    result = call("nnr-encode", tmp_path / name)
    assert result.code == 1
    assert "nnr-info --formats lists what is read" in result.err
    assert (tmp_path / name).read_bytes() == b"content"


def test_a_missing_model_exits_with_2(call, tmp_path):
    result = call("nnr-encode", tmp_path / "net.pt")
    assert result.code == 2
    assert f"cannot read {tmp_path / 'net.pt'}: No such file" in result.err
    (tmp_path / "net.nnr").write_bytes(b"old")
    assert call("nnr-encode", tmp_path / "net.pt").code == 2
    assert (tmp_path / "net.nnr").read_bytes() == b"old"


@pytest.mark.parametrize("ending", ["pt2", "pt", "safetensors"])
def test_a_damaged_model_exits_with_1_and_leaves_the_old_stream(call, models, tmp_path, ending):
    model, old = tmp_path / f"net.{ending}", tmp_path / "net.nnr"
    model.write_bytes((models / f"net.{ending}").read_bytes()[:1000])
    old.write_bytes(b"old")
    result = call("nnr-encode", model)
    assert result.code == 1
    assert len(result.err.splitlines()) == 1
    assert f"{model} is {'damaged' if ending == 'safetensors' else 'a truncated zip'}" in result.err
    assert old.read_bytes() == b"old"
    assert set(tmp_path.iterdir()) == {model, old}


def test_a_tensor_that_cannot_be_coded_is_left_out_by_name(call, tmp_path):
    torch.save({"phase": torch.eye(3).to_sparse(), "w": torch.ones(3)}, tmp_path / "net.pt")
    result = call("nnr-encode", tmp_path / "net.pt")
    assert result.code == 0
    assert "left out: 'phase'" in result.err


def test_a_stream_goes_to_a_pipe_and_messages_beside_it(call, models, state, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as executor:
        received = executor.submit(pipe.read_bytes)
        result = call("nnr-encode", models / "net.pt", "-o", pipe)
        assert received.result(60) == nnrcodec.encode(state)
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith(f"{pipe}: 6,852 -> ")


@pytest.fixture(scope="session")
def calib(models):
    """Return a file of calibration inputs for the small network."""
    path = models / "inputs.npy"
    (network,) = (network for network in NETWORKS if network.name == "plain_cnn")
    shape = (6 * network.shape[0], *network.shape[1:])
    np.save(path, np.random.default_rng(0).random(shape, np.float32))
    return path


def test_calibration_inputs_make_other_levels_and_are_the_same_every_time(
    call, models, calib, tmp_path
):
    streams = []
    for options in ([], ["--calib", "synthetic"], *2 * [["--calib", calib]], ["--calib", "none"]):
        result = call("nnr-encode", models / "net.pt2", "-o", tmp_path / "net.nnr", *options)
        assert (result.code, result.err) == (0, "")
        streams.append((tmp_path / "net.nnr").read_bytes())
    default, made_up, first, second, without = streams
    assert default == made_up
    assert first == second
    assert len({made_up, first, without}) == 3


def but_little_won_back(text):
    """Return what is on stderr but that so short a distillation wins back little."""
    return "".join(x for x in text.splitlines() if "distillation has won back only" not in x)


def test_ranks_for_a_part_of_the_multiply_adds_are_reported(call, models, calib, tmp_path):
    result = call(
        "nnr-encode",
        *(models / "net.pt2", "-o", tmp_path / "net.nnr", "--calib", calib),
        *("--target-macs", "60%", "--distill", "0.02", "--seed", "3"),
    )
    assert (result.code, but_little_won_back(result.err)) == (0, "")
    assert "separable" in result.out or "channel" in result.out
    assert "distillation: " in result.out
    decoded = nnrcodec.decode_model((tmp_path / "net.nnr").read_bytes())
    (network,) = (network for network in NETWORKS if network.name == "plain_cnn")
    assert decoded(network.example()).shape == network.shape


def test_a_loss_is_kept_to_and_its_trials_are_shown(call, models, calib, tmp_path):
    result = call(
        "nnr-encode",
        *(models / "net.pt2", "-o", tmp_path / "net.nnr", "--calib", calib, "--max-loss", "2%"),
    )
    assert (result.code, result.err) == (0, "")
    (taken,) = (line for line in result.out.splitlines() if line.endswith("taken"))
    assert float(taken.split()[3]) <= 2
    assert taken.split()[4] == "%"


def test_the_accuracy_of_a_classifier_limits_its_loss(call, tmp_path):
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 6, 3)]
    module = torch.nn.Sequential(*layers).eval()
    images = torch.rand(16, 3, 8, 8)
    program = torch.export.export(module, (images,))
    torch.export.save(program, tmp_path / "net.pt2")
    labels = module(images).argmax(1).numpy()
    np.savez(tmp_path / "test.npz", images=images.numpy(), labels=labels)
    np.savez(tmp_path / "calib.npz", images=images.numpy())
    result = call(
        "nnr-encode",
        *(tmp_path / "net.pt2", "--calib", tmp_path / "calib.npz", "--max-loss", "7%"),
        *("--task", "accuracy", "--data", tmp_path / "test.npz"),
    )
    assert (result.code, result.err) == (0, "")
    assert "taken" in result.out


def test_bytes_of_a_state_dict_keep_to_a_target(call, models, tmp_path):
    options = ["--target-bytes", "2000"]
    result = call("nnr-encode", models / "net.pt", "-o", tmp_path / "net.nnr", *options)
    assert (result.code, result.err) == (0, "")
    assert (tmp_path / "net.nnr").stat().st_size <= 2000


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("net.pt", ["--calib", "synthetic"], "need a network that runs"),
        ("net.pt", ["--max-loss", "1%"], "has no graph"),
        ("net.pt2", ["--max-loss", "much"], "expected a number with a unit"),
        ("net.pt2", ["--max-loss", "nandB"], "max_loss is nan"),
        ("net.pt2", ["--max-loss", "0.5"], "has no unit: give 0.5dB (of PSNR) or 0.5% (of the"),
        ("net.pt", ["--max-loss", "0.5", "--calib", "none"], "has no unit"),
        ("net.pt2", ["--max-loss", "1%", "--target-bytes", "9"], "not allowed with"),
        ("net.pt2", ["--max-loss", "1%", "--qp", "-20"], "give no qp"),
        ("net.pt2", ["--calib", "missing"], "there are no calibration inputs"),
        (
            "net.pt2",
            ["--calib", "none", "--low-rank", "auto", "--distill", "1"],
            "need calibration inputs",
        ),
        ("net.pt2", ["--task", "psnr", "--data", "."], "give --max-loss, too"),
        ("net.pt2", ["--max-loss", "1%", "--task", "psnr"], "go together"),
        (
            "net.pt2",
            ["--max-loss", "1%", "--task", "psnr", "--data", "."],
            "the loss of --task psnr is in dB",
        ),
        ("net.pt2", ["--target-macs", "1%"], "low rank can bring multiply-adds down to"),
        (
            "net.pt2",
            ["--target-macs", "fast"],
            "fast is not allowed, expected a part such as 0.4 or 40%",
        ),
        ("net.pt2", ["--distill", "0"], "cannot take 0.0 minutes"),
        ("net.pt2", ["--distill", "1"], "for networks of low rank"),
        ("net.pt2", ["--base", "missing", "--calib", "x"], "is for the base model"),
        ("net.pt2", ["--base", "missing", "--target-bytes", "9"], "missing"),
        ("net.pt2", ["--optimise", "both"], "give --low-rank or --rank-ratio"),
    ],
)
def test_targets_and_inputs_that_do_not_fit_are_refused(
    call, models, tmp_path, monkeypatch, file, options, message
):
    monkeypatch.chdir(tmp_path)
    result = call("nnr-encode", models / file, "-o", tmp_path / "net.nnr", *options)
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "net.nnr").exists()


def finite(text):
    """Return an object of strict JSON."""
    return json.loads(text, parse_constant=pytest.fail)


def test_json_has_what_the_lines_say(call, models, calib, tmp_path):
    output = tmp_path / "net.nnr"
    arguments = (models / "net.pt2", "-o", output, "--calib", calib, "--rank", "2=3,4=12")
    options = ("--max-loss", "30%", "--distill", "0.02", "--threads", "1", "--json")
    result = call("nnr-encode", *arguments, *options)
    assert (result.code, but_little_won_back(result.err)) == (0, "")
    found = finite(result.out)
    size = output.stat().st_size
    assert (found["output"], found["bytes"], found["original_bytes"]) == (str(output), size, 6852)
    assert (found["weights"], found["is_update"]) == (1713, False)
    assert not but_little_won_back("\n".join(found["warnings"]))
    assert found["percent"] == pytest.approx(100 * size / 6852)
    assert found["bits_per_weight"] == pytest.approx(8 * size / 1713)
    decoded = nnrcodec.decode(output.read_bytes())
    assert sum(found["coders"].values()) == len(decoded)
    assert found["coders"] == Counter(tensor["coder"] for tensor in found["tensors"])
    assert [tensor["name"] for tensor in found["tensors"]] == list(decoded)
    assert [(layer["layer"], layer["rank"]) for layer in found["layers"]] == [
        *(("0", None), ("2", 3), ("4", 12), ("6", None))
    ]
    assert found["layers"][0]["reason"] == "it is given no rank"
    assert found["layers"][1]["scheme"] == "separable"
    assert found["folds"] == []
    assert found["distillation"]["steps"] > 0
    assert found["loss_unit"] == "%"
    (taken,) = (trial for trial in found["trials"] if trial["taken"])
    assert taken["bytes"] == size
    assert taken["loss"] <= 30
    help_all = call("nnr-encode", "--help-all").out
    of_tensor = found["tensors"][0]
    for key in (*found, *of_tensor, *found["layers"][0], *taken, *found["distillation"]):
        assert re.search(rf"\b{key}\b", help_all), key


def test_json_has_the_time_that_calibration_inputs_took(call, models, tmp_path, monkeypatch):
    load_inputs = encode._calibration

    def slowly(*arguments):
        time.sleep(0.05)
        return load_inputs(*arguments)

    monkeypatch.setattr(encode, "_calibration", slowly)
    result = call("nnr-encode", models / "net.pt", "-o", tmp_path / "a.nnr", "--json")
    stages = finite(result.out)["stage_seconds"]
    assert stages["calibration inputs"] >= 0.05


def test_json_has_reasons_and_warnings_which_are_on_stderr_too(call, tmp_path, monkeypatch):
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(1, 1, 8, 8),)), tmp_path / "n.pt2")
    load = encode.load

    def load_with_warning(*arguments, **options):
        logging.getLogger("nnrcodec.formats.pt2").warning("something is odd")
        return load(*arguments, **options)

    monkeypatch.setattr(encode, "load", load_with_warning)
    result = call(
        "nnr-encode", tmp_path / "n.pt2", "--fold-batch-norm", "--json", "--calib", "none"
    )
    assert (result.code, result.err) == (0, "nnr-encode: something is odd\n")
    found = finite(result.out)
    assert found["warnings"] == ["something is odd"]
    assert found["folds"] == [{"layer": "0", "folded": True, "reason": None}]
    assert (found["distillation"], found["trials"], found["loss_unit"]) == (None, [], None)


def test_json_of_an_update_has_the_same_names(call, models, tmp_path):
    base, update = tmp_path / "base.nnr", tmp_path / "1.nnr"
    whole = finite(call("nnr-encode", models / "net.pt", "-o", base, "--json", "-q").out)
    result = call("nnr-encode", models / "net.pt", "-o", update, "--base", base, "--json")
    assert (result.code, result.err) == (0, "")
    found = finite(result.out)
    assert list(found) == list(whole)
    assert (found["is_update"], found["bytes"]) == (True, update.stat().st_size)
    assert found["weights"] == whole["weights"]
    changed = [tensor["name"] for tensor in found["tensors"]]
    assert set(changed) <= {tensor["name"] for tensor in whole["tensors"]}
    assert found["coders"] == ({"cabac": len(changed)} if changed else {})


@pytest.fixture
def rgb(tmp_path):
    """Return a filter of RGB pictures, and a folder of pairs."""
    torch.manual_seed(0)
    filtering = torch.nn.Conv2d(3, 3, 3, padding=1)
    with torch.no_grad():
        filtering.weight *= 0.1
        filtering.weight[range(3), range(3), 1, 1] += 0.9
    free = ({2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    module = torch.nn.Sequential(filtering).eval()
    program = torch.export.export(module, (torch.rand(1, 3, 16, 16),), dynamic_shapes=free)
    torch.export.save(program, tmp_path / "rgb.pt2")
    pairs, rng = tmp_path / "pairs", np.random.default_rng(0)
    pairs.mkdir()
    original = rng.integers(20, 230, (96, 100, 3))
    Image.fromarray(original.astype(np.uint8)).save(pairs / "a_orig.png")
    decoded = original + rng.integers(-9, 9, original.shape)
    Image.fromarray(decoded.astype(np.uint8)).save(pairs / "a_qp37_dec.png")
    return tmp_path / "rgb.pt2", pairs


def test_pairs_of_rgb_pictures_limit_a_loss_with_and_without_a_task(call, rgb, tmp_path):
    model, pairs = rgb
    losses = []
    for options in (
        ("--max-loss", "0.5dB"),
        ("--max-loss", "0.5dB", "--task", "psnr", "--data", pairs),
        ("--max-loss", "0.5", "--task", "psnr", "--data", pairs),
    ):
        output = tmp_path / "rgb.nnr"
        result = call("nnr-encode", model, "-o", output, "--calib", pairs, *options, "--json")
        assert (result.code, result.err) == (0, "")
        found = finite(result.out)
        assert found["loss_unit"] == "dB"
        losses.append([trial["loss"] for trial in found["trials"]])
    assert losses[0] == losses[1] == losses[2]
