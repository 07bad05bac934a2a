"""Names from a stream are data: they never become code, and none of them is lost."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import keyword
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz import streams
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import nnrcodec
from nnrcodec.container.record import Record, TensorEntry
from nnrcodec.container.record_text import record_to_bytes
from nnrcodec.decoder.pipeline import decode_stream
from nnrcodec.errors import BitstreamError, ModelError, UnsupportedFeatureError
from nnrcodec.formats import save
from nnrcodec.graph.graph import Graph, Input, Node, Ref, TensorRef
from nnrcodec.graph.module import build_module
from nnrcodec.graph.names import (
    fits_program,
    is_safe,
    original_name,
    safe_paths,
    translated,
    with_safe_names,
)
from nnrcodec.graph.program import program_of_module
from nnrcodec.model.model import Model, Role, Tensor

pytestmark = pytest.mark.filterwarnings("ignore")  # of PyTorch, on the many ways out

ANY_NAME = st.lists(
    st.sampled_from(
        ["a", "a b", "a_b", "a_b_1", "in", "in_", "", "_", "0", "ü", '"', "meta", "meta_"]
    )
    | st.text(),
    min_size=1,
    max_size=4,
).map(".".join)


@given(st.lists(ANY_NAME, unique=True, max_size=12))
def test_safe_names_are_safe_different_and_lead_back(names: list[str]) -> None:
    paths = safe_paths(names)
    back = {safe: path for path, safe in paths.items()}
    found = [translated(name, paths) for name in names]
    assert all(map(is_safe, found))
    assert len(set(found)) == len(found)
    assert [translated(name, back) for name in found] == names
    for name, safe in zip(names, found, strict=True):
        assert fits_program(safe)
        assert not (is_safe(name) and fits_program(name)) or safe == name


@given(st.text(max_size=40))
def test_safe_is_letters_digits_underscores_and_no_keyword(name: str) -> None:
    parts = name.split(".")
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
    taken = {*keyword.kwlist, "__debug__"}
    expected = all(p and set(p) <= allowed and p not in taken for p in parts)
    assert is_safe(name) == expected


def test_layers_stay_together() -> None:
    names = ["conv 1.weight", "conv 1.bias", "conv_1.weight", "conv-1.weight", "in.out put.w"]
    paths = safe_paths(names)
    assert [translated(name, paths) for name in names] == [
        *("conv_1_1.weight", "conv_1_1.bias", "conv_1.weight", "conv_1_2.weight"),
        "in_.out_put.w",
    ]


# A network whose layers have names that real networks have, and that cannot be in a stream.


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        names = ("conv 1", "block/2", "it's", 'say "x"', "in", "größe")
        self.layers = nn.ModuleDict({name: nn.Conv2d(4, 4, 3, padding=1) for name in names})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers.values():
            x = torch.relu(layer(x))
        return x


IMAGE = torch.linspace(-1, 1, 4 * 6 * 5).reshape(1, 4, 6, 5)


def test_reports_of_batch_norms_have_the_original_names() -> None:
    layers = {"conv 1": nn.Conv2d(4, 4, 3), "norm 1": nn.BatchNorm2d(4)}
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    config = nnrcodec.EncoderConfig(fold_batch_norm=True)
    report = nnrcodec.encode(network.eval(), (IMAGE,), config, calib=None).report
    assert [(fold.layer, fold.folded) for fold in report.folds] == [("conv 1", True)]
    assert [tensor.name for tensor in report.tensors] == ["conv 1.weight", "conv 1.bias"]
    assert report.to_json()["folds"][0]["layer"] == "conv 1"


@pytest.mark.parametrize("rank", [None, 3])
def test_odd_names_come_back(
    rank: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    network = Odd().eval()
    low_rank = nnrcodec.LowRankConfig(ranks={"layers.conv_1": rank}) if rank else None
    config = nnrcodec.EncoderConfig(low_rank=low_rank)
    data = nnrcodec.encode(network, (IMAGE,), config, calib=None)
    assert [tensor.name for tensor in data.report.tensors] == list(nnrcodec.decode(data))
    assert [layer.layer for layer in data.report.layers] == (
        [f"layers.{name}" for name in network.layers] if rank else []
    )
    assert "'layers.conv 1', which is coded as 'layers.conv_1'" in caplog.text

    runs = nnrcodec.decode_model(data)
    assert "layers.block_2.weight" in runs.state_dict()
    state = nnrcodec.decode(data)
    if rank is None:
        assert list(state) == list(network.state_dict())
    else:
        assert 'layers.say "x".bias' in state
        assert "layers.conv 1.u.weight" in state
    receiver = nnrcodec.load_into(Odd().eval(), data)
    with torch.no_grad():
        torch.testing.assert_close(receiver(IMAGE), runs(IMAGE), rtol=1e-4, atol=1e-5)
    merged = nnrcodec.load_into(Odd().eval(), data, merge=True)
    with torch.no_grad():
        torch.testing.assert_close(merged(IMAGE), runs(IMAGE), rtol=1e-4, atol=1e-5)

    path = tmp_path / "odd.pt"
    save(decode_stream(data, nnrcodec.Limits(), merge=True), path)
    assert list(torch.load(path, weights_only=True)) == list(network.state_dict())


def attributes_of_programs() -> set[str]:
    program = torch.export.export(nn.Linear(4, 4).eval(), (torch.ones(2, 4),))
    return set(dir(program.module())) - set(dir(nn.Linear(4, 4))) | {"self"}


def test_all_attributes_of_programs_are_known() -> None:
    assert not [name for name in attributes_of_programs() if fits_program(name)]


def sum_of(names: list[str]) -> Model:
    """Return a network that adds tensors of these names."""
    nodes = (
        Node("aten.add.Tensor", (Ref(number), TensorRef(name))) for number, name in enumerate(names)
    )
    graph = Graph((Input("x", "float32", (4,)),), tuple(nodes), Ref(len(names)))
    return Model.of((Tensor.of(name, np.ones(4, np.float32)) for name in names), graph)


@pytest.mark.parametrize("in_layers", [False, True])
def test_names_that_pytorch_uses_itself_come_back(in_layers: bool, tmp_path: Path) -> None:
    names = sorted({*attributes_of_programs(), "graph_"})
    model = sum_of([f"{name}.w" for name in names] if in_layers else names)
    data = nnrcodec.encode(model, calib=None)
    assert list(nnrcodec.decode(data)) == list(model.tensors)
    path = tmp_path / "own.pt2"
    save(decode_stream(data, nnrcodec.Limits()), path)
    x = torch.arange(4.0)
    loaded = torch.export.load(path).module()
    torch.testing.assert_close(loaded(x), x + len(names))
    torch.testing.assert_close(copy.deepcopy(loaded)(x), x + len(names))


def test_a_program_cannot_have_names_that_pytorch_uses_itself() -> None:
    for name in ("self", "graph", "meta.weight"):
        module = build_module(sum_of([name]))
        torch.testing.assert_close(module(torch.zeros(4)), torch.ones(4))
        with pytest.raises(UnsupportedFeatureError, match=f"cannot have a tensor {name!r}"):
            program_of_module(module)


def test_a_model_with_safe_names_is_left_alone() -> None:
    graph = Graph((Input("x", "float32", (4,)),), (Node("aten.relu.default", (Ref(0),)),), Ref(1))
    model = Model.of([Tensor.of("a.0.weight", np.zeros(2, np.float32))], graph)
    assert with_safe_names(model) is model
    assert original_name("a.0.weight", graph) == "a.0.weight"


# Hostile names in every place where a name can stand.

CODE = "__import__('sys').audit('nnrcodec.hostile')"
WITHOUT_POINTS = (
    "exec(chr(10)+'import sys; getattr(sys,chr(97)+chr(117)+chr(100)+chr(105)+chr(116))(chr(104))')"
)
HOSTILE = {
    "double quote": f'a" if {WITHOUT_POINTS} else "a',
    "single quote": f"a' if {WITHOUT_POINTS} else 'a",
    "with points": f'a") or {CODE} or ("',
    "newline": f"a\n        {WITHOUT_POINTS}\n        a",
    "call": WITHOUT_POINTS,
    "backslash": f'a\\"),{WITHOUT_POINTS},("',
    "braces": "{" + WITHOUT_POINTS + "}",
    "comment": f"a #\n{WITHOUT_POINTS}",
    "triple": f'a""",{WITHOUT_POINTS},"""',
    "attribute": "__class__.__init__.__globals__",
    "keyword": "lambda",
    "separator": f"a\u2028{WITHOUT_POINTS}",
}


class Watch:
    """Notes what happens in the interpreter while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self.note)

    def note(self, event: str, _: Any) -> None:
        if self.on and event in {"h", "nnrcodec.hostile", "os.system", "subprocess.Popen"}:
            self.seen.append(event)


