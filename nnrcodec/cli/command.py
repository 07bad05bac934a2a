"""What the commands have in common: options, messages, progress, errors and exit codes."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from nnrcodec.errors import BitstreamError, ConfigError, NnrError, UnsupportedFeatureError
from nnrcodec.formats import FORMATS, MAX_STREAM_BYTES, read_stream_file
from nnrcodec.progress import Progress
from nnrcodec.version import __version__

EXIT_CODES = """\
exit codes:
  0  done
  1  the model cannot be coded, or anything that is not below
  2  wrong usage: an option, or a file that cannot be read or written
  3  the stream is damaged
  4  the stream needs something that this version does not have"""


def parser(name: str, description: str, details: str) -> argparse.ArgumentParser:
    """Return a parser with what all commands have.

    Parameters
    ----------
    name : str
        Of the command.
    description, details : str
        Help above and below the options.
    """
    made = argparse.ArgumentParser(
        prog=name,
        description=description,
        epilog=f"{details}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"{name} (nnrcodec {__version__})")
    made.add_argument(
        "--debug", action="store_true", help="show tracebacks, and warnings of other libraries"
    )
    return made


def run(
    made: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], None],
    argv: list[str] | None,
) -> int:
    """Parse the arguments, do the work, and turn errors into a message and an exit code.

    Parameters
    ----------
    made : argparse.ArgumentParser
        With the name of the file to read as ``input``.
    work : callable
        Takes the options.
    argv : list of str, optional
        The arguments; those of the process by default.
    """
    options = made.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of tensors may be in any script
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _own_messages_only(made.prog, options.debug):
            work(options)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"{made.prog}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # a defect, unless it is one of ours
        if options.debug:
            traceback.print_exception(error)
        print(f"{made.prog}: error: {_message(error, options.input)}", file=sys.stderr)
        return _exit_code(error)
    return 0


def _message(error: Exception, path: Path) -> str:
    source = "standard input" if is_standard_input(path) else path
    if isinstance(error, BitstreamError | UnsupportedFeatureError):
        hint = "; by its name it is a model file, not a stream" if is_model_file(path) else ""
        return f"{source}: {error}{hint}"
    if isinstance(error, NnrError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{source}: there is not enough memory"
    return (
        f"{source}: unexpected {type(error).__name__}: {error}; this is a defect of nnrcodec, "
        "please report it with what --debug shows"
    )


def _exit_code(error: Exception) -> int:
    codes = {ConfigError: 2, BitstreamError: 3, UnsupportedFeatureError: 4}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), 1)


@contextmanager
def _own_messages_only(name: str, debug: bool) -> Iterator[None]:
    """Show what this package logs, and warnings of other libraries only for `debug`."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{name}: %(message)s"))
    logger = logging.getLogger("nnrcodec")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default" if debug else "ignore")
            yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def progress_bar(what: str, unit: str = " weights") -> Iterator[Progress]:
    """Show a bar on a terminal; yield what to call with how much is done and how much in all."""
    with tqdm(desc=what, unit=unit, unit_scale=True, disable=None, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


def read_stream(path: Path) -> bytes:
    """Return the bytes of a stream: of a file, or of standard input where the name is ``-``."""
    if not is_standard_input(path):
        return read_stream_file(path)
    data = sys.stdin.buffer.read(MAX_STREAM_BYTES + 1)
    if len(data) > MAX_STREAM_BYTES:
        raise ConfigError(
            f"standard input has more than the {MAX_STREAM_BYTES} bytes that are read"
        )
    return data


def is_standard_input(path: Path) -> bool:
    """Return whether a stream is to be read from standard input."""
    return path == Path("-")


def is_model_file(path: Path) -> bool:
    """Return whether the ending of a file name is that of a model file."""
    return path.suffix.lower() in FORMATS


def check_output(output: Path, source: Path) -> None:
    """Refuse, before long work, an output that is the input or cannot be written."""
    try:
        if output.is_dir():
            raise ConfigError(f"cannot write {output}: it is a folder; give the name of a file")
        if output.exists() and not is_standard_input(source) and output.samefile(source):
            raise ConfigError(f"{output} is the input as well; give another name with -o")
        if is_device(output):
            return
        folder = output.resolve().parent
        if not folder.is_dir():
            raise ConfigError(f"cannot write {output}: there is no folder {folder}")
        if not os.access(folder, os.W_OK):
            raise ConfigError(f"cannot write {output}: the folder {folder} is write-protected")
    except OSError as error:
        raise ConfigError(f"cannot open {error.filename}: {error.strerror}") from error


def is_device(path: Path) -> bool:
    """Return whether a path is something else than a file, such as ``/dev/stdout``."""
    return path.exists() and not path.is_file()


def messages_beside(output: Path) -> TextIO:
    """Return where to say what was done, so that it does not get into the output."""
    return sys.stderr if is_device(output) else sys.stdout
