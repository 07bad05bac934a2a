import warnings
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest
import torch

import nnrcodec
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats import pt
from nnrcodec.model.dtypes import COMPUTED_DTYPES, DTYPES
from nnrcodec.model.model import Model, Role, Tensor

STATE = {
    dtype: torch.arange(6).reshape(2, 3).to(getattr(torch, dtype)) for dtype in COMPUTED_DTYPES
} | {"scalar": torch.tensor(3)}


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


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [], 3])
def test_a_file_without_tensors_is_refused_with_a_hint(path, content):
    torch.save(content, path)
    with pytest.raises(ModelError, match=r"no tensors.*module\.state_dict\(\).*torch\.export"):
        pt.load(path)


def test_a_pickled_module_is_a_state_dict_and_its_class_is_named(path):
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    torch.save(module, path)
    model = pt.load(path)
    assert_same_state(model, module.state_dict())
    (note,) = model.source.notes
    assert "torch.nn.modules.container.Sequential" in note
    assert "nothing of it is run" in note


def test_the_tensors_of_a_torch_script_archive_are_taken(path):
    torch_script(path)
    model = pt.load(path)
    assert [t.shape for t in model.tensors.values()] == [(2, 2), (2,)]
    assert "TorchScript" in model.source.notes[0]


def test_types_that_do_not_come_back_are_said(path, tmp_path):
    content = {
        "state_dict": {"w": torch.nn.Parameter(torch.ones(2, 2))},
        "best": np.float64(0.5),
        "names": frozenset(["a"]),
        "raw": bytearray(b"ab"),
        "counts": defaultdict(int, a=1),
        None: "a key",
        "id": 2**200,
        2**100: 1,
    }
    torch.save(content, path)
    source = pt.load(path).source
    assert {note.removeprefix("on the way back ") for note in source.notes} == {
        "parameters become tensors",
        "single numbers of NumPy become numbers of Python",
        "frozensets become sets",
        "bytearrays become bytes",
        "defaultdicts become dicts",
    }
    assert [(left.name, left.what) for left in source.left_out] == [
        ("id", "a whole number of more than 64 bits"),
        (str(2**100), "a int"),
    ]
    pt.save(pt.load(path), tmp_path / "out.pt")
    back = torch.load(tmp_path / "out.pt", weights_only=False)
    assert back[None] == "a key"
    assert (back["best"], back["names"], back["raw"]) == (0.5, {"a"}, b"ab")


def test_scores_of_callbacks_are_no_state_dicts(path):
    best = {"best_model_score": torch.tensor(1.0), "best_k_models": {"x": torch.tensor(1.0)}}
    content = {"state_dict": STATE, "callbacks": {"ModelCheckpoint{'a': 1}": best}}
    torch.save(content | {"made": np.datetime64("2026-01-01")}, path)
    model = pt.load(path)
    assert model.source.coded == "state_dict"
    assert set(STATE) < set(model.tensors)
    assert [left.name for left in model.source.left_out] == ["made"]


def test_several_state_dicts_are_named_and_one_of_them_is_chosen(path):
    content = {"params": STATE, "params_ema": dict(STATE), "n": 3}
    torch.save(content, path)
    with pytest.raises(ModelError, match=r"'params', 'params_ema'.*--key"):
        pt.load(path)
    model = pt.load(path, "params_ema")
    assert_same_state(model, content["params_ema"])
    assert [left.name for left in model.source.left_out] == ["params"]
    assert set(pt.load(path, "all").tensors) == {
        f"{key}.{name}" for key in ("params", "params_ema") for name in STATE
    }
    with pytest.raises(ConfigError, match="no entry with tensors 'x'; there are 'params'"):
        pt.load(path, "x")


ODD = {
    "complex64": torch.tensor([1 + 2j, complex(float("nan"), -0.0)]),
    "complex128": torch.zeros(2, 0, dtype=torch.complex128),
    "float8_e4m3fn": torch.arange(4.0).to(torch.float8_e4m3fn),
    "float8_e5m2": torch.arange(4.0).to(torch.float8_e5m2),
    "empty": torch.zeros(0, 3),
    "conjugate": torch.tensor([1 + 2j]).conj(),
}


def test_odd_tensors_are_read_and_written_bit_for_bit(path, tmp_path):
    torch.save(ODD, path)
    pt.save(pt.load(path), tmp_path / "out.pt")
    written = torch.load(tmp_path / "out.pt", weights_only=True)
    assert list(written) == list(ODD)
    for name, value in written.items():
        expected = ODD[name].resolve_conj()
        assert (value.dtype, value.shape) == (expected.dtype, expected.shape)
        bits = [v.reshape(-1).view(torch.uint8).tolist() for v in (value, expected)]
        assert bits[0] == bits[1]


@pytest.mark.parametrize("value", [torch.eye(2).to_sparse(), torch.empty(2, device="meta")])
def test_what_is_no_dense_tensor_is_left_out_by_name(path, value):
    torch.save({"fine": torch.ones(1), "net.odd": value}, path)
    model = pt.load(path)
    assert list(model.tensors) == ["fine"]
    assert [left.name for left in model.source.left_out] == ["net.odd"]


def test_a_tensor_without_a_name_takes_the_place_of_no_other(tmp_path):
    """Its name is also what stood for 'tied to nothing', and so others got its values."""
    state = {name: torch.full((2,), float(i)) for i, name in enumerate(["a", "", "b", "c"])}
    torch.save(state, tmp_path / "in.pt")
    pt.save(pt.load(tmp_path / "in.pt"), tmp_path / "out.pt")
    found = torch.load(tmp_path / "out.pt")
    assert {name: value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in state.items()
    }


def test_the_state_dict_of_a_quantized_layer(tmp_path):
    """It has dtypes of quantized tensors as values."""
    state = {"scale": torch.tensor(0.1), "dtype": torch.qint8, "more": [torch.quint8]}
    torch.save(state, tmp_path / "in.pt")
    pt.save(pt.load(tmp_path / "in.pt"), tmp_path / "out.pt")
    found = torch.load(tmp_path / "out.pt")
    assert (found["dtype"], found["more"]) == (torch.qint8, [torch.quint8])


def test_what_comes_back_otherwise_or_not_at_all_is_said(tmp_path, caplog):
    state = {
        "w": torch.ones(20, 20).requires_grad_(),
        "b": torch.nn.Buffer(torch.ones(3)),
        "t": torch.ones(20, 3).T,
        "one": torch.ones(5, 1).T,
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.ones(3, device="meta"),
    }
    counts = Counter("aab")
    torch.save({"state_dict": state, "counts": counts}, tmp_path / "m.pt")
    model = nnrcodec.load(tmp_path / "m.pt", "all")
    assert list(model.tensors) == ["state_dict.w", "state_dict.b", "state_dict.t", "state_dict.one"]
    for change in (
        "tensors that require gradients no longer do",
        "tensors lose their attributes",
        "Counters become dicts",
        "tensors become contiguous that have other strides: 'state_dict.t'",
    ):
        assert f"m.pt: on the way back {change}" in caplog.text
    assert [(left.name, left.what) for left in model.source.left_out] == [
        ("state_dict.sparse", "a sparse tensor, and only dense ones are coded"),
        ("state_dict.meta", "a tensor without values"),
    ]
    nnrcodec.save(model, tmp_path / "again.pt")
    assert torch.load(tmp_path / "again.pt")["counts"] == dict(counts)