WATCH = Watch()


@pytest.fixture
def watch() -> Iterator[Watch]:
    WATCH.seen.clear()
    WATCH.on = True
    yield WATCH
    WATCH.on = False


def ways_out(data: bytes, folder: Path) -> Iterator[Callable[[], Any]]:
    """Yield everything that can be made of a stream, and that runs."""
    vector = torch.zeros(2)

    def run(module: Any) -> Any:
        with torch.no_grad():
            return module(vector)

    def state_dict_again() -> None:
        save(decode_stream(data, nnrcodec.Limits()), folder / "s.pt")
        torch.load(folder / "s.pt", weights_only=True)

    def model() -> Any:
        return nnrcodec.decode_model(data)

    def program() -> Any:
        decoded = decode_stream(data, nnrcodec.Limits())
        save(decoded, folder / "m.pt2")
        return torch.export.load(folder / "m.pt2")

    def traced() -> None:
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.trace(model(), (vector,), strict=False), buffer)
        buffer.seek(0)
        run(torch.jit.load(buffer))

    def exported_again() -> None:
        run(torch.export.export(model(), (vector,)).module())

    def compiled() -> None:
        run(torch.compile(model(), backend="eager"))

    yield lambda: nnrcodec.inspect(data)
    yield lambda: nnrcodec.decode(data)
    yield lambda: nnrcodec.decode(data, merge=True)
    yield lambda: run(model())
    yield lambda: repr(model())
    yield lambda: run(copy.deepcopy(model()))
    yield lambda: run(pickle.loads(pickle.dumps(model())))  # noqa: S301 - our own
    yield lambda: model().load_state_dict(model().state_dict())
    yield state_dict_again
    yield traced
    yield exported_again
    yield compiled
    yield lambda: run(program().module())
    yield lambda: run(torch.export.unflatten(program()))
    yield lambda: run(program().run_decompositions().module())
    yield lambda: run(nnrcodec.decode_model(nnrcodec.encode(program(), calib=None)))
    yield lambda: nnrcodec.load_into(receiver(data), data)


