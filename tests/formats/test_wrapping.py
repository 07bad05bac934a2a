import argparse
import json
import pathlib
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats import load, save
from nnrcodec.model.source import MOST_BYTES, Wrapper, WrapperError, check_wrapper, members_of


def state(seed=0, prefix=""):
    generator = torch.Generator().manual_seed(seed)
    return OrderedDict(
        (f"{prefix}{name}", torch.rand(shape, generator=generator))
        for name, shape in (("conv.weight", (2, 3)), ("conv.bias", (2,)))
    )


OPTIMIZER = {
    "state": {0: {"step": torch.tensor(4.0), "exp_avg": torch.ones(2, 3)}},
    "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0]}],
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.pth"


def there_and_back(path, content, key=None):
    torch.save(content, path)
    model = load(path, key)
    save(model, path.with_name("out.pth"))
    return model, torch.load(path.with_name("out.pth"), weights_only=False)


def assert_same(got, expected):
    assert type(got) is type(expected)
    if isinstance(expected, dict):
        assert list(got) == list(expected)
        assert getattr(got, "_metadata", None) == getattr(expected, "_metadata", None)
        for key, value in expected.items():
            assert_same(got[key], value)
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, torch.Tensor):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(got, expected)
    else:
        assert got == expected or (got != got and expected != expected)


PLAIN = {
    "iteration": 4000,
    "rate": 2e-4,
    "nothing": None,
    "flags": [True, False],
    "shape": torch.Size([2, 3]),
    "dtype": torch.bfloat16,
    "device": torch.device("cpu"),
    "odd": (float("inf"), -0.0, float("nan"), 1 + 2j, b"\x00\xff", "ü", {1, 2}),
    3: "a number as a key",
    (1, "a"): {"nested": OrderedDict(a=[{"b": ()}])},
}

MODULE = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).state_dict()

