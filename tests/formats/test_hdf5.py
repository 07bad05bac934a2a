import sys
import zipfile

import numpy as np
import pytest

import nnrcodec
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats import hdf5_readable, load, save

h5py = pytest.importorskip("h5py")

KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def keras_file(path):
    """Write what Keras 2 writes: weights, their names as attributes, and the optimizer."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.0.5"
        file.attrs["model_config"] = '{"class_name": "Model"}'
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"conv", b"relu"]
        conv = group.create_group("conv/conv_1")
        conv["kernel:0"] = KERNEL
        conv["bias:0"] = np.ones(4, np.float32)
        group["conv"].attrs["weight_names"] = [b"conv_1/kernel:0", b"conv_1/bias:0"]
        group.create_group("relu").attrs["weight_names"] = []
        file["optimizer_weights/Adam/m:0"] = np.ones(9)


def test_weights_come_back_under_their_names_with_the_attributes(tmp_path):
    keras_file(tmp_path / "m.hdf5")
    model = load(tmp_path / "m.hdf5")
    prefix = "model_weights/conv/conv_1"
    assert list(model.tensors) == [f"{prefix}/bias:0", f"{prefix}/kernel:0"]
    np.testing.assert_array_equal(model.tensors[f"{prefix}/kernel:0"].read(), KERNEL)
    assert [left.name for left in model.source.left_out] == ["optimizer_weights"]
    nnrcodec.encode_file(tmp_path / "m.hdf5", tmp_path / "m.nnr")
    nnrcodec.decode_file(tmp_path / "m.nnr", tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file.attrs["model_config"] == '{"class_name": "Model"}'
        weights = file["model_weights"]
        assert [*weights.attrs["layer_names"]] == [b"conv", b"relu"]
        assert [*weights["conv"].attrs["weight_names"]] == [b"conv_1/kernel:0", b"conv_1/bias:0"]
        assert len(weights["relu"].attrs["weight_names"]) == 0
        assert np.abs(weights["conv/conv_1/kernel:0"][()] - KERNEL).max() < 1
    everything = load(tmp_path / "m.hdf5", "all")
    assert "optimizer_weights/Adam/m:0" in everything.tensors


def test_a_keras_archive_gives_its_weights(tmp_path):
    keras_file(tmp_path / "weights.h5")
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(tmp_path / "weights.h5", "model.weights.h5")
    model = load(tmp_path / "m.keras")
    np.testing.assert_array_equal(
        model.tensors["model_weights/conv/conv_1/kernel:0"].read(), KERNEL
    )
    assert "not its configuration" in model.source.notes[0]


def test_damage_is_our_own_error(tmp_path):
    keras_file(tmp_path / "m.h5")
    content = (tmp_path / "m.h5").read_bytes()
    (tmp_path / "m.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="is damaged"):
        load(tmp_path / "m.h5")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import time; time.sleep(60)", "has not read it after"),
        ("import os; os.abort()", "crashes when it reads it"),
    ],
)
def test_a_library_that_hangs_or_crashes_is_no_end(tmp_path, monkeypatch, program, message):
    keras_file(tmp_path / "m.h5")
    (tmp_path / "trial.py").write_text(program)
    monkeypatch.setattr(hdf5_readable, "_TRIAL", tmp_path / "trial.py")
    monkeypatch.setattr(hdf5_readable, "_TRIAL_SECONDS", 1)
    with pytest.raises(ModelError, match=f"is damaged: the HDF5 library {message}"):
        load(tmp_path / "m.h5")


def test_a_file_that_is_read_without_a_trial_is_said(tmp_path, monkeypatch, caplog):
    keras_file(tmp_path / "m.h5")
    (tmp_path / "trial.py").write_text("import sys; sys.exit(77)")
    monkeypatch.setattr(hdf5_readable, "_TRIAL", tmp_path / "trial.py")
    assert load(tmp_path / "m.h5").tensors
    assert "without a trial in a process of its own" in caplog.text


def test_far_more_values_than_bytes_are_refused(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        for name in "abc":
            file.create_dataset(name, (2**40,), "f4", chunks=(2**20,))
    with pytest.raises(ModelError, match="far more values than bytes"):
        load(tmp_path / "m.h5")


def test_an_attribute_that_would_change_is_left_out_and_said(tmp_path):
    keras_file(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file.attrs["table"] = np.zeros((2, 2))
    left_out = load(tmp_path / "m.h5").source.left_out
    assert [left.name for left in left_out] == ["optimizer_weights", "@table"]


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    keras_file(tmp_path / "m.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"pip install nnrcodec\[hdf5\]"):
        load(tmp_path / "m.h5")


def test_the_same_model_gives_the_same_bytes(tmp_path):
    keras_file(tmp_path / "m.h5")
    model = load(tmp_path / "m.h5")
    written = []
    for name in ("a.h5", "b.h5"):
        save(model, tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
