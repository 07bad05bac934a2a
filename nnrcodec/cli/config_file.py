"""``--config FILE.toml``: options in a file, by the names that they have on the command line."""

from __future__ import annotations

import argparse
import difflib
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nnrcodec.errors import ConfigError

_NOT_IN_FILES = {"--config", "--help", "--help-all", "--version"}


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="options from a TOML file, by their names without dashes, such as "
        "max-loss = '0.03dB'; what is on the command line comes first. nnr-info --config writes "
        "such files",
    )


def with_config(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> list[str]:
    """Return arguments with those of the file that they name, if they name one.

    Parameters
    ----------
    parser : ArgumentParser
        Knows the options. What is wrong with the file is an error of its.
    argv : sequence of str, optional
        The arguments; those of the process by default.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config", type=Path)
    path = before.parse_known_args(given)[0].config
    if path is None:
        return given
    try:
        return [*_arguments(parser, path, _named(parser, given)), *given]
    except ConfigError as error:
        parser.error(str(error))


def _named(parser: argparse.ArgumentParser, given: Sequence[str]) -> set[str]:
    """Return the options that arguments name, and those that do not go with them."""
    unset = object()
    lists = (argparse._AppendAction,)
    actions = [action for action in parser._actions if action.option_strings]
    namespace = argparse.Namespace(
        **{action.dest: None if isinstance(action, lists) else unset for action in actions}
    )
    found = vars(parser.parse_args(list(given), namespace))
    named = {
        action.dest
        for action in actions
        if found.get(action.dest) is not unset and found.get(action.dest) is not None
    }
    for group in parser._mutually_exclusive_groups:
        members = {action.dest for action in group._group_actions}
        if members & named:
            named |= members
    return named


def _arguments(parser: argparse.ArgumentParser, path: Path, named: set[str]) -> Iterator[str]:
    """Yield what a file says as arguments, without what was named already."""
    actions = {
        name.removeprefix("--"): (name, action)
        for action in parser._actions
        for name in action.option_strings
        if name.startswith("--") and name not in _NOT_IN_FILES
    }
    for key, value in _content(path).items():
        name = key.replace("_", "-")
        if name not in actions:
            near = difflib.get_close_matches(name, actions, n=3, cutoff=0.5)
            hint = f"; do you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"{path}: there is no option {key!r}{hint}")
        option, action = actions[name]
        if action.dest not in named:
            yield from _argument(f"{path}: {key}", option, action, value)


def _content(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no TOML file: it is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from None


def _argument(where: str, option: str, action: argparse.Action, value: Any) -> Iterator[str]:
    """Yield an option with a value of a file."""
    if action.nargs == 0:  # a flag; some have a second name for no
        if not isinstance(value, bool):
            raise ConfigError(f"{where} is {value!r}, expected true or false")
        no = f"--no-{option.removeprefix('--')}"
        if value:
            yield option
        elif no in action.option_strings:
            yield no
        return
    if option == "--set" and isinstance(value, dict):
        value = [f"{pattern}:{_pairs(where, own)}" for pattern, own in value.items()]
    several = isinstance(value, list)
    if several and not isinstance(action, argparse._AppendAction):
        value = [",".join(_text(where, part) for part in value)]
    for part in value if several else [value]:
        yield f"{option}={_text(where, part)}"


def _pairs(where: str, own: object) -> str:
    if not isinstance(own, dict):
        raise ConfigError(f"{where} has {own!r}, expected a table of keys and values")
    return ",".join(f"{key}={_text(where, value)}" for key, value in own.items())


def _text(where: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise ConfigError(f"{where} is {value!r}, expected a text or a number")
    return str(value)
