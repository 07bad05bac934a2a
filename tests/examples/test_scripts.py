"""The scripts of the examples: what they compute, on networks that are quick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import inputs_of, network

import nnrcodec
from nnrcodec.config import EncoderConfig, LowRankConfig, UniformConfig
from nnrcodec.encoder.pipeline import reduce_model
from nnrcodec.graph.module import build_module

EXAMPLES = Path(__file__).parents[2] / "examples"
DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    """Import scripts of the examples by name."""
    folders = [str(EXAMPLES / name) for name in ("postfilter", "calibration")]
    sys.path[:0] = folders
    yield importlib.import_module
    for folder in folders:
        sys.path.remove(folder)


def test_the_table_of_the_paper_has_a_line_for_each_network(
    script: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = script("paper")
    model = nnrcodec.formats.load(EXAMPLES / "postfilter" / "filter.pt2")
    bench = paper.Bench(model)
    bench.pairs = [replace(p, decoded={37: p.decoded[37]}) for p in bench.pairs[:1]]
    bench.gain = paper.mean_gain(paper.score_pairs(bench.original, bench.pairs))
    monkeypatch.setattr(
        paper, "run_times", lambda networks, _: dict.fromkeys(networks, 2.0) | {"original": 4.0}
    )
    config = EncoderConfig(low_rank=LowRankConfig(ranks=paper.LAYER_2))
    plain = paper.uncoded("layer 2", reduce_model(model, config), "495 kB")
    coded, ranks = paper.coded("coded", reduce_model(model, config), None, 1.0)
    rows = [paper.Row("original", bench.whole, bench.original), plain, coded]
    measured = paper.print_table(bench, rows, 1)
    assert ranks == [("net.2", 32)]
    assert [row["bytes"] for row in measured] == [743428, 4 * (185857 - 24576), coded.size]
    assert coded.size < 0.2 * bench.whole
    assert [row["run_time"] for row in measured] == [1.0, 0.5, 0.5]
    assert measured[0]["change_db"] == 0
    assert -1 < measured[1]["change_db"] < 0
    head, rule, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert len({line.count("|") for line in (head, rule, *lines)}) == 1


def test_bytes_at_a_loss_are_found_between_points(script: Any) -> None:
    benchmark = script("benchmark")

    def point(size: int, loss: float, error: float = 1.0) -> Any:
        return benchmark.Point("", size, loss, error, 0.0)

    points = [point(100, 4.0), point(400, 0.0), point(900, 0.5)]
    assert benchmark.bytes_at(points, 0.0) == 400
    assert benchmark.bytes_at(points, 2.0) == pytest.approx(200)
    assert benchmark.bytes_at(points, 5.0) == 100
    assert benchmark.bytes_at(points[:1], 1.0) == float("inf")
    points = [point(100, 0, 0.1), point(400, 0, 0.001), point(300, 0, 0.2)]
    assert benchmark.error_at(points, 200) == pytest.approx(0.01)


def test_streams_are_judged_and_parts_are_left_away(
    script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = script("benchmark")
    chosen = network("plain_cnn")
    inputs = inputs_of(chosen.shape, 4)

    def score(module: torch.nn.Module) -> float:
        with torch.inference_mode():
            return -sum(float(module(*each).square().mean()) for each in inputs)

    case = benchmark.Case("tiny", "", chosen.model(), inputs, score, (), range(-24, -18))
    judge = benchmark.Judge(case)
    original = judge.measured("fine", EncoderConfig(quantization=UniformConfig(qp=-60)), None)
    assert abs(original.loss) < 1e-3
    assert original.error < 1e-6
    (blind,) = benchmark.by_scale(judge, None, [1.0])
    (aware,) = benchmark.by_scale(judge, inputs, [1.0])
    assert aware.size < blind.size
    assert max(aware.error, blind.error) < 0.1
    curves = benchmark.ablation(judge, [1.0])
    assert len(curves) == 6
    errors = [points[0].error for points in curves.values()]
    assert len({*errors, aware.error}) == 7
    assert capsys.readouterr().err.count("tiny, Point(") == 3 + 4 + len(case.qps)
    (again,) = benchmark.by_scale(judge, inputs, [1.0])
    assert again.error == aware.error


@pytest.mark.skipif(
    not DATA.exists(), reason="the weights and pictures are not part of the project"
)
def test_the_resnet_is_the_one_whose_weights_there_are(script: Any) -> None:
    resnet20 = script("resnet20")
    images, labels = resnet20.load_images(DATA / "cifar10_test2000.npz")
    values = resnet20.normalized(images[:400])
    model = resnet20.load_resnet20(DATA / "resnet20.safetensors", values[:2])
    with torch.inference_mode():
        guessed = build_module(model)(values).argmax(1).numpy()
    assert (guessed == labels[:400]).mean() > 0.75


def test_networks_by_others_are_judged_on_inputs_that_the_encoder_has_not_seen(script: Any) -> None:
    table, cases, losses = script("table"), script("cases"), script("losses")
    chosen = network("plain_cnn")
    given, judged = inputs_of(chosen.shape, 4), inputs_of(chosen.shape, 3)
    loss = losses.detection_loss(lambda outputs: outputs[0], 0.0)
    tiny = cases.Network(chosen.model(), given, judged, loss)
    configs = {"fine": EncoderConfig(qp=-60), "x 1": EncoderConfig()}
    rows = list(table.rows("tiny", tiny, table.INPUTS, configs))
    assert [(row["config"], row["inputs"]) for row in rows] == [
        (config, inputs) for config in configs for inputs in table.INPUTS
    ]
    for fine, coarse in zip(rows[:3], rows[3:], strict=True):
        assert fine["bytes"] > coarse["bytes"]
        assert fine["SNR"] > 60 > coarse["SNR"] > 10
        assert fine["SNR"] == pytest.approx(fine["SNR of each output"][0])
        assert fine["loss"]["% lost"] <= coarse["loss"]["% lost"] < 20
    assert {table.line(row).count("|") for row in rows} == {10}


def test_losses_are_in_the_terms_of_the_task(script: Any) -> None:
    losses = script("losses")
    picture = torch.full((1, 1, 4, 4), 128 / 255)
    before, after = [[picture + 1 / 255]], [[picture + 2 / 255]]
    lost = losses.psnr_loss([picture])(before, after)
    assert lost == pytest.approx({"dB": 6.02, "dB worst": 6.02}, abs=0.01)
    logits = torch.eye(4)
    answers = losses.accuracy_loss(torch.tensor([0, 1, 3, 3]))([[logits]], [[logits.roll(1, 0)]])
    assert answers == {"% accuracy": 75, "% changed": 100}
    scores = torch.tensor([0.9, 0.8, 0.1, 0.75])
    found = losses.detection_loss(lambda outputs: outputs[0], 0.7)([[scores]], [[scores.flip(0)]])
    assert found == {"detections": 3, "% lost": pytest.approx(100 / 3), "% added": 100 / 3}
    embeddings = torch.eye(3)
    same = losses.embedding_loss([[embeddings]], [[2 * embeddings]])
    assert same["cosine"] == same["cosine min"] == pytest.approx(1)
    assert same["relative error"] == pytest.approx(1)
    pitch = losses.pitch_loss([[logits]], [[logits.roll(3, 1)]])
    assert pitch == {"windows": 4, "% changed": 25}
