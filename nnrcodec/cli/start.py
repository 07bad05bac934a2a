"""Where the installed commands start: what is imported here takes no time.

So a Ctrl-C while the commands load what they need is as quiet as one while they work.
"""

from __future__ import annotations

import sys
from importlib import import_module


def encode() -> int:
    """Run nnr-encode."""
    return _run("encode", "nnr-encode")


def decode() -> int:
    """Run nnr-decode."""
    return _run("decode", "nnr-decode")


def info() -> int:
    """Run nnr-info."""
    return _run("info", "nnr-info")


def evaluate() -> int:
    """Run nnr-eval."""
    return _run("evaluate", "nnr-eval")


def _run(module: str, name: str) -> int:
    try:
        code: int = import_module(f"nnrcodec.cli.{module}").main()
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    return code
