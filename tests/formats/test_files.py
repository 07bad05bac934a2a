import subprocess
import sys

import numpy as np
import pytest

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats import FORMATS, load, save
from nnrcodec.model.model import Model, Tensor

MODEL = Model.of([Tensor.of("a", np.arange(6, dtype=np.float32).reshape(2, 3))])


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.pth", "M.PT", "a.b.SafeTensors"])
def test_the_ending_chooses_the_format(tmp_path, name):
    save(MODEL, tmp_path / name)
    (tensor,) = load(str(tmp_path / name)).tensors.values()
    np.testing.assert_array_equal(tensor.read(), MODEL.tensors["a"].read())


@pytest.mark.parametrize("name", ["m.tflite", "m", "m.bin"])
def test_an_unknown_ending_lists_the_known_ones(tmp_path, name):
    for action in (lambda: load(tmp_path / name), lambda: save(MODEL, tmp_path / name)):
        with pytest.raises(ConfigError, match=r"\.pt2, \.pt, \.pth, \.safetensors"):
            action()


@pytest.mark.parametrize("ending", FORMATS)
def test_a_missing_file_or_a_folder_is_a_config_error(tmp_path, ending):
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / f"none{ending}")
    (tmp_path / f"folder{ending}").mkdir()
    with pytest.raises(ConfigError, match="folder"):
        load(tmp_path / f"folder{ending}")


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("content", [b"", b"junk", b"\x80" * 200, b"PK\x05\x06" + bytes(18)])
def test_a_damaged_file_is_a_model_error(tmp_path, ending, content):
    (tmp_path / f"bad{ending}").write_bytes(content)
    with pytest.raises(ModelError, match=f"bad{ending} is damaged"):
        load(tmp_path / f"bad{ending}")


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_a_truncated_file_is_a_model_error(tmp_path, ending):
    path = tmp_path / f"cut{ending}"
    save(MODEL, path)
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match="is damaged"):
            load(path)


def test_importing_the_formats_does_not_import_torch():
    code = "import sys, nnrcodec.formats; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
