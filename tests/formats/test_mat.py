"""MATLAB files of arrays: what is read, what is kept around it, what comes back."""

import struct
import sys
import zlib
from dataclasses import replace

import h5py
import numpy as np
import pytest
import scipy.io
from formats.mat_files import write
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import nnrcodec
from nnrcodec.errors import ConfigError, ModelError, NnrError
from nnrcodec.formats import load, save
from nnrcodec.model.model import Model, Tensor
from nnrcodec.model.source import Source, Wrapper

VERSIONS = ("5", "7", "7.3")
VARIABLES = {
    "w": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "model": {
        "weight": (np.arange(40.0).reshape(5, 8), np.int16([[1, -2, 3]])),
        "scale": 0.5,
        "note": "für alle",
        "on": np.array([[True, False]]),
        "parts": [{"k": np.eye(5), "n": "a"}, {"k": np.ones((5, 4)), "n": ""}],
        "none": (),
        "nan": np.array([[np.nan]]),
    },
    "z": np.array([[1 + 2j, 3j]]),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_arrays_are_tensors_by_their_paths(tmp_path, version):
    model = load(write(tmp_path / "m", VARIABLES, version))
    assert sorted(model.tensors) == sorted(
        [
            *("w", "model.weight.0", "model.weight.1", "model.on", "z"),
            *("model.parts.0.k", "model.parts.1.k"),
        ]
    )
    values = {name: tensor.read() for name, tensor in model.tensors.items()}
    np.testing.assert_array_equal(values["w"], VARIABLES["w"])
    np.testing.assert_array_equal(values["model.weight.0"], VARIABLES["model"]["weight"][0])
    np.testing.assert_array_equal(values["z"], VARIABLES["z"])
    assert values["model.weight.1"].dtype == np.int16
    assert values["model.on"].dtype == np.bool_
    assert model.tensors["model.weight.1"].exact
    assert not model.tensors["model.weight.0"].exact
    assert not model.source.left_out
    for name, tensor in model.tensors.items():
        assert (tensor.dtype, tensor.shape) == (values[name].dtype.name, values[name].shape)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_stands_around_arrays_comes_back(tmp_path, version):
    nnrcodec.encode_file(write(tmp_path / "m.mat", VARIABLES, version), tmp_path / "m.nnr")
    info = nnrcodec.inspect((tmp_path / "m.nnr").read_bytes())
    assert info.wrapper == "mat"
    nnrcodec.decode_file(tmp_path / "m.nnr", tmp_path / "out.mat")
    read = scipy.io.loadmat(tmp_path / "out.mat", struct_as_record=False)
    model = read["model"][0, 0]
    assert {*model._fieldnames} == {*VARIABLES["model"]}
    assert model.scale == 0.5
    assert model.note == "für alle"
    assert np.isnan(model.nan)
    assert model.none.size == 0
    assert [part.n.tolist() for part in model.parts[0]] == [["a"], []]
    np.testing.assert_array_equal(model.on, [[1, 0]])
    np.testing.assert_array_equal(model.weight[0, 1], [[1, -2, 3]])
    np.testing.assert_array_equal(read["z"], VARIABLES["z"])
    assert read["w"].dtype == np.float32
    assert np.abs(read["w"] - VARIABLES["w"]).max() < 0.5
    again = load(tmp_path / "out.mat")
    nnrcodec.decode_file(tmp_path / "m.nnr", tmp_path / "again.mat")
    assert (tmp_path / "again.mat").read_bytes() == (tmp_path / "out.mat").read_bytes()
    assert {n: t.shape for n, t in again.tensors.items()} == {
        n: t.shape for n, t in load(tmp_path / "m.mat").tensors.items()
    }


numbers = npst.arrays(
    st.sampled_from(["f4", "f8", "i1", "u1", "i2", "u4", "i8", "u8", "?", "c8"]),
    npst.array_shapes(min_dims=2, max_dims=4, max_side=4),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=3), st.sampled_from(("5", "7")))
