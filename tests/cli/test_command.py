import io
import logging
import os
import re
import subprocess
import sys
import warnings

import pytest
from data_units import header_of, stream_of, unit_of

import nnrcodec
from nnrcodec.cli import decode, encode, evaluate, info

COMMANDS = ("nnr-encode", "nnr-decode", "nnr-info", "nnr-eval")
MODULES = dict(zip(COMMANDS, (encode, decode, info, evaluate), strict=True))
OPTIONS = {
    "nnr-encode": "--output --qp --nonweight-qp --qp-density --rank --energy --rank-ratio",
    "nnr-decode": "--output --merge --threads --max-bytes .pt2 .pt .pth .safetensors",
    "nnr-info": "--json --trace",
    "nnr-eval": "--task --data --mean --std --input-size --rounds --threads --json --report psnr",
}


LINES = 45
"""Of a screen."""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_screen_and_says_where_the_rest_is(call, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = call(name, "--help")
    assert (result.code, result.err) == (0, "")
    assert call(name, "-h").out == result.out
    lines = result.out.splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"usage: {name} ")
    assert lines[-1] == f"{name} --help-all has all options."
    examples = result.out.partition("examples:\n")[2].partition("\n\n")[0].splitlines()
    assert 3 <= len(examples) <= 4
    assert all(line.startswith(f"  {name} ") for line in examples)


