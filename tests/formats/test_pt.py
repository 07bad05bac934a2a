import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch

from nnrcodec.errors import ModelError
from nnrcodec.formats import pt
from nnrcodec.model.dtypes import DTYPES
from nnrcodec.model.model import Model, Role, Tensor

STATE = {dtype: torch.arange(6).reshape(2, 3).to(getattr(torch, dtype)) for dtype in DTYPES} | {
    "scalar": torch.tensor(3)
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.pt"


def assert_same_state(model, state):
    assert list(model.tensors) == list(state)
    for name, expected in state.items():
        tensor = model.tensors[name]
        assert tensor.shape == tuple(expected.shape)
        assert tensor.dtype == str(expected.dtype).removeprefix("torch.")
        values = tensor.read()
        assert values.dtype == DTYPES[tensor.dtype]
        if expected.dtype == torch.bfloat16:
            expected = expected.float()
        np.testing.assert_array_equal(values, expected.numpy())


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        OrderedDict(STATE),
        {"state_dict": STATE, "epoch": 3},
        {"model": OrderedDict(STATE), "optimizer": {"state": {0: {"step": torch.tensor(1)}}}},
    ],
)
def test_a_state_dict_is_found(path, content):
    torch.save(content, path)
    assert_same_state(pt.load(path), STATE)


def test_files_from_before_pytorch_1_6_are_read(path):
    state = {name: STATE[name] for name in ("float32", "bfloat16", "int64", "bool", "scalar")}
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)
    assert_same_state(pt.load(path), state)


def test_what_is_saved_is_a_plain_state_dict(path, tmp_path):
    torch.save(STATE, path)
    pt.save(pt.load(path), tmp_path / "out.pt")
    written = torch.load(tmp_path / "out.pt", weights_only=True)
    assert list(written) == list(STATE)
    for name, value in written.items():
        assert value.dtype == STATE[name].dtype
        assert torch.equal(value, STATE[name])


def test_a_module_reads_it(path):
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    torch.save(module.state_dict(), path)
    pt.save(pt.load(path), path)
    module.load_state_dict(torch.load(path, weights_only=True), strict=True)


def test_constants_are_not_part_of_the_state(path):
    ones = np.ones(2, np.float32)
    model = Model.of(
        [
            Tensor.of("buffer", ones, role=Role.BUFFER),
            Tensor.of("constant", ones, role=Role.CONSTANT),
        ]
    )
    pt.save(model, path)
    assert list(torch.load(path, weights_only=True)) == ["buffer"]


def test_saving_the_same_model_gives_the_same_bytes(path, tmp_path):
    torch.save(STATE, path)
    for name in ("one.pt", "another.pt"):
        pt.save(pt.load(path), tmp_path / name)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "another.pt").read_bytes()


def test_read_only_and_transposed_arrays_can_be_saved(path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3).T
    values.flags.writeable = False
    pt.save(Model.of([Tensor.of("a", values)]), path)
    np.testing.assert_array_equal(torch.load(path, weights_only=True)["a"].numpy(), values)


def torch_script(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def exported(path):
    with path.open("wb") as file:
        torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.ones(1),)), file)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save(torch.nn.Linear(2, 2), path),
        lambda path: torch.save(torch.ones(2), path),
        lambda path: torch.save([torch.ones(2)], path),
        lambda path: torch.save({}, path),
        lambda path: torch.save({"epoch": 3}, path),
        torch_script,
        exported,
    ],
)
def test_anything_else_is_refused_with_a_hint(path, write):
    write(path)
    with pytest.raises(ModelError, match=r"module\.state_dict\(\).*torch\.export"):
        pt.load(path)


def test_several_state_dicts_are_named(path):
    torch.save({"params": STATE, "params_ema": STATE}, path)
    with pytest.raises(ModelError, match="'params', 'params_ema'"):
        pt.load(path)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2, dtype=torch.float8_e5m2),
        torch.eye(2).to_sparse(),
        torch.empty(2, device="meta"),
    ],
)
def test_a_tensor_that_cannot_be_coded_is_named(path, value):
    torch.save({"fine": torch.ones(1), "net.odd": value}, path)
    with pytest.raises(ModelError, match=r"'net\.odd'"):
        pt.load(path)
