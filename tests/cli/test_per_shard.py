import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import nnrcodec
from nnrcodec import ConfigError, EncoderConfig, LowRankConfig, ModelError

RNG = np.random.default_rng(0)
SHARDS = {
    "model-00001-of-00002.safetensors": {
        "a": RNG.normal(size=(40, 30)).astype(np.float32),
        "n": np.arange(5),
    },
    "model-00002-of-00002.safetensors": {"b": RNG.normal(size=(30, 50)).astype(np.float16)},
}
STREAMS = ["model-00001-of-00002.nnr", "model-00002-of-00002.nnr"]
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    for name, tensors in SHARDS.items():
        save_file(tensors, path / name, {"format": "pt"})
    mapping = {tensor: name for name, tensors in SHARDS.items() for tensor in tensors}
    (path / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": mapping}))
    return path


def assert_same_shards(folder, source, error=0.02):
    assert (folder / INDEX).read_bytes() == (source / INDEX).read_bytes()
    for name, tensors in SHARDS.items():
        decoded = load_file(folder / name)
        assert {key: value.dtype for key, value in decoded.items()} == {
            key: value.dtype for key, value in tensors.items()
        }
        for key, value in tensors.items():
            difference = decoded[key].astype(float) - value
            assert np.square(difference).sum() <= error * np.square(value.astype(float)).sum()


def test_shards_go_to_streams_and_back(call, folder, tmp_path):
    streams, decoded = tmp_path / "small", tmp_path / "back"
    result = call("nnr-encode", folder, "--per-shard", "-o", streams)
    assert (result.code, result.err) == (0, "")
    *each, last = result.out.splitlines()
    assert [line.partition(":")[0] for line in each] == [str(streams / name) for name in STREAMS]
    assert last.startswith(f"{streams}: 2 streams and an index, ")
    assert sorted(path.name for path in streams.iterdir()) == [*STREAMS, INDEX]
    result = call("nnr-decode", streams, "-o", decoded)
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-1].startswith(f"{decoded}: 2 shards and an index, ")
    assert_same_shards(decoded, folder)


def test_json_has_a_report_for_each_shard(call, folder, tmp_path):
    result = call(
        "nnr-encode", folder / INDEX, "--per-shard", "--lossless", "--json", "-o", tmp_path / "s"
    )
    report = json.loads(result.out)
    assert [row["lossless"] for row in report["shards"]] == [True, True]
    assert report["bytes"] == sum(row["bytes"] for row in report["shards"])
    assert report["bytes"] == sum((tmp_path / "s" / name).stat().st_size for name in STREAMS)
    nnrcodec.decode_folder(tmp_path / "s", tmp_path / "d")
    assert_same_shards(tmp_path / "d", folder, error=0)


def test_a_missing_stream_or_shard_is_named(folder, tmp_path):
    nnrcodec.encode_folder(folder, tmp_path / "s")
    (tmp_path / "s" / STREAMS[1]).unlink()
    with pytest.raises(ModelError, match=f"not there: {STREAMS[1]}"):
        nnrcodec.decode_folder(tmp_path / "s", tmp_path / "d")
    assert not (tmp_path / "d").exists()
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="not there: model-00002"):
        nnrcodec.encode_folder(folder, tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_without_all_streams_there_is_no_index(folder, tmp_path):
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError):
        nnrcodec.encode_folder(folder, tmp_path / "s")
    assert [path.name for path in (tmp_path / "s").iterdir()] == STREAMS[:1]


@pytest.mark.parametrize("name", ["../x.safetensors", "x.nnr", "x"])
def test_an_index_from_a_stranger_names_no_other_files(folder, tmp_path, name):
    nnrcodec.encode_folder(folder, tmp_path / "s")
    (tmp_path / "s" / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError):
        nnrcodec.decode_folder(tmp_path / "s", tmp_path / "d")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--per-shard"], "give a folder with -o"),
        (["--per-shard", "-o", "OUT", "--calib", "synthetic"], "a network that runs"),
        (["--per-shard", "-o", "OUT", "--max-loss", "1%"], "--max-loss does not go"),
        (["--per-shard", "-o", "OUT", "--rank-ratio", "0.5"], "keep their tensors"),
        (["--per-shard", "-o", "IN"], "is the folder of the input"),
    ],
)
def test_what_does_not_go_together(call, folder, tmp_path, options, message):
    places = {"OUT": tmp_path / "out", "IN": folder}
    result = call("nnr-encode", folder, *(places.get(option, option) for option in options))
    assert result.code == 2
    assert message in result.err


def test_folders_go_to_folders(call, folder, tmp_path):
    nnrcodec.encode_folder(folder, tmp_path / "s")
    result = call("nnr-decode", tmp_path / "s", "-o", tmp_path / "m.safetensors")
    assert result.code == 2
    assert "give a folder with -o" in result.err
    with pytest.raises(ConfigError, match="keep their tensors"):
        nnrcodec.encode_folder(
            folder, tmp_path / "t", EncoderConfig(low_rank=LowRankConfig(rank_ratio=0.5))
        )
