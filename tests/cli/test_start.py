"""The installed commands, from their first moment on."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnrcodec

SITE = """
import os, signal, sys


class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)


sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize("command", ["nnr-encode", "nnr-decode", "nnr-info", "nnr-eval"])
@pytest.mark.parametrize("moment", ["numpy", "tqdm", "nnrcodec.cli.command", "nnrcodec.errors"])
def test_ctrl_c_while_a_command_loads_is_quiet(command, moment, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SITE.format(name=moment))
    run = subprocess.run(
        [Path(sys.executable).with_name(command), "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        timeout=60,
    )
    assert (run.returncode, run.stderr) == (130, f"{command}: interrupted\n")


def test_importing_the_package_loads_nothing_else():
    script = "import sys, nnrcodec; print([m for m in sys.modules if 'nnrcodec' in m])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    loaded = set(run.stdout.strip("[]\n").replace("'", "").split(", "))
    assert {m for m in loaded if not m.startswith("__editable")} == {"nnrcodec", "nnrcodec.version"}


def test_every_public_name_is_found_when_it_is_used():
    script = "import nnrcodec; print(all(getattr(nnrcodec, n) is not None for n in dir(nnrcodec)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout == "True\n", run.stderr
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nnrcodec.nothing  # noqa: B018


def test_streams_come_from_standard_input(models, tmp_path):
    stream = nnrcodec.encode({"w": np.ones(3, np.float32)})
    for arguments in (["nnr-info", "-"], ["nnr-decode", "-", "-o", tmp_path / "w.safetensors"]):
        command = [Path(sys.executable).with_name(arguments[0]), *arguments[1:]]
        run = subprocess.run(command, input=stream, capture_output=True)
        assert run.returncode == 0, run.stderr
    assert (tmp_path / "w.safetensors").exists()
    run = subprocess.run(
        [Path(sys.executable).with_name("nnr-info"), "-"], input=stream[:9], capture_output=True
    )
    assert run.returncode == 3
    assert b"nnr-info: error: standard input: " in run.stderr


def test_pipes_are_named_with_a_way_out(tmp_path, call):
    os.mkfifo(tmp_path / "pipe")
    done = call("nnr-decode", tmp_path / "pipe", "-o", tmp_path / "x.pt")
    assert done.code == 2
    assert "is a pipe, not a file; to read a stream from a pipe, give - in its place" in done.err


def run_module(*arguments, env=None):
    command = [sys.executable, "-m", "nnrcodec", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env)


@pytest.mark.parametrize("word", ["encode", "decode", "info", "eval"])
def test_the_module_runs_the_commands(word):
    run = run_module(word, "--version")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"nnr-{word} (nnrcodec {nnrcodec.__version__})\n"
    assert run_module(word, "--nothing").returncode == 2


@pytest.mark.parametrize("arguments", [[], ["code"], ["--version"]])
def test_the_module_without_a_command_says_which_there_are(arguments):
    run = run_module(*arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("usage: python -m nnrcodec {encode,decode,info,eval} ...\n")
    asked = run_module("--help")
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, run.stderr, "")


@pytest.mark.parametrize("moment", ["numpy", "nnrcodec.cli.command"])
def test_ctrl_c_while_the_module_loads_is_quiet(moment, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SITE.format(name=moment))
    run = run_module("encode", "--version", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (run.returncode, run.stderr) == (130, "nnr-encode: interrupted\n")