def receiver(data: bytes) -> nn.Module:
    """Return a module that has a parameter of each name in a stream, as far as a module can."""
    module = nn.Module()
    for name, value in nnrcodec.decode(data).items():
        *layers, leaf = name.split(".")
        part = module
        for layer in layers:
            if layer in {"__class__", "__init__"}:
                raise ModelError("no module can have this name")
            if layer not in part._modules:
                part.add_module(layer, nn.Module())
            part = part._modules[layer]
        part.register_parameter(leaf, nn.Parameter(torch.from_numpy(value)))
    return module


def small() -> bytes:
    """Return a stream with a parameter, a buffer, a constant and a dictionary that is returned."""
    data = nnrcodec.encode(
        {"p": np.ones(2, np.float32), "b": np.ones(2, np.float32), "c": np.ones(2, np.float32)},
        config=streams.STATIC,
    )
    content = streams.record_content(data)
    add = [[0, {"r": 1}, name] for name in ("p", "b", "c")]
    content["graph"] = {
        "inputs": [["x", "float32", ["n"]]],
        "dims": {"n": [0, None, 2]},
        "ops": ["aten.add.Tensor"],
        "nodes": add,
        "output": {"dict": {"out": {"r": 1}}},
    }
    for entry, role in zip(content["tensors"], ("parameter", "buffer", "constant"), strict=True):
        entry[2:] = ["float32", role]
    return streams.with_record(data, content)


def everywhere(value: Any, old: str, new: str) -> Any:
    """Return a JSON value with a string exchanged wherever it stands, as a key, too."""
    if isinstance(value, dict):
        return {everywhere(k, old, new): everywhere(v, old, new) for k, v in value.items()}
    if isinstance(value, list):
        return [everywhere(item, old, new) for item in value]
    return new if value == old else value


PLACES = {
    "parameter": "p",
    "buffer": "b",
    "constant": "c",
    "input": "x",
    "dimension": "n",
    "key of the output": "out",
    "operator": "aten.add.Tensor",
    "dtype": "float32",
    "role": "buffer",
}


def hostile_stream(place: str, name: str) -> bytes:
    """Return a stream with a hostile name in one place."""
    data = small()
    content = everywhere(streams.record_content(data), PLACES[place], name)
    units = streams.units_of(data)
    for unit in streams.data_units(units):
        if unit.body.topology_elem_id == PLACES[place]:
            unit.body.topology_elem_id = name
    return streams.with_record(streams.stream_of(units), content)


ALLOWED = (BitstreamError, UnsupportedFeatureError, ModelError)


