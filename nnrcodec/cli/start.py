"""Where the installed commands start: what is imported here takes no time.

So a Ctrl-C while the commands load what they need is as quiet as one while they work.
"""

from __future__ import annotations

import sys
from importlib import import_module


def encode(argv: list[str] | None = None) -> int:
    """Run nnr-encode; by default with the arguments of the process."""
    return _run("encode", "nnr-encode", argv)


def decode(argv: list[str] | None = None) -> int:
    """Run nnr-decode."""
    return _run("decode", "nnr-decode", argv)


def info(argv: list[str] | None = None) -> int:
    """Run nnr-info."""
    return _run("info", "nnr-info", argv)


def evaluate(argv: list[str] | None = None) -> int:
    """Run nnr-eval."""
    return _run("evaluate", "nnr-eval", argv)


COMMANDS = {"encode": encode, "decode": decode, "info": info, "eval": evaluate}

USAGE = f"""\
usage: python -m nnrcodec {{{",".join(COMMANDS)}}} ...

The same as nnr-encode, nnr-decode, nnr-info and nnr-eval. Each has --help."""


def main() -> int:
    """Run the command that the first argument of the process names."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word in COMMANDS:
        return COMMANDS[word](sys.argv[2:])
    asked = word in ("-h", "--help")
    print(USAGE, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def _run(module: str, name: str, argv: list[str] | None) -> int:
    try:
        code: int = import_module(f"nnrcodec.cli.{module}").main(argv)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    return code
