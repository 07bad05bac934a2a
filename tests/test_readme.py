"""Every command and every line of Python in README.md is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nnrcodec.formats import save
from nnrcodec.formats.sources import model_of

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "postfilter"
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def block(name: str) -> str:
    """Return the shell commands under a marker."""
    found = re.search(rf"<!-- command: {name} -->\n```bash\n(.*?)\n```", README, re.DOTALL)
    assert found, name
    return found[1]


def put_small_example(folder: Path) -> None:
    """Put a filter with the layers of the example, but fewer channels, and one pair of pictures."""
    place = folder / "examples" / "postfilter"
    (place / "eval").mkdir(parents=True)
    for picture in (EXAMPLE / "eval").glob("camera*"):
        (place / "eval" / picture.name).symlink_to(picture)
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = [torch.nn.Conv2d(1, 16, 3, padding=1)]
    for channels in (*[16] * 3, 1):
        layers += [torch.nn.ReLU(), torch.nn.Conv2d(16, channels, 3, padding=1)]
    network = torch.nn.Module()
    network.net = torch.nn.Sequential(*layers)
    network.forward = lambda x: x + 0.1 * network.net(x)  # type: ignore[method-assign]
    save(model_of(network.eval(), (torch.zeros(1, 1, 64, 64),)), place / "filter.pt2")


def run(commands: str, folder: Path) -> str:
    """Run commands in a folder with the example, with the installed commands on the path."""
    if not (folder / "examples").exists():
        (folder / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_shell_blocks_are_known() -> None:
    assert re.findall(r"<!-- command: (\w+) -->", README) == ["start", "test", "use", "onnx"]
    assert README.count("```bash") == 4


def test_quick_start_encodes_decodes_and_says_what_it_achieved(tmp_path: Path) -> None:
    """What it achieves with the example itself is seen by the tests of that."""
    _make, _install, *rest = block("start").split(" && ")
    assert _make == "python3 -m venv .venv"
    assert _install.startswith(".venv/bin/pip install ")
    put_small_example(tmp_path)
    shown = run(" && ".join(rest).replace(".venv/bin/", f"{BIN}/"), tmp_path)
    row = r"^{}\s+[\d,]+\s+[\d,]+\s+[\d,]+\s+(\d+\.\d+) %\s+\d+\.\d+\s+([+-]?\d\.\d+)"
    for name in ("plain", "thin"):
        found = re.search(row.format(name), shown, re.MULTILINE)
        assert found, shown
        assert 0 < float(found[1]) < 60
        assert abs(float(found[2])) < 0.5
    assert (tmp_path / "thin.pt2").stat().st_size > 0


def test_the_test_command_is_what_the_gate_runs() -> None:
    command = block("test")
    assert command.endswith(".venv/bin/python -m pytest -n auto --dist loadfile")
    assert "command: test" in (ROOT / ".ci" / "run").read_text()


def test_commands_of_the_use_section(tmp_path: Path) -> None:
    put_small_example(tmp_path)
    shown = run(block("use"), tmp_path)
    assert "net.2" in shown
    for written in ("filter.nnr", "low-rank.nnr", "thin.pt2", "original.safetensors"):
        assert (tmp_path / written).stat().st_size > 0


def test_commands_of_the_onnx_section(tmp_path: Path) -> None:
    put_small_example(tmp_path)
    run(block("onnx"), tmp_path)
    onnx = pytest.importorskip("onnx")
    first, second = (onnx.load(tmp_path / f"{name}.onnx") for name in ("low-rank", "again"))
    assert [n.op_type for n in first.graph.node].count("Conv") == 7
    assert list(first.graph.node) == list(second.graph.node)


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_blocks_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own README
