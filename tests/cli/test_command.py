import io
import logging
import warnings

import pytest
from data_units import header_of, stream_of, unit_of

import nnrcodec
from nnrcodec.cli import encode, info

COMMANDS = ("nnr-encode", "nnr-decode", "nnr-info", "nnr-eval")
OPTIONS = {
    "nnr-encode": "--output --qp --nonweight-qp --qp-density --rank --energy --rank-ratio",
    "nnr-decode": "--output --merge --threads --max-bytes .pt2 .pt .pth .safetensors",
    "nnr-info": "--json --trace",
    "nnr-eval": "--task --data --mean --std --input-size --rounds --threads --json --report psnr",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches(call, name):
    result = call(name, "--help")
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
    monkeypatch.setattr(encode, "encode_best", raising(KeyboardInterrupt))
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
        logging.getLogger("nnrcodec.container.record").warning("something newer was ignored")
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
