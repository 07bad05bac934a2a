"""Check any decoder against the conformance streams.

    python conformance/check.py 'nnr-decode {stream} -o {output}' [--codes 3,4] [NAME ...]

The command gets the stream in place of {stream} and must write a safetensors file in place of
{output}; for streams in invalid/ it must fail and write nothing. Those in hostile/ it may decode or
refuse, soon and without much memory. A decoder that is ended by a signal, runs for more than
--seconds or prints a traceback of Python has not refused anything; with --codes neither has one
that ends with another exit code (nnr-decode: 3 for damaged, 4 for not supported). For an update
{stream} is several arguments, the base model and all updates up to this one, and the output is the
model after it.
Decoders that know the standard alone can be checked with the streams of reference/, whose names
begin with reference_. All streams are tried, then the results are counted; the exit code is 0 if
all are as they should be. Needs Python and its standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
SIGNALS = (4, 6, 7, 8, 9, 11, 24)
"""Of processes that crash or take too much; a shell adds 128 to make them exit codes."""
DTYPES = {
    "F32": "float32",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
    "F64": "float64",
    "F16": "float16",
    "BF16": "bfloat16",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "BOOL": "bool",
}


def read_safetensors(path: Path) -> dict[str, Any]:
    """Return shape, dtype and SHA-256 of each tensor of a safetensors file."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            found[name] = {
                "shape": entry["shape"],
                "dtype": DTYPES[entry["dtype"]],
                "sha256": hashlib.sha256(data[start + first : start + last]).hexdigest(),
            }
    return found


def problem_with(
    case: dict[str, Any], command: str, output: Path, codes: set[int] | None, seconds: float
) -> str | None:
    """Run the decoder on one stream; return what is wrong, or None."""
    streams = [str(FOLDER / file) for file in (*case.get("after", []), case["file"])]
    places = {"stream": streams[-1], "output": str(output)}
    parts = [
        streams if part == "{stream}" else [part.format(**places)] for part in shlex.split(command)
    ]
    words = [*itertools.chain(*parts)]
    try:
        run = subprocess.run(words, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"is not done after {seconds:g} s"
    if "error" in case or "may" in case:
        if run.returncode == 0:
            return None if "decodes" in case.get("may", ()) else "was decoded, but must be refused"
        return "was decoded, but must be refused" if output.exists() else crash_of(run, codes)
    if run.returncode != 0 or not output.exists():
        return f"was not decoded: {run.stderr.strip() or 'no output'}"
    found = read_safetensors(output)
    wrong = [name for name in case["tensors"] if found.get(name) != case["tensors"][name]]
    wrong += [name for name in found if name not in case["tensors"]]
    return f"differs in {', '.join(wrong)}" if wrong else None


def crash_of(run: subprocess.CompletedProcess[str], codes: set[int] | None) -> str | None:
    """Return why a decoder that failed has not refused the stream, or None if it has."""
    last = (run.stderr.strip().splitlines() or ["no message"])[-1][:200]
    if run.returncode < 0 or run.returncode in {128 + number for number in SIGNALS}:
        return f"was not refused: the decoder was ended by signal {abs(run.returncode) % 128}"
    if "Traceback (most recent call last)" in run.stderr:
        return f"was not refused: the decoder crashed: {last}"
    if codes is not None and run.returncode not in codes:
        return f"was not refused: exit code {run.returncode}: {last}"
    return None


def codes_of(text: str) -> set[int]:
    """Return the numbers in a list with commas."""
    return {int(number) for number in text.split(",")}


def main() -> int:
    """Check all streams and count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", help="with {stream} and {output}, each a word of its own")
    parser.add_argument("name", nargs="*", help="streams to check [all]")
    parser.add_argument("--codes", type=codes_of, help="exit codes of a refusal [any but 0]")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each stream [60]")
    arguments = parser.parse_args()

    manifest = json.loads((FOLDER / "manifest.json").read_text())
    names = arguments.name or list(manifest)
    right = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "out.safetensors"
            problem = problem_with(
                manifest[name], arguments.command, output, arguments.codes, arguments.seconds
            )
        right += problem is None
        print(f"{'ok  ' if problem is None else 'FAIL'} {name}{': ' + problem if problem else ''}")
    print(f"{right} of {len(names)} as they should be")
    return 0 if right == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
