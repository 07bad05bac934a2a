import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import NETWORKS
from PIL import Image
from torch import nn

import nnrcodec
from nnrcodec.cli import evaluate
from nnrcodec.formats import load

QUICK = ("--rounds", "1", "--no-encode", "--no-memory")


def measure(call, *arguments):
    return call("nnr-eval", *arguments, *QUICK)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """Return the network of the fixture `models`, for pictures of any size."""
    (network,) = (network for network in NETWORKS if network.name == "plain_cnn")
    path = tmp_path_factory.mktemp("net") / "net.pt2"
    free = ({2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    example = (network.example(),)
    torch.export.save(torch.export.export(network.module(), example, dynamic_shapes=free), path)
    return path


@pytest.fixture(scope="module")
def streams(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    thin = nnrcodec.EncoderConfig(low_rank=nnrcodec.LowRankConfig(ranks={"2": 5, "4": 9}))
    for name, config in (("a", nnrcodec.EncoderConfig()), ("b", thin)):
        (folder / f"{name}.nnr").write_bytes(nnrcodec.encode(load(net), config=config))
    return [folder / "a.nnr", folder / "b.nnr"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in ("lake", "tree"):
        original = rng.integers(20, 230, (14, 18))
        Image.fromarray(original.astype(np.uint8)).save(folder / f"{name}_orig.png")
        for qp in (22, 37):
            decoded = original + rng.integers(-qp // 4, qp // 4, original.shape)
            Image.fromarray(decoded.astype(np.uint8)).save(folder / f"{name}_qp{qp}_dec.png")
    return folder


def rows_of(out):
    """Return the cells of all lines, by their first word; later lines win."""
    return {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}


def test_tables_of_sizes_times_and_quality(call, net, streams, pictures):
    result = measure(call, net, *streams, "--task", "psnr", "--data", pictures)
    assert (result.code, result.err) == (0, "")
    sizes, costs, by_qp, by_picture, *_ = result.out.split("\n\n")
    heading = sizes.splitlines()[0]
    assert " ".join(heading.split()) == (
        "network parameters fp32 bytes coded bytes ratio PSNR, dB change"
    )
    rows = rows_of(sizes)
    assert rows["original"][:2] == ["1,713", "6,852"]
    for path in streams:
        assert rows[path.stem][2] == f"{path.stat().st_size:,}"
        assert rows[path.stem][3] == f"{100 * path.stat().st_size / 6852:.2f}"
    assert "kMAC/pixel" in costs
    assert "decode" in costs
    assert "memory" not in costs
    assert by_qp.splitlines()[0].split() == ["QP", "22", "37", "mean"]
    assert by_picture.splitlines()[0].split() == ["picture", "lake", "tree", "mean"]
    assert rows_of(by_qp).keys() == {"QP", "no", "original", "a", "b"}
    assert "1 thread" in result.out
    assert result.out.splitlines()[-1].split(",")[1].startswith(" the smallest: ")


def test_json_has_each_picture_at_each_qp(call, net, streams, pictures):
    result = measure(call, net, *streams, "--task", "psnr", "--data", pictures, "--json")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out, parse_constant=pytest.fail)
    assert (found["name"], found["task"], found["rounds"]) == ("net.pt2", "PSNR", 1)
    assert [n["label"] for n in found["networks"]] == ["original", "a", "b"]
    assert found["networks"][1]["fp32_bytes"] == 6852
    for network in found["networks"]:
        assert network["score"]["groups"]["picture, QP"].keys() == {
            "lake, 22",
            "lake, 37",
            "tree, 22",
            "tree, 37",
        }
    assert found["networks"][2]["ranks"] == {"2": 5, "4": 9}
    assert found["networks"][0]["run_memory"] is None


def test_json_and_a_report_together_and_infinite_scores(call, net, streams, tmp_path):
    np.save(tmp_path / "in.npy", np.random.default_rng(0).random((3, 1, 9, 8), dtype=np.float32))
    page = tmp_path / "page"
    options = ("--task", "outputs", "--data", tmp_path / "in.npy", "--json", "--report", page)
    result = measure(call, net, *streams, *options)
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out, parse_constant=pytest.fail)
    original, plain, _ = found["networks"]
    assert original["score"]["value"] is None
    assert 5 < plain["score"]["value"] < 100
    assert plain["score"]["more"]["largest error"] > 0
    assert list(page.iterdir()) == [page / "index.html"]
    assert "equal" in (page / "index.html").read_text(encoding="utf-8")


def test_a_report_is_written_and_named(call, net, streams, tmp_path):
    result = measure(call, net, streams[0], "--report", tmp_path / "page")
    assert (result.code, result.err) == (0, "")
    page = tmp_path / "page" / "index.html"
    assert result.out.splitlines()[-1] == f"report: {page}"
    assert "net.pt2, coded" in page.read_text(encoding="utf-8")


def test_encoding_and_memory_are_measured_unless_told_not_to(call, net, streams):
    result = call("nnr-eval", net, streams[0], "--rounds", "1", "--input-size", "24x32", "--json")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    original, coded = found["networks"]
    assert found["input_shapes"] == [[1, 1, 24, 32]]
    assert original["encode_seconds"]["median"] > 0
    if not any("memory was not measured" in note for note in found["notes"]):
        assert original["run_memory"] > 0
        assert coded["decode_memory"] is not None


def test_state_dicts_are_compared_without_running(call, models, streams):
    for name in ("net.pt", "net.safetensors"):
        result = measure(call, models / name, *streams)
        assert (result.code, result.err) == (0, "")
        assert "networks did not run" in result.out
        assert re.search(r"weights off by [0-9.]+ % \(\S+\) at most", result.out)
        assert "kMAC/pixel" not in result.out
        assert rows_of(result.out)["original"] == []  # no run time


def test_a_stream_of_tensors_runs_with_the_graph_of_the_model(call, net, stream):
    result = measure(call, net, stream, "--json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out)["networks"][1]["run_seconds"]["median"] > 0


def test_accuracy_of_a_classifier_with_normalized_images(call, tmp_path):
    class Channels(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.eye(3))

        def forward(self, images):
            return images.mean((2, 3)) @ self.weight

    program = torch.export.export(Channels(), (torch.rand(2, 3, 4, 5),))
    torch.export.save(program, tmp_path / "net.pt2")
    (tmp_path / "a.nnr").write_bytes(nnrcodec.encode(program))
    images = np.zeros((6, 4, 5, 3), np.uint8)
    for k in range(6):
        images[k, ..., k % 3] = 100
    np.savez(tmp_path / "test.npz", images=images, labels=np.array([0, 1, 2, 0, 1, 0]))
    options = ("--task", "accuracy", "--data", tmp_path / "test.npz", "--json")
    for mean, expected in (("0", 100 * 5 / 6), ("1,0,0", 50)):  # without red: 1, 1, 2, 1, 1, 2
        result = measure(call, tmp_path / "net.pt2", tmp_path / "a.nnr", *options, "--mean", mean)
        assert (result.code, result.err) == (0, "")
        for network in json.loads(result.out)["networks"]:
            assert network["score"]["value"] == pytest.approx(expected)


def test_streams_of_the_same_name_are_called_by_their_paths(call, net, streams, tmp_path):
    other = tmp_path / "a.nnr"
    other.write_bytes(streams[0].read_bytes())
    result = measure(call, net, streams[0], other, "--json")
    labels = [n["label"] for n in json.loads(result.out)["networks"]]
    assert labels == ["original", str(streams[0]), str(other)]
    (tmp_path / "a.nnc").write_bytes(streams[0].read_bytes())
    result = measure(call, net, other, tmp_path / "a.nnc", "--json")
    assert [n["label"] for n in json.loads(result.out)["networks"]][1:] == ["a.nnr", "a.nnc"]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--task", "psnr"], "--task and --data go together"),
        (["--data", "."], "--task and --data go together"),
        (["--task", "psnr", "--data", "nowhere"], "cannot read nowhere: No such file"),
        (["--task", "psnr", "--data", "."], "contains no pairs of pictures"),
        (["--task", "accuracy", "--data", "."], "not an .npz file with images and labels"),
        (["--task", "outputs", "--data", "."], "there are no"),
        (["--task", "beauty", "--data", "."], "invalid choice"),
        (["--mean", "0.5"], "are for the images of --task accuracy"),
        (["--mean", "half"], "argument --mean: half is not allowed, expected numbers"),
        (["--mean", ""], "argument --mean"),
        (["--std", "1,,1"], "argument --std"),
        (["--input-size", "96x"], "argument --input-size"),
        (["--input-size", "0x96"], "0 is not allowed, expected a whole number of at least 1"),
        (["--input-size", "96"], "input size of 96 does not fit"),
        (["--input-size", "8x8x8"], "input size of 8x8x8 does not fit"),
        (["--rounds", "0"], "0 is not allowed, expected a whole number of at least 1"),
        (["--threads", "-1"], "-1 is not allowed"),
        (["--threads", "many"], "many is not allowed"),
    ],
)
def test_options_that_cannot_work_exit_with_2(
    call, net, streams, tmp_path, monkeypatch, options, hint
):
    monkeypatch.chdir(tmp_path)
    result = measure(call, net, *streams, *options)
    assert (result.code, result.out) == (2, "")
    assert hint in result.err
    assert "Traceback" not in result.err


def test_files_that_cannot_be_read_exit_with_2(call, net, streams, tmp_path):
    for model, stream, hint in (
        (tmp_path / "none.pt2", streams[0], "cannot read"),
        (net, tmp_path / "none.nnr", "none.nnr: No such file"),
        (net, tmp_path, "is a folder, not a file"),
        (streams[0], streams[1], "is an NNR stream: nnr-decode reads it"),
    ):
        result = measure(call, model, stream)
        assert (result.code, result.out) == (1 if model == streams[0] else 2, "")
        assert len(result.err.splitlines()) == 1
        assert hint in result.err
    result = measure(call, net, streams[0], streams[0])
    assert (result.code, result.err) == (2, "nnr-eval: error: a stream is given twice\n")


def test_streams_of_something_else_exit_with_2(call, net, streams, state, tmp_path):
    more = {**state, "more.weight": torch.ones(2, 2)}
    (tmp_path / "more.nnr").write_bytes(nnrcodec.encode(more))
    base = nnrcodec.encode(state)
    changed = {name: value + 0.1 for name, value in state.items()}
    (tmp_path / "1.nnr").write_bytes(nnrcodec.UpdateEncoder(base).encode(changed))
    for name, hint in (("more", "more is of another model"), ("1", "1 is an update")):
        result = measure(call, net, streams[0], tmp_path / f"{name}.nnr")
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"nnr-eval: error: {hint}")


def test_damaged_streams_exit_with_3_and_are_named(call, net, models, streams, tmp_path):
    (tmp_path / "cut.nnr").write_bytes(streams[0].read_bytes()[:300])
    result = measure(call, net, *streams, tmp_path / "cut.nnr")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(f"nnr-eval: error: {tmp_path / 'cut.nnr'}: ")
    result = measure(call, net, models / "net.pt")
    assert result.code == 3
    assert "by its name it is a model file" in result.err
    (tmp_path / "cut.pt2").write_bytes(net.read_bytes()[:300])
    assert measure(call, tmp_path / "cut.pt2", *streams).code == 1


def test_a_task_that_is_not_for_the_network_exits_with_2(call, models, streams, pictures, tmp_path):
    linear = torch.export.export(nn.Linear(4, 2), (torch.rand(3, 4),))
    torch.export.save(linear, tmp_path / "linear.pt2")
    (tmp_path / "linear.nnr").write_bytes(nnrcodec.encode(linear))
    shrinks = torch.export.export(nn.Conv2d(1, 1, 3), (torch.rand(1, 1, 14, 18),))
    torch.export.save(shrinks, tmp_path / "shrinks.pt2")
    (tmp_path / "shrinks.nnr").write_bytes(nnrcodec.encode(shrinks))
    for model, stream, hint in (
        (tmp_path / "linear.pt2", tmp_path / "linear.nnr", "does not take pictures"),
        (
            tmp_path / "shrinks.pt2",
            tmp_path / "shrinks.nnr",
            "does not return pictures of the size",
        ),
        (models / "net.pt", streams[0], "tensors only, no graph"),
    ):
        result = measure(call, model, stream, "--task", "psnr", "--data", pictures)
        assert (result.code, result.out) == (2, "")
        assert hint in result.err


def test_a_report_that_cannot_be_is_noticed_before_work(call, net, streams, tmp_path, monkeypatch):
    def refuse(path):
        raise AssertionError("this is noticed before anything is read")

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(evaluate, "read_stream", refuse)
    for folder in (tmp_path / "file", tmp_path / "file" / "page"):
        result = measure(call, net, *streams, "--report", folder)
        assert (result.code, result.out) == (2, "")
        assert "is not a folder" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_hostile_names_do_nothing_to_the_terminal(call, net, streams, tmp_path):
    path = tmp_path / "red \x1b[31m<b>.nnr"
    path.write_bytes(streams[0].read_bytes())
    result = measure(call, net, path, "--report", tmp_path / "page")
    assert result.code == 0
    assert "\x1b" not in result.out
    assert r"red \x1b[31m<b>" in result.out
    assert "<b>" not in Path(tmp_path, "page", "index.html").read_text(encoding="utf-8")
