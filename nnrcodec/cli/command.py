"""What the commands have in common: options, messages, progress, errors and exit codes."""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from nnrcodec.errors import BitstreamError, ConfigError, NnrError, UnsupportedFeatureError
from nnrcodec.formats import MAX_STREAM_BYTES, is_device, is_model_file, read_stream_file
from nnrcodec.messages import said_once
from nnrcodec.progress import Progress
from nnrcodec.version import __version__

EXIT_CODES = """\
exit codes:
  0  done
  1  the model cannot be coded, or any other failure
  2  wrong usage: an option, or a file that cannot be read or written
  3  the stream is damaged
  4  the stream needs something that this version does not have"""

OPTIONS = "options, with defaults in [brackets]"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What a command says of itself.

    Parameters
    ----------
    name : str
        Of the command.
    usage : str
        What follows its name.
    summary : str
        What it does, for ``--help``.
    description : str
        The same for ``--help-all``.
    common : tuple of str
        Options that ``--help`` shows, in this order.
    examples : str
        For ``--help``.
    details : str
        Examples and more, for ``--help-all``.
    """

    name: str
    usage: str
    summary: str
    description: str
    common: tuple[str, ...]
    examples: str
    details: str


class Parser(argparse.ArgumentParser):
    """A parser with what all commands have, and two helps: one fits a screen, one has all."""

    def __init__(self, texts: Texts) -> None:
        super().__init__(
            prog=texts.name,
            usage=f"%(prog)s {texts.usage}",
            description=texts.description,
            epilog=f"{texts.details}\n\n{EXIT_CODES}",
            formatter_class=_Formatter,
            allow_abbrev=False,
            add_help=False,
        )
        self._texts = texts
        self._optionals.title = OPTIONS
        self.set_defaults(json=False)
        self.add_argument("-h", "--help", action="help", help="show the most used options")
        self.add_argument("--help-all", action=_HelpAll, nargs=0, help="show all options")
        self.add_argument(
            "--version", action="version", version=f"{texts.name} (nnrcodec {__version__})"
        )
        either = self.add_mutually_exclusive_group()
        either.add_argument(
            "-q",
            "--quiet",
            action="store_true",
            help="only errors and warnings: no progress bar, no summary",
        )
        either.add_argument(
            "-v",
            "--verbose",
            action="store_true",
            help="also say what is done, and how many seconds each stage takes",
        )
        self.add_argument(
            "--debug", action="store_true", help="show tracebacks, and warnings of other libraries"
        )

    def format_help(self) -> str:
        """Return what ``--help`` prints."""
        texts = self._texts
        named = {name: action for action in self._actions for name in action.option_strings}
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, (), ())
        formatter.add_text(texts.summary)
        formatter.start_section(OPTIONS)
        formatter.add_arguments(action for action in self._actions if not action.option_strings)
        formatter.add_arguments(named[name] for name in texts.common)
        formatter.end_section()
        formatter.add_text(texts.examples)
        formatter.add_text(f"{texts.name} --help-all has all options.")
        return formatter.format_help()

    def format_help_all(self) -> str:
        """Return what ``--help-all`` prints."""
        return super().format_help()


class _HelpAll(argparse.Action):
    """Print the help that has everything."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        if isinstance(parser, Parser):
            print(parser.format_help_all(), end="")
        sys.exit(0)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Texts as they are, and the value of an option once, after all its names."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


