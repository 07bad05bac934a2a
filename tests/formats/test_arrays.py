import io
import zipfile

import numpy as np
import pytest

from nnrcodec.errors import ModelError
from nnrcodec.formats import load, save
from nnrcodec.model.model import Model, Tensor

ARRAYS = {
    "conv/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.arange(4, dtype=">i4"),
    "scalar": np.float16(2.5),
    "empty": np.zeros((0, 3)),
    "complex": np.ones(2, np.complex64),
}


def test_arrays_are_read_and_written_by_their_names(tmp_path):
    np.savez(tmp_path / "in.npz", **ARRAYS)
    model = load(tmp_path / "in.npz")
    save(model, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as back:
        assert list(back) == list(ARRAYS)
        for name, expected in ARRAYS.items():
            assert back[name].dtype == expected.dtype.newbyteorder("=")
            assert back[name].shape == expected.shape
            np.testing.assert_array_equal(back[name], expected)
    first = (tmp_path / "out.npz").read_bytes()
    save(model, tmp_path / "out.npz")
    assert (tmp_path / "out.npz").read_bytes() == first


def test_a_lone_array_is_a_tensor(tmp_path):
    np.save(tmp_path / "a.npy", ARRAYS["fortran"])
    (tensor,) = load(tmp_path / "a.npy").tensors.values()
    np.testing.assert_array_equal(tensor.read(), ARRAYS["fortran"])
    save(Model.of([tensor]), tmp_path / "b.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), ARRAYS["fortran"])
    with pytest.raises(ModelError, match=r"one array, and there are 2 tensors: a \.npz"):
        save(Model.of([tensor, Tensor.of("w", np.ones(2))]), tmp_path / "c.npy")
    save(Model.of([Tensor.of("w", np.ones(2, np.float32), "bfloat16")]), tmp_path / "c.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), np.ones(2, np.float32))


def test_other_orders_are_said(tmp_path, caplog):
    values = np.arange(6.0).reshape(2, 3)
    arrays = {"c": values, "f": np.asfortranarray(values), "b": values.astype(">f8"), "d": values.T}
    np.savez(tmp_path / "m.npz", **arrays)
    model = load(tmp_path / "m.npz")
    assert "in C order, with the same values: 'f', 'b', 'd'" in caplog.text
    for name, tensor in model.tensors.items():
        np.testing.assert_array_equal(tensor.read(), arrays[name])
    caplog.clear()
    np.save(tmp_path / "b.npy", arrays["b"])
    assert load(tmp_path / "b.npy").source.notes == (
        "b.npy: what is big-endian or in Fortran order comes back little-endian and in C order, "
        "with the same values: 'array'",
    )
    np.save(tmp_path / "c.npy", values)
    assert not load(tmp_path / "c.npy").source.notes


def test_arrays_of_objects_and_texts_are_left_out_by_name(tmp_path, caplog):
    np.savez(tmp_path / "m.npz", w=np.ones(3), names=np.array(["a"]), o=np.array([{}], object))
    model = load(tmp_path / "m.npz")
    assert list(model.tensors) == ["w"]
    assert [left.name for left in model.source.left_out] == ["names", "o"]
    assert "left out: 'names'" in caplog.text
    np.savez(tmp_path / "m.npz", names=np.array(["a"]))
    with pytest.raises(ModelError, match="no arrays of numbers"):
        load(tmp_path / "m.npz")


def test_a_header_that_promises_more_than_there_is_is_damage(tmp_path):
    held = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        held, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY\x01\x00" + held.getvalue())
    with pytest.raises(ModelError, match="is damaged"):
        load(tmp_path / "m.npz")


@pytest.mark.parametrize("ending", [".npz", ".h5", ".mat"])
def test_a_dtype_that_a_file_lacks_becomes_wider_or_is_refused(ending, tmp_path, caplog):
    values = np.float32([[1, -0.0], [np.inf, 2**-130]])
    bfloat16 = [Tensor.of(name, values, "bfloat16") for name in "wv"]
    path = tmp_path / f"m{ending}"
    save(Model.of([*bfloat16, Tensor.of("f", values)]), path)
    for tensor in load(path).tensors.values():
        assert tensor.dtype == "float32"
        np.testing.assert_array_equal(tensor.read().view(np.int32), values.view(np.int32))
    assert [r.getMessage() for r in caplog.records if "float32" in r.getMessage()] == [
        f"m{ending}: 2 of 3 tensors are float32 in the file, which has all their values, such as "
        f"'w' of bfloat16: {KINDS[ending]} has no such dtype"
    ]
    pattern = Tensor.of("w", np.ones((2, 2), np.uint8), "float8_e5m2")
    with pytest.raises(ModelError, match=f"{KINDS[ending]} cannot hold tensor 'w' of float8_e5m2"):
        save(Model.of([pattern]), path)


KINDS = {".npz": "a NumPy file", ".h5": "an HDF5 file", ".mat": "a MATLAB file"}
