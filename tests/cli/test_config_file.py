import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import nnrcodec


@pytest.fixture
def model(tmp_path):
    rng = np.random.default_rng(0)
    state = {name: rng.normal(size=(16, 12)).astype(np.float32) for name in ("a.w", "b.w", "b[1]")}
    state["few"] = np.array([1.5, np.inf], np.float32)
    save_file(state, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "options.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def stream_of(call, model, *options):
    output = model.with_suffix(".nnr")
    result = call("nnr-encode", model, "-o", output, *options)
    assert result.code == 0, result.err
    return output.read_bytes()


def test_a_file_says_what_flags_say(call, model, file):
    path = file(
        "qp = -20\nqp-density = 3\nno-row-skipping = true\ndq = false\ncodebook = false\n"
        'keep = ["a.*"]\nset = ["b.w:qp=-8"]\n'
    )
    flags = ["--qp", "-20", "--qp-density", "3", "--no-row-skipping", "--no-dq", "--keep", "a.*"]
    by_file = stream_of(call, model, "--config", path)
    assert by_file == stream_of(call, model, *flags, "--set", "b.w:qp=-8")
    table = file(path.read_text().partition("set")[0] + '[set."b.w"]\nqp = -8\n')
    assert by_file == stream_of(call, model, "--config", table)


def test_the_command_line_comes_first(call, model, file):
    path = file('qp = -20\nkeep = ["a.*"]\npreset = "small"\n')
    flags = ["--qp", "-12", "--keep", "b.w"]
    path.write_text(path.read_text().replace('preset = "small"\n', ""))
    assert stream_of(call, model, "--config", path, *flags) == stream_of(call, model, *flags)
    target = file('preset = "small"\n')
    flags = ["--target-bytes", "900"]  # which does not go with a preset
    assert stream_of(call, model, "--config", target, *flags) == stream_of(call, model, *flags)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qpp = 3", "there is no option 'qpp'; do you mean qp?"),
        ("lossles = true", "do you mean lossless"),
        ("config = 'x'", "there is no option 'config'"),
        ("lossless = 1", "lossless is 1, expected true or false"),
        ("qp = 'x'", "argument --qp: invalid int value: 'x'"),
        ("qp = 2024-01-01", "expected a text or a number"),
        ("set = {'a.w' = 3}", "expected a table of keys and values"),
        ("qp = ", "is no TOML file"),
    ],
)
def test_what_is_wrong_with_a_file(call, model, file, text, message):
    result = call("nnr-encode", model, "--config", file(text))
    assert result.code == 2
    assert message in result.err


def test_a_file_that_is_not_there(call, model, tmp_path):
    result = call("nnr-encode", model, "--config", tmp_path / "no.toml")
    assert (result.code, "cannot read" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("a.w", "is not of the form PATTERN:KEY=VALUE"),
        ("a.w:qq=3", "allowed are coder, qp, scale, dq, codebook, lambda, scan-order"),
        ("a.w:qp=x", "qp is 'x', expected a whole number"),
        ("a.w:coder=zip", "coder is 'zip', expected one of auto, cabac, ans, lossless\n"),
        ("a.w:qp=-20,qp=-10", "has key 'qp' twice"),
        ("c.*:qp=3", "no tensor has a name that fits 'c.*'"),
    ],
)
def test_what_is_wrong_with_a_setting(call, model, setting, message):
    result = call("nnr-encode", model, "--set", setting)
    assert result.code == 2
    assert message in result.err


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--qp", "-9", "--no-dq", "--entropy", "cabac"],
        ["--keep", "a.w", "--keep", "b[[]1]", "--qp-density", "4"],
        ["--lossless"],
        ["--short-names"],
        ["--profile", "nnc", "--codebook"],
    ],
)
def test_info_tells_what_made_a_stream(call, model, tmp_path, options):
    if "nnc" in options:
        save_file({"w": sum(n * np.eye(12, k=n, dtype=np.float32) for n in range(5))}, model)
    made = stream_of(call, model, *options)
    result = call("nnr-info", "--config", model.with_suffix(".nnr"))
    assert (result.code, result.err) == (0, "")
    assert "It does not keep" in result.out
    path = tmp_path / "told.toml"
    path.write_text(result.out, encoding="utf-8")
    assert stream_of(call, model, "--config", path) == made


def test_info_tells_of_tensors_that_were_stored(call, model, tmp_path):
    few, noise = np.float32([0.1, np.pi, np.nan]), np.random.default_rng(0).bytes(4 * 40)
    kept = np.frombuffer(noise, np.float32)
    save_file({"w": np.eye(12, dtype=np.float32), "few": few, "kept": kept}, model)
    made = stream_of(call, model, "--keep", "kept")
    path = tmp_path / "told.toml"
    path.write_text(call("nnr-info", "--config", model.with_suffix(".nnr")).out, encoding="utf-8")
    assert 'keep = [\n    "kept",\n]' in path.read_text(encoding="utf-8")
    assert stream_of(call, model, "--config", path) == made


def test_lossless_coding_comes_before_what_is_said_of_levels(call, model):
    result = call("nnr-encode", model, "--set", "a.*:qp=-20,coder=lossless")
    assert result.code == 0
    assert "'a.*' is coded bit for bit (coder=lossless), where qp has no effect" in result.err
    assert call("nnr-encode", model, "--keep", "a.*", "-o", model.with_suffix(".kept")).code == 0
    kept, made = (model.with_suffix(ending).read_bytes() for ending in (".kept", ".nnr"))
    assert kept == made


def test_the_last_line_says_that_nothing_is_lost(call, model):
    result = call("nnr-encode", model, "--lossless")
    assert result.out.rstrip().endswith("; lossless, bit for bit")
    result = call("nnr-encode", model, "--lossless", "--json")
    assert json.loads(result.out)["lossless"] is True
    base = model.with_suffix(".nnr")
    update = model.with_name("1.nnr")
    result = call("nnr-encode", model, "--lossless", "--base", base, "-o", update)
    assert result.out.rstrip().endswith("; lossless, bit for bit")
    decoded = model.with_name("out.safetensors")
    assert call("nnr-decode", base, update, "-o", decoded).code == 0
    assert nnrcodec.load(decoded).tensors.keys() == nnrcodec.load(model).tensors.keys()


def test_calibration_inputs_are_refused(call, model):
    result = call("nnr-encode", model, "--lossless", "--calib", "synthetic")
    assert (result.code, "omit --calib" in result.err) == (2, True)
