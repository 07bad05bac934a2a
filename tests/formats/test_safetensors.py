import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats import safetensors
from nnrcodec.model.dtypes import DTYPES
from nnrcodec.model.model import Model, Role, Tensor

HELD = [name for name in DTYPES if not name.endswith(("fnuz", "_x2", "complex32", "complex128"))]
"""Dtypes that the format has."""


def torch_tensor(dtype, shape=(3, 5)):
    values = np.random.default_rng(0).normal(size=shape) * 100
    return torch.from_numpy(np.asarray(values)).to(getattr(torch, dtype))


def assert_same(tensor, expected):
    assert tensor.shape == tuple(expected.shape)
    assert tensor.dtype == str(expected.dtype).removeprefix("torch.")
    values = tensor.read()
    assert values.dtype == DTYPES[tensor.dtype]
    assert values.shape == tensor.shape
    if expected.dtype == torch.bfloat16:
        expected = expected.float()
    if tensor.dtype.startswith("float8"):
        expected = expected.view(torch.uint8)
    np.testing.assert_array_equal(values, expected.numpy())


def test_every_dtype_is_read_as_the_library_wrote_it(tmp_path):
    expected = {dtype: torch_tensor(dtype) for dtype in HELD}
    save_file(expected, tmp_path / "m.safetensors")
    model = safetensors.load(tmp_path / "m.safetensors")
    assert model.graph is None
    assert set(model.tensors) == set(expected)
    for name, tensor in model.tensors.items():
        assert_same(tensor, expected[name])
        assert tensor.role is Role.PARAMETER


def test_every_dtype_is_written_as_the_library_reads_it(tmp_path):
    expected = {dtype: torch_tensor(dtype) for dtype in HELD}
    expected |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3), "ü": torch.ones(1)}
    expected["scalar bfloat16"] = torch.tensor(1.5, dtype=torch.bfloat16)
    save_file(expected, tmp_path / "in.safetensors")
    safetensors.save(safetensors.load(tmp_path / "in.safetensors"), tmp_path / "out.safetensors")
    written = load_file(tmp_path / "out.safetensors")
    assert set(written) == set(expected)
    for name, value in written.items():
        assert value.dtype == expected[name].dtype
        assert value.shape == expected[name].shape
        bits = [v.reshape(-1).view(torch.uint8).tolist() for v in (value, expected[name])]
        assert bits[0] == bits[1]


def test_float32_is_rounded_to_bfloat16_as_pytorch_does(tmp_path):
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32).view(np.uint32)
    random = np.random.default_rng(0).integers(0, 2**32, 10_000, np.uint32)
    values = np.concatenate([special, random]).view(np.float32)
    safetensors.save(Model.of([Tensor.of("a", values, "bfloat16")]), tmp_path / "m.safetensors")
    torch.testing.assert_close(
        load_file(tmp_path / "m.safetensors")["a"],
        torch.from_numpy(values).bfloat16(),
        rtol=0,
        atol=0,
        equal_nan=True,
    )


def test_tensors_are_aligned_and_constants_stay_out(tmp_path):
    model = Model.of(
        [
            Tensor.of("half", np.ones(3, np.float16)),
            Tensor.of("wide", np.ones(2, np.float64), role=Role.BUFFER),
            Tensor.of("constant", np.ones(2, np.float32), role=Role.CONSTANT),
            Tensor.of("single", np.ones(1, np.float32)),
        ]
    )
    path = tmp_path / "m.safetensors"
    safetensors.save(model, path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    offsets = {k: v["data_offsets"] for k, v in json.loads(content[8 : 8 + length]).items()}
    assert length % 8 == 0
    assert offsets == {"wide": [0, 16], "single": [16, 20], "half": [20, 26]}


def test_arrays_in_any_memory_layout_and_shared_ones_can_be_written(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    transposed, swapped = values.T, values.astype(">f4")
    model = Model.of(
        [Tensor.of("a", transposed), Tensor.of("b", transposed), Tensor.of("c", swapped, "float32")]
    )
    safetensors.save(model, tmp_path / "m.safetensors")
    written = load_file(tmp_path / "m.safetensors")
    for name, expected in {"a": values.T, "b": values.T, "c": values}.items():
        np.testing.assert_array_equal(written[name].numpy(), expected)


def test_a_dtype_that_is_not_known_is_left_out_by_name(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"fine": torch.ones(2), "odd": torch.ones(2, dtype=torch.uint8)}, path)
    path.write_bytes(
        path.read_bytes()
        .replace(b'"dtype":"U8"', b'"dtype":"F4"')
        .replace(b'"shape":[2],"data_offsets":[8,10]', b'"shape":[4],"data_offsets":[8,10]')
    )
    model = safetensors.load(path)
    assert list(model.tensors) == ["fine"]
    (left,) = model.source.left_out
    assert left.name == "odd"
    assert "F4" in left.what


def test_a_dtype_that_the_format_lacks_names_the_tensor(tmp_path):
    model = Model.of([Tensor.of("net.odd", np.zeros(2, np.complex128))])
    with pytest.raises(ModelError, match=r"'net\.odd' of complex128"):
        safetensors.save(model, tmp_path / "m.safetensors")


def test_metadata_come_back(tmp_path):
    path, out = tmp_path / "m.safetensors", tmp_path / "out.safetensors"
    metadata = {"format": "pt", "lora_alpha": "16"}
    save_file({"w": torch.ones(2)}, path, metadata)
    model = safetensors.load(path)
    safetensors.save(model, out)
    with safe_open(out, "pt") as file:
        assert file.metadata() == metadata


def test_there_are_no_entries_to_choose_from(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match="no entries"):
        safetensors.load(tmp_path / "m.safetensors", "model")


def test_the_reserved_name_is_refused(tmp_path):
    model = Model.of([Tensor.of("__metadata__", np.ones(1, np.float32))])
    with pytest.raises(ModelError, match="__metadata__"):
        safetensors.save(model, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_values_stay_readable_when_the_file_is_replaced(tmp_path):
    path = tmp_path / "m.safetensors"
    safetensors.save(Model.of([Tensor.of("a", np.ones(4, np.float32))]), path)
    model = safetensors.load(path)
    safetensors.save(Model.of([Tensor.of("b", np.zeros(9, np.float32))]), path)
    np.testing.assert_array_equal(model.tensors["a"].read(), np.ones(4))


def test_more_dimensions_than_arrays_have_are_refused(tmp_path):
    path, shape = tmp_path / "w.safetensors", [1] * 65
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ModelError, match="'w' has 65 dimensions, at most 64 are possible"):
        safetensors.load(path)