def run(parser: Parser, work: Callable[[argparse.Namespace], None], argv: list[str] | None) -> int:
    """Parse the arguments, do the work, and turn errors into a message and an exit code.

    Parameters
    ----------
    parser : Parser
        With the name of the file to read as ``input``.
    work : callable
        Takes the options. What was logged by way of warning is in the list ``warnings`` of them.
    argv : list of str, optional
        The arguments; those of the process by default.
    """
    options = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of tensors may be in any script
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _own_messages_only(parser.prog, options), _threads_of_torch(options):
            work(options)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # a defect, unless it is one of ours
        if options.debug:
            traceback.print_exception(error)
        print(f"{parser.prog}: error: {_message(error, options.input)}", file=sys.stderr)
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
def _own_messages_only(name: str, options: argparse.Namespace) -> Iterator[None]:
    """Show what this package logs, and warnings of other libraries only for ``--debug``."""
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter(f"{name}: %(message)s"))
    own = logging.getLogger("nnrcodec")
    level = own.level
    own.setLevel(logging.INFO if options.verbose else logging.WARNING)
    own.addHandler(shown)
    try:
        with warnings.catch_warnings(), said_once() as options.warnings:
            warnings.simplefilter("default" if options.debug else "ignore")
            yield
    finally:
        own.setLevel(level)
        own.removeHandler(shown)


@contextmanager
def _threads_of_torch(options: argparse.Namespace) -> Iterator[None]:
    """Let ``--threads`` bound the threads of PyTorch, whether it is imported by now or later."""
    threads: int | None = getattr(options, "threads", None)
    if threads is None:
        yield
        return
    threads = min(threads, os.cpu_count() or threads)
    torch = sys.modules.get("torch")
    threads_before = None if torch is None else torch.get_num_threads()
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # which PyTorch reads as it is imported
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(dict.fromkeys(variables, str(threads)))
    if torch is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if torch is not None:
            torch.set_num_threads(threads_before)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Log how many seconds a stage took, for ``--verbose``."""
    start = time.perf_counter()
    yield
    logger.info("%s: %.1f s", what, time.perf_counter() - start)


@contextmanager
def progress_bar(what: str, unit: str = " weights", *, quiet: bool = False) -> Iterator[Progress]:
    """Show a bar on a terminal; yield what to call with how much is done and how much in all."""
    hidden = True if quiet else None  # None hides it where there is no terminal
    shown = tqdm(desc=what, unit=unit, unit_scale=True, disable=hidden, leave=False)
    with timed(what), shown as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


class StageBars(AbstractContextManager["StageBars"]):
    """One bar after the other, for the stages of long work.

    Parameters
    ----------
    units : mapping of str to str
        What a stage counts, where that is not layers.
    quiet : bool
        Whether to show nothing.
    """

    def __init__(self, units: Mapping[str, str], *, quiet: bool) -> None:
        self._units, self._quiet = units, quiet
        self._stage: str | None = None
        self._bar = ExitStack()
        self._advance: Progress = lambda _done, _total: None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is; the bar of another one ends."""
        if stage != self._stage:
            self._bar.close()
            unit = self._units.get(stage, " layers")
            self._advance = self._bar.enter_context(progress_bar(stage, unit, quiet=self._quiet))
            self._stage = stage
        self._advance(done, total)

    def __exit__(self, *_error: object) -> None:
        self._bar.close()


def read_stream(path: Path) -> bytes:
    """Return the bytes of a stream: of a file, or of standard input where the name is ``-``."""
    if not is_standard_input(path):
        return read_stream_file(path)
    data = sys.stdin.buffer.read(MAX_STREAM_BYTES + 1)
    if len(data) > MAX_STREAM_BYTES:
        raise ConfigError(
            f"standard input has more than {MAX_STREAM_BYTES} bytes, the most that is read"
        )
    return data


def is_standard_input(path: Path) -> bool:
    """Return whether a stream is to be read from standard input."""
    return path == Path("-")


def print_json(report: object) -> None:
    """Print an object as JSON; what is not finite is null."""
    print(json.dumps(_finite(report), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def say(options: argparse.Namespace, lines: Iterable[str], output: Path | None = None) -> None:
    """Print what was done, unless ``--quiet``; not into an output that is a pipe or a device."""
    if not options.quiet:
        stream = sys.stderr if output is not None and is_device(output) else sys.stdout
        for line in lines:
            print(line, file=stream)