WHOLE = {
    "a state dict": dict(state()),
    "an ordered state dict with versions": MODULE,
    "a checkpoint": {"model": MODULE, **PLAIN},
    "the model last": {**PLAIN, "state_dict": dict(state())},
    "mean and std beside the model": {"mean": torch.ones(3), "std": torch.ones(3), "net": state()},
    "numbers between tensors": {"w": torch.ones(2, 2), "version": 3, "v": torch.zeros(4)},
    "a list": [torch.ones(2, 2), torch.zeros(3)],
    "a tensor": torch.ones(2, 2),
    "a tree": {"sub": {"conv": {"weight": torch.ones(2, 2)}}, "n": 1},
    "an array": {"w": np.ones((2, 2), np.float32), "v": np.arange(6)[::2]},
    "a name that clashes": {
        "conv.weight": 3,
        "mean": torch.ones(1),
        "model": {"mean": torch.ones(2)},
    },
    "extra state within": {"a.w": torch.ones(2), "a._extra_state": {"amax": torch.ones(1)}},
    "optimizer without tensors": {"model": state(), "optimizer": {"state": {}, "param_groups": []}},
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_comes_back_whole(path, name):
    model, back = there_and_back(path, WHOLE[name])
    assert_same(back, WHOLE[name])
    assert not model.source.left_out
    json.dumps(None if model.source.wrapper is None else model.source.wrapper.content)


def test_a_plain_mapping_of_tensors_has_no_wrapper(path):
    torch.save(dict(state()), path)
    assert load(path).source.wrapper is None


def test_state_of_training_is_left_out_and_said_and_taken_with_all(path, caplog):
    content = {"model": state(), "optimizer": OPTIMIZER, "rng_state": torch.zeros(9), "epoch": 3}
    model, back = there_and_back(path, content)
    assert list(model.tensors) == ["conv.weight", "conv.bias"]
    assert list(back) == ["model", "epoch"]
    assert [left.name for left in model.source.left_out] == ["optimizer", "rng_state"]
    (message,) = caplog.messages
    assert "coded is 'model'" in message
    assert "'optimizer' (state of training, 2 tensors" in message
    model, back = there_and_back(path, content, "all")
    assert_same(back, content)
    assert not model.source.left_out


@pytest.mark.parametrize("key", ["optimized_model", "optimal.weight", "states", "optics"])
def test_what_only_sounds_like_an_optimizer_is_coded(path, key):
    _, back = there_and_back(path, {key: state()})
    assert_same(back, {key: state()})


CONTAINERS = {
    "ema": ({"params": state(), "params_ema": state(1)}, ["params", "params_ema"]),
    "networks": ({"g": state(), "d": [state(1), state(2)]}, ["g", "d.0", "d.1"]),
    "nested": ({"net": {"enc": state(), "dec": state(1)}}, ["net.enc", "net.dec"]),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_of_several_state_dicts_one_is_chosen(path, name):
    content, keys = CONTAINERS[name]
    torch.save(content, path)
    with pytest.raises(ModelError, match=", ".join(map(repr, keys))):
        load(path)
    for key in keys:
        model = load(path, key)
        assert list(model.tensors) == list(state())
        left_out = [left.name for left in model.source.left_out]
        assert all(any(k.startswith(name) for name in left_out) for k in keys if k != key)
        assert key not in left_out
        save(model, path.with_name("out.pth"))
        entry = torch.load(path.with_name("out.pth"))
        for step in key.split("."):
            entry = entry[0] if isinstance(entry, list) else entry[step]
        assert_same(entry, _at(content, key))
    assert_same(there_and_back(path, content, "all")[1], content)


def _at(content, key):
    for step in key.split("."):
        content = content[int(step)] if isinstance(content, list) else content[step]
    return content


def test_a_part_of_a_tree_is_chosen(path):
    torch.save(CONTAINERS["nested"][0], path)
    model = load(path, "net")
    assert list(model.tensors) == [f"{p}.{n}" for p in ("enc", "dec") for n in state()]
    with pytest.raises(ConfigError, match="no entry with tensors 'nothing'"):
        load(path, "nothing")


def test_objects_are_left_out_by_the_names_of_their_classes(path):
    content = {
        "model": state(),
        "args": argparse.Namespace(lr=1),
        "path": pathlib.PurePosixPath("a"),
        "lr": np.float64(0.5),
    }
    model, back = there_and_back(path, content)
    assert list(back) == ["model", "lr"]
    assert back["lr"] == 0.5
    left = {entry.name: entry.what for entry in model.source.left_out}
    assert "argparse.Namespace" in left["args"]
    assert "PurePosixPath" in left["path"]


def test_what_is_too_large_is_left_out_and_said(path):
    content = {"model": state(), "vocabulary": ["word"] * MOST_BYTES, "epoch": 3}
    model, back = there_and_back(path, content)
    assert list(back) == ["model", "epoch"]
    (left,) = model.source.left_out
    assert (left.name, str(MOST_BYTES) in left.reason) == ("vocabulary", True)


def test_tied_tensors_are_one_and_stay_so(path):
    table = torch.rand(4, 3)
    content = {"a": table, "b": table, "c": table[:2], "d": table.T, "e": table.clone()}
    model, back = there_and_back(path, content)
    assert model.ties == {"b": "a"}
    assert back["a"].data_ptr() == back["b"].data_ptr()
    assert_same(back, content)


def test_quantized_tensors_come_back(path):
    values = torch.rand(4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such tensors are deprecated, which PyTorch says once
        each = torch.quantize_per_channel(
            values, torch.rand(4).double() + 0.1, torch.zeros(4, dtype=torch.long), 0, torch.qint8
        )
        one = torch.quantize_per_tensor(values, 0.05, 3, torch.quint8)
    content = {"model": {"each": each, "one": one, "bias": torch.ones(4)}}
    torch.save(content, path)
    model = load(path)
    assert model.tensors["each"].dtype == "int8"
    save(model, path.with_name("out.pth"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = torch.load(path.with_name("out.pth"), weights_only=False)["model"]
    assert torch.equal(back["each"].int_repr(), each.int_repr())
    assert torch.equal(back["each"].q_per_channel_scales(), each.q_per_channel_scales())
    assert torch.equal(back["one"].dequantize(), one.dequantize())


def test_too_much_within_one_another_is_an_error(path):
    deep = torch.ones(1)
    for _ in range(100):
        deep = [deep]
    torch.save(deep, path)
    with pytest.raises(ModelError, match="too many values"):
        load(path)
    wide = [torch.ones(1)]
    for _ in range(40):
        wide = [wide, wide]
    torch.save(wide, path)
    with pytest.raises(ModelError, match="too many values"):
        load(path)


WRONG = [
    ["nothing"],
    [],
    [3],
    {"a": 1},
    2**70,
    ["dict", "a"],
    ["dict", ["list"], 1],
    ["tensor", "x"],
    ["tensor", 3],
    ["list", ["tensor", "w"], ["tensor", "w"]],
    ["list", ["tensors", "dict", "", None], ["tensors", "dict", "", None]],
    ["tensors", "Sequential", "", None],
    ["tensors", "dict", "", {"a": "x"}],
    ["OrderedDict"],
    ["dtype", "load"],
    ["device", "cpu; import os"],
    ["Size", -1],
    ["float", "1"],
    ["quantized", "qint8", "w", 1.0],
    ["quantized", "float32", "w", 1.0, 0],
    ["set", ["list"]],
]


@pytest.mark.parametrize("content", WRONG, ids=range(len(WRONG)))
def test_a_wrapper_that_is_none_is_refused(content):
    with pytest.raises(WrapperError):
        check_wrapper(Wrapper("torch", content), {"w"})


def test_a_wrapper_of_too_many_levels_is_refused():
    content = ["tensor", "w"]
    for _ in range(100):
        content = ["list", content]
    with pytest.raises(WrapperError, match="levels"):
        check_wrapper(Wrapper("torch", content), {"w"})


def test_the_longest_prefix_has_a_tensor():
    names = ["a.b.w", "a.w", "ab.w", "w"]
    assert members_of(["", "a.", "a.b."], names) == {
        "": ["ab.w", "w"],
        "a.": ["a.w"],
        "a.b.": ["a.b.w"],
    }
    assert members_of(["a."], names) == {"a.": ["a.b.w", "a.w"]}
