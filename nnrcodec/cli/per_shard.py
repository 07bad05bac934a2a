"""Checkpoints in shards on the command line: a stream for each of them, and back."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from nnrcodec.cli.command import StageBars, print_json, say
from nnrcodec.cli.report import report_of
from nnrcodec.cli.table import counted, grouped
from nnrcodec.config import EncoderConfig
from nnrcodec.encoder.report import EncodeResult
from nnrcodec.errors import ConfigError
from nnrcodec.folders import decode_folder, encode_folder
from nnrcodec.formats import is_model_file
from nnrcodec.limits import Limits


def encode_shards(options: argparse.Namespace, config: EncoderConfig, start: float) -> None:
    """Run nnr-encode --per-shard.

    Raises
    ------
    ConfigError
        An option is for networks in one stream, or there is no output.
    """
    alone = ("base", "key", "residual", "task", "max_loss", "fold_batch_norm", "distill")
    for name in alone:
        if getattr(options, name):
            raise ConfigError(f"--{name.replace('_', '-')} does not go with --per-shard")
    if options.calib not in (None, "none"):
        raise ConfigError("--calib needs a network that runs, which a shard is none: omit it")
    if options.output is None:
        raise ConfigError("--per-shard writes several streams: give a folder with -o")
    output: Path = options.output
    reports = []

    def done(stream: Path, result: EncodeResult) -> None:
        report = result.report
        seconds = report.seconds
        reports.append(report_of(report, stream, None, seconds))
        percent = 100 * report.stream_bytes / report.original_bytes
        line = f"{stream}: {grouped(report.stream_bytes)} bytes, {percent:.1f} %, {seconds:.1f} s"
        if not options.json:
            say(options, [line])

    with StageBars({"coding": " weights"}, quiet=options.quiet) as progress:
        results = encode_folder(options.input, output, config, progress=progress, done=done)
    size = sum(len(result.data) for result in results.values())
    whole = sum(result.report.original_bytes for result in results.values())
    if options.json:
        sizes = {"output": str(output), "bytes": size, "original_bytes": whole}
        print_json({**sizes, "shards": reports, "warnings": options.warnings})
    else:
        seconds = time.perf_counter() - start
        line = (
            f"{output}: {counted(len(results), 'stream')} and an index, {grouped(size)} bytes, "
            f"{100 * size / whole:.1f} % of {grouped(whole)}, {seconds:.1f} s"
        )
        say(options, [line])


def decode_shards(options: argparse.Namespace, folder: Path, limits: Limits, start: float) -> None:
    """Run nnr-decode with a folder of streams.

    Raises
    ------
    ConfigError
        The output is not to be a folder.
    """
    output: Path = options.output
    if is_model_file(output):
        raise ConfigError(f"{folder} is a folder of streams: give a folder with -o, too")
    shards = decode_folder(
        folder,
        output,
        merge=options.merge,
        limits=limits,
        threads=options.threads,
        require_record=options.require_record,
        done=lambda shard: say(options, [str(shard)]),
    )
    line = (
        f"{output}: {counted(len(shards), 'shard')} and an index, "
        f"{time.perf_counter() - start:.1f} s"
    )
    say(options, [line])
