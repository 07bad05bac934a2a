import json

import pytest
import torch
from safetensors.torch import save_file

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats import load

SHARDS = {
    "model-00001-of-00002.safetensors": {"b": torch.ones(2, 3), "a": torch.zeros(4)},
    "model-00002-of-00002.safetensors": {"c": torch.full((2,), 3.0)},
}


@pytest.fixture
def index(tmp_path):
    for name, tensors in SHARDS.items():
        save_file(tensors, tmp_path / name, {"format": "pt"})
    return write_index(tmp_path, {t: name for name, tensors in SHARDS.items() for t in tensors})


def write_index(folder, mapping):
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": mapping}))
    return path


def test_all_shards_are_one_model_by_index_or_folder(index, caplog):
    for path in (index, index.parent):
        model = load(path)
        assert set(model.tensors) == {"a", "b", "c"}
        assert model.source.wrapper.content == {"format": "pt"}
    assert "2 shards are coded as one stream" in caplog.text


def test_a_missing_shard_is_named(index):
    (index.parent / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"not there: model-00002-of-00002.safetensors"):
        load(index)


def test_a_missing_tensor_is_named(index):
    write_index(index.parent, {"d": "model-00002-of-00002.safetensors"})
    with pytest.raises(ModelError, match="'d' is not in model-00002"):
        load(index)


def test_one_shard_alone_warns(index, caplog):
    load(index.parent / "model-00001-of-00002.safetensors")
    assert "one of 2 shards" in caplog.text


def test_shards_of_pytorch_are_read(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00001.bin")
    index = write_index(tmp_path, {"a": "pytorch_model-00001-of-00001.bin"})
    assert list(load(index).tensors) == ["a"]


@pytest.mark.parametrize("name", ["../m.safetensors", "/etc/passwd", "", "..", 3])
def test_files_outside_of_the_folder_are_not_read(index, name):
    write_index(index.parent, {"a": name})
    with pytest.raises(ModelError, match="no file in its folder"):
        load(index)


def test_a_folder_is_named_for_what_it_is(tmp_path):
    with pytest.raises(ConfigError, match="no model"):
        load(tmp_path)
    (tmp_path / "data.pkl").write_bytes(b"")
    with pytest.raises(ConfigError, match="was unpacked: zip it again"):
        load(tmp_path)
