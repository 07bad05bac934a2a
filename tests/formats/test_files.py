import contextlib
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

import nnrcodec
from nnrcodec.errors import ConfigError, ModelError, NnrError
from nnrcodec.formats import load, save
from nnrcodec.model.model import Model, Tensor

MODEL = Model.of([Tensor.of("a", np.arange(6, dtype=np.float32).reshape(2, 3))])


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.pth", "M.PT", "a.b.SafeTensors"])
def test_the_ending_chooses_the_format(tmp_path, name):
    save(MODEL, tmp_path / name)
    (tensor,) = load(str(tmp_path / name)).tensors.values()
    np.testing.assert_array_equal(tensor.read(), MODEL.tensors["a"].read())


def test_an_unknown_ending_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match=r"\.pt2, \.pt, \.pth, \.ckpt, \.bin, \.safetensors"):
        save(MODEL, tmp_path / "m.gguf")


@pytest.mark.parametrize("name", ["m", "m.bin", "m.tar", "m.pkl", "m.onnx", "m.safetensors"])
@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".npz"])
def test_the_content_says_what_a_file_is(tmp_path, ending, name):
    save(MODEL, tmp_path / f"x{ending}")
    (tmp_path / f"x{ending}").rename(tmp_path / name)
    (tensor,) = load(tmp_path / name).tensors.values()
    np.testing.assert_array_equal(tensor.read(), MODEL.tensors["a"].read())


@pytest.mark.parametrize("ending", [".pt2", ".pt", ""])
def test_a_missing_file_or_a_folder_without_a_model_is_a_config_error(tmp_path, ending):
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / f"none{ending}")
    (tmp_path / f"folder{ending}").mkdir()
    with pytest.raises(ConfigError, match="folder with no model"):
        load(tmp_path / f"folder{ending}")


def onnx_like() -> bytes:
    graph = b"\x0a\x02\x08\x01" * 40
    return b"\x08\x0a\x12\x07pytorch\x3a\xa0\x01" + graph


UNKNOWN = {
    "empty": (b"", "is empty: download it again"),
    "junk": (b"junk", "is damaged, or of a kind that is not known: .* 6a 75 6e 6b"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "Git LFS pointer.*git lfs pull",
    ),
    "page": (b"\n <!DOCTYPE html><html></html>", "is a web page"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(20), "is a TFLite model"),
    "gguf": (b"GGUF\x03\0\0\0", "is a GGUF model"),
    "onnx": (onnx_like(), "is damaged or not an ONNX file: it has no graph"),
    "mat": (b"MATLAB 5.0 MAT-file, Platform" + bytes(200), "is damaged or cut short"),
    "mat 7.3": (b"MATLAB 7.3 MAT-file" + bytes(600), "is damaged or cut short"),
    "an empty archive": (b"PK\x05\x06" + bytes(18), "zip archive without a model"),
    "a cut archive": (b"PK\x03\x04" + bytes(60), "is a truncated zip archive"),
    "gzip": (b"\x1f\x8b\x08" + bytes(20), "is a compressed file: unpack it"),
    "tar": (bytes(257) + b"ustar" + bytes(250), "is a tar archive"),
    "old torch": (b"sys_info" + bytes(249) + b"ustar" + bytes(250), "before version 0.1.10"),
    "pickle": (b"\x80\x04K\x01.", "is a pickle that PyTorch did not write"),
    "json": (b'{"a": 1}', "is JSON text"),
    "not a pickle": (b"\x80" * 200, "is damaged, or of a kind"),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_is_not_read_is_named_with_what_to_do(tmp_path, kind):
    content, message = UNKNOWN[kind]
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load(path)


def test_a_stream_is_named(tmp_path):
    (tmp_path / "m.pt").write_bytes(nnrcodec.encode({"w": np.ones((20, 20), np.float32)}))
    with pytest.raises(ModelError, match="is an NNR stream: nnr-decode reads it"):
        load(tmp_path / "m.pt")


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".npz"])
def test_a_truncated_file_is_a_model_error(tmp_path, ending):
    path = tmp_path / f"cut{ending}"
    save(MODEL, path)
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match="cut"):
            load(path)


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".npz"])
def test_damage_is_our_own_error_or_nothing(tmp_path, ending):
    path = tmp_path / f"m{ending}"
    save(MODEL, path)
    content = bytearray(path.read_bytes())
    rng = random.Random(0)  # noqa: S311
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 1, 3, 20])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(NnrError):
            for tensor in load(path).tensors.values():
                tensor.read()


def test_importing_the_formats_does_not_import_torch():
    code = "import sys, nnrcodec.formats; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("protocol", range(1, 6))  # what 0 makes PyTorch cannot read, either
@pytest.mark.parametrize("new", [False, True])
def test_files_of_pytorch_of_all_pickle_protocols(protocol, new, tmp_path):
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.bfloat16)}
    path = tmp_path / "file"
    torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    found = {tensor.name: tensor.read().tolist() for tensor in load(path).tensors.values()}
    assert found == {"a": [0, 1, 2], "b": [[1, 1], [1, 1]]}