def test_the_streams_are_good_without_hostile_names(tmp_path: Path, watch: Watch) -> None:
    for use in ways_out(small(), tmp_path):
        use()
    assert watch.seen == []


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("place", PLACES)
def test_hostile_names_are_refused_everywhere(
    place: str, name: str, tmp_path: Path, watch: Watch
) -> None:
    data = hostile_stream(place, name)
    for use in ways_out(data, tmp_path):
        with contextlib.suppress(*ALLOWED):
            use()
    assert watch.seen == []
    if place == "key of the output" and name in (HOSTILE["keyword"], HOSTILE["attribute"]):
        return  # keys are data
    with pytest.raises(ALLOWED):
        nnrcodec.decode_model(data)
    assert not (tmp_path / "m.pt2").exists()
    if name != HOSTILE["attribute"]:  # which only a module cannot hold
        with pytest.raises(ALLOWED):
            nnrcodec.inspect(data)


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("role", Role)
def test_hostile_names_are_refused_where_modules_are_built(
    role: Role, name: str, watch: Watch
) -> None:
    """There are other ways to a model than the reader of the record."""
    node = Node("aten.add.Tensor", (Ref(0), TensorRef(name)))
    graph = Graph((Input("x", "float32", (2,)),), (node,), Ref(1))
    for used in (graph, Graph(graph.inputs, (Node("aten.relu.default", (Ref(0),)),), Ref(1))):
        model = Model.of([Tensor.of(name, np.ones(2, np.float32), role=role)], used)
        with pytest.raises(BitstreamError, match=r"with a graph names are|cannot have"):
            program_of_module(build_module(model))
        data = nnrcodec.encode(model, calib=None)  # under another name
        assert role is Role.CONSTANT or list(nnrcodec.decode(data)) == [name]
        with pytest.raises(BitstreamError, match="with a graph names are"):
            record_to_bytes(Record((TensorEntry('"', "0" * 8),), graph=used), "0" * 8)
    assert watch.seen == []


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_original_names_are_data(name: str, tmp_path: Path, watch: Watch) -> None:
    """What a tensor was called before may be anything: nothing but keys are made of it."""
    data = small()
    content = streams.record_content(data)
    content["names"] = {"p": name, "b": f"b.{name}"}
    data = streams.with_record(data, content, "1.2")
    for use in ways_out(data, tmp_path):
        with contextlib.suppress(ModelError):  # no receiver can have some of them
            use()
    assert nnrcodec.decode_model(data)(torch.zeros(2))["out"].tolist() == [3, 3]
    assert name in nnrcodec.decode(data)
    assert watch.seen == []


def test_the_watch_sees_what_pytorch_does_with_such_names(watch: Watch) -> None:
    """Without the rule for names all of this would prove nothing: PyTorch runs them."""
    network = nn.Module()
    network.register_parameter(HOSTILE["double quote"], nn.Parameter(torch.ones(2)))
    network.forward = lambda x: x + network._parameters[HOSTILE["double quote"]]  # type: ignore[assignment]
    program = torch.export.export(network, (torch.zeros(2),))
    with contextlib.suppress(AttributeError):
        program.module()(torch.zeros(2))
    assert watch.seen == ["h"]


def test_updates_of_a_network_with_odd_names() -> None:
    torch.manual_seed(0)
    network = Odd().eval()
    rounded = nnrcodec.EncoderConfig(dq=False)  # then what does not change is no difference
    base = nnrcodec.encode(network, (IMAGE,), rounded, calib=None)
    encoder = nnrcodec.UpdateEncoder(base)
    changed = {k: v + 0.5 * ("block/2" in k) for k, v in network.state_dict().items()}
    update = encoder.encode(changed)
    decoder = nnrcodec.UpdateDecoder()
    decoder.decode(base)
    assert list(decoder.decode(update)) == ["layers.block/2.weight", "layers.block/2.bias"]
    for name, value in changed.items():
        np.testing.assert_allclose(decoder.state[name], value, atol=0.02)


def test_names_of_the_record_must_fit() -> None:
    data = small()
    content = streams.record_content(data)
    for names, message in (
        ([], "expected names by name"),
        ({"p": 1}, "expected names by name"),
        ({"p": "b"}, "twice"),
        ({"q": "x"}, "there is no tensor or layer"),
        ({"p": "x" * 1001}, "characters"),
    ):
        content["names"] = names
        with pytest.raises(BitstreamError, match=message):
            nnrcodec.inspect(streams.with_record(data, content, "1.2"))
    del content["graph"]
    content["names"] = {"p": "x"}
    with pytest.raises(BitstreamError, match="graph"):
        nnrcodec.inspect(streams.with_record(data, content, "1.2"))
    assert json.dumps(content)