def test_arrays_come_back_bit_for_bit(tmp_path_factory, arrays, version):
    path = tmp_path_factory.mktemp("m") / "m.mat"
    write(path, {f"v{i}": array for i, array in enumerate(arrays)}, version)
    for _ in range(2):
        model = load(path)
        for i, array in enumerate(arrays):
            while array.ndim > 2 and array.shape[-1] == 1:
                array = array[..., 0]
            found = model.tensors[f"v{i}"].read().reshape(array.shape)
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)
        save(model, path)


def test_a_state_dict_becomes_variables_and_changed_names_are_said(tmp_path, caplog):
    state = {"net.0.weight": np.ones((2, 3), np.float32), "0": np.float64(2), "b": np.arange(3)}
    model = Model.of(
        [
            *(Tensor.of(name, np.asarray(value)) for name, value in state.items()),
            Tensor.of("half", np.ones((2, 2), np.float16)),
        ]
    )
    save(model, tmp_path / "m.mat")
    read = scipy.io.loadmat(tmp_path / "m.mat")
    assert {*read} > {"net_0_weight", "x0", "b", "half"}
    assert read["b"].shape == (3, 1)
    assert read["half"].dtype == np.float32
    assert "'net.0.weight', which is the variable 'net_0_weight'" in caplog.text
    assert "such as 'half' of float16: a MATLAB file has no such dtype" in caplog.text
    odd = Model.of([Tensor("f", "float8_e5m2", (1,), lambda: np.zeros(1, np.uint8))])
    with pytest.raises(ModelError, match="cannot hold tensor 'f' of float8_e5m2"):
        save(odd, tmp_path / "m.mat")


def test_what_is_no_number_is_left_out_and_said(tmp_path, caplog):
    sparse = scipy.sparse.csc_matrix(np.eye(3))
    path = tmp_path / "m.mat"
    scipy.io.savemat(path, {"s": sparse, "w": np.ones((4, 5)), "state": {"m": np.ones((9, 9))}})
    model = load(path)
    assert [*model.tensors] == ["w"]
    assert {left.name: left.what for left in model.source.left_out} == {
        "s": "a sparse matrix",
        "state": "a struct of 1x1",
    }
    assert "state of training" in caplog.text
    assert [*load(path, "all").tensors] == ["w", "state.m"]
    data = nnrcodec.encode(model, calib=None)
    assert {left.name for left in nnrcodec.inspect(data).left_out} == {"s", "state"}
    with pytest.raises(ConfigError, match="no network 'net'; there are none, and all"):
        load(path, "net")
    with pytest.raises(ConfigError, match="no network here that --residual"):
        load(path, residual="add")


def test_more_around_arrays_than_is_kept_is_said(tmp_path):
    texts = tuple("x" * 5000 for _ in range(80))
    model = load(write(tmp_path / "m.mat", {"w": np.ones((3, 3)), "t": texts, "n": "short"}))
    assert all("more than the 262144 bytes" in left.reason for left in model.source.left_out)
    (tmp_path / "m.nnr").write_bytes(nnrcodec.encode(model))
    nnrcodec.decode_file(tmp_path / "m.nnr", tmp_path / "out.mat")
    assert scipy.io.loadmat(tmp_path / "out.mat")["n"] == ["short"]


def test_the_deepest_file_that_is_read_can_be_coded(tmp_path):
    deep = {"note": "x"}
    for index in range(30):
        deep = {"s": deep} if index % 2 else (deep,)
    path = write(tmp_path / "m.mat", {"w": np.ones((9, 9)), "deep": deep})
    model = load(path)
    assert nnrcodec.decode(nnrcodec.encode(model))["w"].shape == (9, 9)
    write(path, {"w": np.ones((9, 9)), "deep": ((deep,),)})
    with pytest.raises(ModelError, match="more than 32 values within one another"):
        load(path)


def test_a_variable_of_more_than_the_format_has_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("nnrcodec.formats.mat.writing._MOST_BYTES", 1000)
    with pytest.raises(ModelError, match=r"'w' has more than the 2 GiB .* write a \.h5"):
        save(Model.of([Tensor.of("w", np.ones((99, 99)))]), tmp_path / "m.mat")
    nested = load(write(tmp_path / "m.mat", {"s": {"w": np.ones((99, 99))}}))
    with pytest.raises(ModelError, match="'s' has more than"):
        save(nested, tmp_path / "m.mat")


