from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

import nnrcodec

PUBLIC = [
    "BitstreamError",
    "CabacConfig",
    "LayerRank",
    "ConfigError",
    "DistillationConfig",
    "EncodeReport",
    "EncodeResult",
    "EncoderConfig",
    "EncodingError",
    "LimitExceededError",
    "Limits",
    "LowRankConfig",
    "Model",
    "ModelError",
    "NnrError",
    "PayloadError",
    "SyntaxElementError",
    "Tensor",
    "TensorConfig",
    "TensorReport",
    "TruncatedBitstreamError",
    "UniformConfig",
    "UnitOrderError",
    "UnsupportedFeatureError",
    "UpdateDecoder",
    "UpdateEncoder",
    "__version__",
    "decode",
    "decode_file",
    "decode_folder",
    "decode_model",
    "encode",
    "encode_file",
    "encode_folder",
    "inspect",
    "load",
    "load_into",
    "save",
]

SIGNATURES = {
    "encode": (
        "(model, example_inputs=None, config=None, *, calib='auto', score=None, "
        "dynamic_shapes=None, calib_count=None, seed=0, progress=None)"
    ),
    "decode": "(data, *, merge=False, limits=None, threads=None, require_record=False)",
    "decode_model": "(data, *, merge=False, limits=None, threads=None, require_record=False)",
    "inspect": "(data, *, limits=None, trace=None, require_record=False)",
    "load_into": (
        "(module, data, *, merge=False, limits=None, threads=None, require_record=False)"
    ),
}


def test_the_public_names_are_these() -> None:
    assert sorted(nnrcodec.__all__) == sorted(PUBLIC)
    assert all(hasattr(nnrcodec, name) for name in PUBLIC)


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signatures_are_these(name: str) -> None:
    signature = inspect.signature(getattr(nnrcodec, name))
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == SIGNATURES[name]


@pytest.mark.parametrize("name", [n for n in PUBLIC if n != "__version__"])
def test_everything_public_is_documented(name: str) -> None:
    assert getattr(nnrcodec, name).__doc__


def test_importing_the_package_is_light() -> None:
    script = "import sys, json, nnrcodec; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    loaded = {name.partition(".")[0] for name in json.loads(output)}
    assert not loaded & {"torch", "sympy", "safetensors", "tqdm", "hypothesis", "scipy"}
    assert len(json.loads(output)) < 500
