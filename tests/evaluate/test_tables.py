import math
import re
from dataclasses import replace

import pytest

from nnrcodec.evaluate import Score, Seconds
from nnrcodec.evaluate.tables import (
    WITHOUT,
    conditions,
    cost_columns,
    duration,
    group_grids,
    headline,
    number,
    size_columns,
)


def cells(columns, network):
    return {column.title: column.cell(network) for column in columns}


def scored(evaluation, scores):
    networks = tuple(
        replace(n, score=score) for n, score in zip(evaluation.networks, scores, strict=True)
    )
    return replace(evaluation, networks=networks, baseline=None)


def test_sizes_and_quality(timed):
    changed = scored(timed, [Score(35.5, "dB"), Score(35.25, "dB"), Score(35.625, "dB")])
    columns = size_columns(changed)
    original, plain, _ = (cells(columns, network) for network in changed.networks)
    assert original["network"] == "original"
    assert (original["fp32 bytes"], original["coded bytes"], original["ratio"]) == ("460", "", "")
    assert (original["PSNR, dB"], original["change"]) == ("35.500", "")
    coded = changed.coded[0].coded_bytes
    assert plain["coded bytes"] == f"{coded:,}"
    assert plain["ratio"] == f"{100 * coded / 460:.2f} %"
    assert (plain["PSNR, dB"], plain["change"]) == ("35.250", "-0.250")


def test_computation_time_and_memory(timed):
    columns = cost_columns(timed)
    original, plain, thin = (cells(columns, network) for network in timed.networks)
    assert (original["kMAC/pixel"], thin["kMAC/pixel"]) == ("0.1", "0.1")
    assert (original["run"], thin["run"], thin["of original"]) == ("50.0 ms", "25.0 ms", "50.0 %")
    assert plain["quartiles"] == "50.0 to 60.0 ms"
    assert (plain["memory, run"], plain["encode"]) == ("2.0 MB", "")
    assert original["encode"].endswith("s")
    assert "memory, decode" not in plain


def test_columns_of_what_was_not_measured_are_left_out(timed):
    networks = tuple(
        replace(n, score=None, run_seconds=None, run_memory=None, multiply_adds=None)
        for n in timed.networks
    )
    bare = replace(timed, networks=networks, input_shapes=(), task=None)
    assert [column.title for column in cost_columns(bare)] == ["network", "encode", "decode"]
    assert [column.title for column in size_columns(bare)][-1] == "weights off by"
    assert re.search(r"weights off by .* at most", headline(bare))
    assert [column.title for column in size_columns(replace(bare, input_shapes=((1, 2),)))][-1] == (
        "ratio"
    )
    assert list(group_grids(bare)) == []


def test_numbers_of_outputs_have_columns_and_infinite_ones_words(timed):
    changed = scored(
        timed,
        [
            Score(math.inf, "dB SNR", more={"largest error": 0.0}),
            Score(41.25, "dB SNR", more={"largest error": 0.000125}),
            Score(math.nan, "dB SNR", more={"largest error": math.nan}),
        ],
    )
    changed = replace(changed, task="outputs")
    original, plain, thin = (cells(size_columns(changed), n) for n in changed.networks)
    assert original["outputs, dB SNR"] == "equal"
    assert (plain["outputs, dB SNR"], plain["largest error"]) == ("41.250", "0.000125")
    assert thin["outputs, dB SNR"] == "not a number"
    assert "change" not in plain
    assert number(-math.inf) == "-infinite"


def test_parts_of_the_data_with_the_baseline_first(timed):
    grids = {grid.title: grid for grid in group_grids(timed)}
    assert list(grids) == ["QP", "picture", "picture, QP"]
    assert grids["QP"].columns == ["22", "37", "mean"]
    assert grids["picture"].columns == ["lake", "tree", "mean"]
    assert [name for name, _ in grids["QP"].rows] == [WITHOUT, "original", "plain", "thin"]
    _, of_plain = grids["QP"].rows[2]
    score = timed.networks[1].score
    assert of_plain == [f"{v:.3f}" for v in (*score.groups["QP"].values(), score.value)]


def test_the_headline_is_of_the_smallest(timed):
    small = replace(timed.networks[2], coded_bytes=46, ratio=0.1)
    plain = scored(timed, [Score(35.5, "dB"), Score(35.25, "dB"), Score(35.25, "dB")])
    changed = replace(
        plain, networks=(*plain.networks[:2], replace(small, score=Score(35.0, "dB")))
    )
    assert headline(changed) == (
        "thin, the smallest: 10.0 % of the bytes in fp32, 50 % of the run time, PSNR -0.500 dB"
    )
    gain = replace(changed, baseline=Score(35.25, "dB"))
    assert headline(gain).endswith("PSNR -0.500 dB, where the original gains 0.250 dB")
    alone = replace(changed, networks=(changed.original, changed.networks[2]))
    assert headline(alone).startswith("thin: 10.0 %")
    equal = scored(timed, [Score(math.inf, "dB SNR")] * 3)
    assert headline(equal).endswith("equal outputs")
    percent = scored(timed, [Score(80, "%"), Score(79, "%"), Score(78, "%")])
    assert headline(replace(percent, task="accuracy")).endswith(
        ("accuracy -1.000 points", "accuracy -2.000 points")
    )


def test_conditions_say_how_it_was_measured(timed):
    said = list(conditions(replace(timed, notes=("a note",), threads=2, rounds=9)))
    assert any("median of 9, 2 threads" in line for line in said)
    assert any("1x1x96x96" in line for line in said)
    assert any("memory" in line for line in said)
    assert said[-1] == "a note"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.00123, "1.23 ms"), (0.0357, "35.7 ms"), (0.9994, "999 ms"), (12.345, "12.35 s")],
)
def test_times_have_a_unit_that_suits_them(seconds, expected):
    assert duration(Seconds(seconds, (seconds, seconds))) == expected
    assert duration(None) == ""