class StopError(Exception):
    """The parser is made."""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_help_all(call, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    made = []

    def keep(parser, work, argv):
        made.append(parser)
        raise StopError

    monkeypatch.setattr(MODULES[name], "run", keep)
    with pytest.raises(StopError):
        call(name)
    (parser,) = made
    whole, short = parser.format_help_all(), parser.format_help()
    options = [option for action in parser._actions for option in action.option_strings]
    assert {"-q", "-v", "--quiet", "--verbose", "--help", "--help-all", "--debug"} < set(options)
    for option in options:
        assert re.search(rf"^  (-\w, )?(--[\w-]+, )*{option}\b", whole, re.MULTILINE), option
    assert set(re.findall(r"^  .*?(--[\w-]+)", short.partition("examples:")[0], re.MULTILINE))
    assert max(map(len, whole.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches(call, name):
    result = call(name, "--help-all")
    assert (result.code, result.err) == (0, "")
    for word in (*OPTIONS[name].split(), "--help", "--version", "--debug", "examples:"):
        assert word in result.out
    exit_codes = result.out.partition("exit codes:\n")[2].splitlines()
    assert [line.split()[0] for line in exit_codes] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("name", COMMANDS)
def test_installed_commands_say_their_version(launch, name):
    result = launch(name, "--version")
    assert (result.code, result.err) == (0, "")
    assert result.out == f"{name} (nnrcodec {nnrcodec.__version__})\n"


def test_installed_commands_have_exit_codes(launch, stream, tmp_path):
    header = header_of("w", 2, 3, first_tensor_dimension_shift=1)
    (tmp_path / "new.nnc").write_bytes(stream_of(unit_of(header)))
    (tmp_path / "text.safetensors").write_bytes(b"text")
    (tmp_path / "text.nnr").write_bytes(b"text")
    for code, *command in (
        (0, "nnr-info", stream),
        (1, "nnr-encode", tmp_path / "text.safetensors", "-o", tmp_path / "out.nnr"),
        (2, "nnr-decode", tmp_path / "none.nnr", "-o", tmp_path / "out.safetensors"),
        (3, "nnr-decode", tmp_path / "text.nnr", "-o", tmp_path / "out.safetensors"),
        (4, "nnr-decode", tmp_path / "new.nnc", "-o", tmp_path / "out.safetensors"),
    ):
        result = launch(*command)
        assert result.code == code
        assert bool(result.out) == (code == 0)
        assert len(result.err.splitlines()) == (code != 0)
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("name", COMMANDS)
def test_usage_is_shown_where_it_is_wrong(call, name):
    result = call(name)
    assert result.code == 2
    assert f"usage: {name}" in result.err


def raising(error):
    def work(*arguments, **options):
        raise error

    return work


def test_an_interrupt_exits_with_130_and_leaves_nothing(call, models, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "encode", raising(KeyboardInterrupt))
    result = call("nnr-encode", models / "net.pt", "-o", tmp_path / "net.nnr")
    assert (result.code, result.out, result.err) == (130, "", "nnr-encode: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_defect_exits_with_1_and_asks_for_a_report(call, stream, monkeypatch):
    monkeypatch.setattr(info, "inspect", raising(IndexError("list index")))
    result = call("nnr-info", stream)
    assert result.code == 1
    assert len(result.err.splitlines()) == 1
    assert "unexpected IndexError: list index; this is a defect" in result.err
    assert "Traceback" in call("nnr-info", stream, "--debug").err


def test_too_little_memory_exits_with_1(call, stream, monkeypatch):
    monkeypatch.setattr(info, "inspect", raising(MemoryError()))
    result = call("nnr-info", stream)
    assert (result.code, result.err) == (
        1,
        f"nnr-info: error: {stream}: there is not enough memory\n",
    )


def test_errors_have_a_traceback_only_for_debug(call, stream):
    stream.write_bytes(b"")
    assert "Traceback" not in call("nnr-info", stream).err
    result = call("nnr-info", stream, "--debug")
    assert result.code == 3
    assert result.err.startswith("Traceback")


def test_own_messages_are_shown_and_those_of_other_libraries_not(call, stream, monkeypatch):
    inspect = info.inspect

    def inspect_with_messages(*arguments, **options):
        warnings.warn("a library is unhappy", stacklevel=1)
        logging.getLogger("nnrcodec.container.record_text").warning("something newer was ignored")
        return inspect(*arguments, **options)

    monkeypatch.setattr(info, "inspect", inspect_with_messages)
    for _ in range(2):
        assert call("nnr-info", stream).err == "nnr-info: something newer was ignored\n"
    with pytest.warns(UserWarning, match="a library is unhappy"):
        call("nnr-info", stream, "--debug")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_shown_on_a_terminal_and_wiped_away(call, models, tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert encode.main([str(models / "net.pt"), "-o", str(tmp_path / "net.nnr")]) == 0
    shown = terminal.getvalue()
    assert shown.startswith("\rcoding: ")
    assert "\n" not in shown
    assert shown.rpartition("\r")[0].rpartition("\r")[2].isspace()


def test_quiet_prints_only_errors_and_warnings(call, models, stream, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    net, base, output = models / "net.pt2", tmp_path / "base.nnr", tmp_path / "out.pt"
    for arguments in (
        ("nnr-encode", net, "-o", tmp_path / "thin.nnr", "--rank", "2=3"),
        ("nnr-encode", models / "net.pt", "-o", base),
        ("nnr-encode", models / "net.pt", "-o", tmp_path / "1.nnr", "--base", base),
        ("nnr-decode", stream, "-o", output),
        ("nnr-decode", base, tmp_path / "1.nnr", "-o", output),
        ("nnr-info", stream),
        ("nnr-eval", net, stream, "--no-memory", "--no-encode", "--rounds", "1"),
    ):
        result = call(*arguments, "--quiet")
        assert (result.code, result.out, sys.stderr.getvalue()) == (0, "", "")
    stream.write_bytes(b"text")
    assert call("nnr-info", stream, "-q").code == 3
    assert sys.stderr.getvalue().startswith("nnr-info: error: ")


def test_verbose_says_how_long_each_stage_took(call, models, stream, tmp_path):
    for stages, *arguments in (
        (
            ["loading", "calibration inputs", "quantizing", "coding"],
            *("nnr-encode", models / "net.pt2", "-o", tmp_path / "net.nnr"),
        ),
        (["decoding", "writing"], "nnr-decode", stream, "-o", tmp_path / "out.pt"),
        (["reading"], "nnr-info", stream),
    ):
        result = call(*arguments, "-v")
        assert result.code == 0
        assert result.out == call(*arguments).out or arguments[0] != "nnr-info"
        name = arguments[0]
        for stage in stages:
            assert re.search(rf"^{name}: {stage}: [0-9.]+ s$", result.err, re.MULTILINE), stage
        assert call(*arguments).err == ""
    assert logging.getLogger("nnrcodec").level == logging.NOTSET


THREADS = """
import os, sys
from nnrcodec.cli import {module} as command
assert "torch" not in sys.modules
original = command.{function}
def look(*arguments, **options):
    import torch
    print("threads", torch.get_num_threads(), file=sys.stderr)
    return original(*arguments, **options)
command.{function} = look
sys.exit(command.main(sys.argv[1:]))
"""


def test_threads_bound_torch_which_is_imported_later(models, tmp_path):
    script = THREADS.format(module="encode", function="load")
    command = [sys.executable, "-c", script, models / "net.safetensors", "-o", tmp_path / "a.nnr"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    run = subprocess.run(
        [*command, "--threads", "1"], capture_output=True, text=True, env=environment
    )
    assert (run.returncode, run.stderr) == (0, "threads 1\n")


def test_threads_bound_torch_which_is_there(call, models, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    seen, load = [], encode.load

    def look(*arguments, **options):
        seen.append((torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]))
        return load(*arguments, **options)

    monkeypatch.setattr(encode, "load", look)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    for threads in (1, 2, 64):
        arguments = (models / "net.pt", "-o", tmp_path / "net.nnr", "--threads", threads)
        assert call("nnr-encode", *arguments).code == 0
    assert seen == [(1, "1"), (2, "2"), (3, "3")]
    assert torch.get_num_threads() == before
    assert "OMP_NUM_THREADS" not in os.environ


def test_torch_is_not_imported_for_what_needs_none(models, tmp_path):
    script = (
        "import sys; from nnrcodec.cli.encode import main; main(); print('torch' in sys.modules)"
    )
    options = [models / "net.safetensors", "-o", tmp_path / "a.nnr", "--threads", "1", "-q"]
    run = subprocess.run([sys.executable, "-c", script, *options], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("False\n", "")
