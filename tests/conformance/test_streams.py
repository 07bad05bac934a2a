"""Every conformance stream decodes to the digests in the manifest, or is refused as it says."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nnrcodec
from nnrcodec.model.dtypes import to_little_endian

FOLDER = Path(__file__).parents[2] / "conformance"
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())
VALID = [name for name, case in MANIFEST.items() if "tensors" in case]
INVALID = [name for name, case in MANIFEST.items() if "error" in case]
HOSTILE = [name for name, case in MANIFEST.items() if "may" in case]  # see tests/fuzz


def test_every_stream_is_in_the_manifest() -> None:
    files = {str(path.relative_to(FOLDER)) for path in FOLDER.glob("*/*.nn[rc]")}
    assert files == {case["file"] for case in MANIFEST.values()}
    assert len(VALID) + len(INVALID) + len(HOSTILE) == len(MANIFEST)


@pytest.mark.parametrize("name", VALID)
def test_valid_streams_decode_to_their_digests(name: str) -> None:
    decoder = nnrcodec.UpdateDecoder()
    for file in (*MANIFEST[name].get("after", []), MANIFEST[name]["file"]):
        decoder.decode((FOLDER / file).read_bytes())
    decoded, expected = decoder.state, MANIFEST[name]["tensors"]
    assert decoded.keys() == expected.keys()
    for tensor, value in decoded.items():
        stored = to_little_endian(value, expected[tensor]["dtype"])
        assert list(value.shape) == expected[tensor]["shape"]
        assert hashlib.sha256(stored.data).hexdigest() == expected[tensor]["sha256"], tensor


@pytest.mark.parametrize("name", INVALID)
def test_invalid_streams_are_refused_as_they_should(name: str) -> None:
    data = (FOLDER / MANIFEST[name]["file"]).read_bytes()
    decoder = nnrcodec.UpdateDecoder()
    for file in MANIFEST[name].get("after", []):
        decoder.decode((FOLDER / file).read_bytes())
    with pytest.raises(getattr(nnrcodec, MANIFEST[name]["error"])) as caught:
        decoder.decode(data) if "after" in MANIFEST[name] else nnrcodec.decode(data)
    assert type(caught.value).__name__ == MANIFEST[name]["error"]


def test_any_decoder_command_can_be_checked(tmp_path: Path) -> None:
    decoder = Path(sys.executable).with_name("nnr-decode")
    names = ["zeros", "truncated", "newer_record", "reference_upd_tca_2"]
    run = subprocess.run(
        [sys.executable, FOLDER / "check.py", f"{decoder} {{stream}} -o {{output}}", *names],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "4 of 4" in run.stdout
    strict = [sys.executable, FOLDER / "check.py", "--codes", "3,4", "--seconds", "50"]
    run = subprocess.run(
        [
            *strict,
            f"{decoder} {{stream}} -o {{output}}",
            "truncated",
            "newer_record",
            "huge_string",
        ],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    wrong = subprocess.run(
        [sys.executable, FOLDER / "check.py", "true {stream} {output}", "zeros"],
        capture_output=True,
        text=True,
    )
    assert wrong.returncode == 1
    assert "0 of 1" in wrong.stdout


CRASHES = {
    "signal": "import os; os.kill(os.getpid(), 11)",
    "crashed": "raise KeyError(1)",
    "exit code 7": "raise SystemExit(7)",
    "not done": "import time; time.sleep(60)",
}


@pytest.mark.parametrize("crash", CRASHES)
def test_a_crash_is_no_refusal(tmp_path: Path, crash: str) -> None:
    script = tmp_path / "decoder.py"
    script.write_text(CRASHES[crash])
    decoder = f"{sys.executable} {script} {{stream}} {{output}}"
    limits = ["--codes", "3,4", "--seconds", "2"]
    run = subprocess.run(
        [sys.executable, FOLDER / "check.py", *limits, decoder, "truncated"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert crash in run.stdout
