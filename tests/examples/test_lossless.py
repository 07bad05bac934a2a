from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

SCRIPT = Path(__file__).parents[2] / "examples" / "lossless" / "benchmark.py"


def test_the_table_has_a_row_for_each_dtype(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("lossless_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "_library", lambda _: None)  # whatever is installed
    weights = np.random.default_rng(0).normal(size=(60, 70)).astype(np.float32)
    save_file({"w": weights, "n": np.arange(9)}, tmp_path / "net.safetensors")
    options = ["--dtypes", "float32,bfloat16", "--rounds", "1", "--threads", "1"]
    script.main([str(tmp_path / "net.safetensors"), *options])
    head, rule, *lines = capsys.readouterr().out.splitlines()
    assert len({line.count("|") for line in (head, rule, *lines)}) == 1
    assert [line.split(" | ")[1] for line in lines] == ["float32", "bfloat16"]
    ours = [float(line.split(" | ")[3].removesuffix(" %")) for line in lines]
    assert 80 < ours[0] < 92
    assert 60 < ours[1] < 80