def test_damaged_wrappers_are_model_errors_or_files(tmp_path):
    layers = ({"type": "conv", "weights": (np.ones((3, 3, 1, 2)), np.ones((2, 1)))},)
    model = load(write(tmp_path / "m.mat", {"net": {"layers": layers}, "s": VARIABLES["model"]}))
    rng = np.random.default_rng(0)

    def damaged(node):
        if rng.random() < 0.01:
            return rng.choice(np.array([None, 3, "x", "cell", "tensor", -1], object))
        return [damaged(part) for part in node] if isinstance(node, list) else node

    for _ in range(60):
        wrapper = Wrapper("mat", damaged(model.source.wrapper.content))
        try:
            save(replace(model, source=Source(wrapper=wrapper)), tmp_path / "out.mat")
        except ModelError:
            continue
        scipy.io.whosmat(tmp_path / "out.mat")


def test_without_the_packages_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "m.mat", {"w": np.ones((2, 2))}, "7.3")
    model = load(path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"pip install nnrcodec\[mat\]"):
        load(path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ConfigError, match=r"pip install nnrcodec\[mat\]"):
        save(model, tmp_path / "out.mat")


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(kind: int, dims: tuple[int, ...], *parts: bytes, name: bytes = b"") -> bytes:
    flags = element(6, struct.pack("<II", kind, 0))
    sizes = element(5, struct.pack(f"<{len(dims)}i", *dims))
    return element(14, flags + sizes + element(1, name) + b"".join(parts))


HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def nested(levels: int) -> bytes:
    inner = matrix(6, (1, 1), element(9, bytes(8)))
    for _ in range(levels):
        inner = matrix(1, (1, 1), inner)
    return matrix(1, (1, 1), inner, name=b"c")


HOSTILE = {
    "deep": nested(5000),
    "a cell of many": matrix(1, (2**31 - 1, 2**31 - 1), name=b"c"),
    "many numbers": matrix(6, (2**31 - 1, 2**31 - 1), element(9, bytes(8)), name=b"c"),
    "many values": matrix(1, (1, 6000), element(14, b"") * 6000, name=b"c"),
    "a bomb": element(15, zlib.compress(bytes(2**27))),
    "negative": matrix(6, (-1, 4), element(9, bytes(8)), name=b"c"),
    "beyond the end": struct.pack("<II", 14, 2**31),
    "nothing": b"",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_model_errors(tmp_path, case, monkeypatch):
    monkeypatch.setattr("nnrcodec.formats.mat.values.MOST_VALUES", 5000)
    (tmp_path / "m.mat").write_bytes(HEADER + HOSTILE[case])
    with pytest.raises(ModelError):
        load(tmp_path / "m.mat")


def test_loops_of_references_and_links_to_other_files_are_not_followed(tmp_path):
    path = write(tmp_path / "m.mat", {"w": np.ones((2, 2))}, "7.3")
    with h5py.File(path, "r+") as file:
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/secret")
        file["loop"] = np.ones((2, 2))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones((2, 2))
    model = load(path)
    assert [*model.tensors] == ["loop", "w"]
    assert "elsewhere" in [left.name for left in model.source.left_out]
    with h5py.File(path, "r+") as file:
        del file["loop"]
        loop = file.create_dataset("loop", (2, 1), h5py.ref_dtype)
        loop.attrs["MATLAB_class"] = np.bytes_("cell")
        loop[:] = [[loop.ref], [loop.ref]]
    with pytest.raises(ModelError, match="in two places"):
        load(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_damage_is_our_own_error_or_nothing(tmp_path, version):
    path = write(tmp_path / "m.mat", VARIABLES, version)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 8)):
            damaged[rng.integers(128, len(damaged))] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(130, len(damaged) * 2)])
        try:
            for tensor in load(path).tensors.values():
                assert tensor.read().shape == tensor.shape
        except NnrError:
            pass
