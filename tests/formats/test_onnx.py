"""ONNX files: whole and back, with their graphs; and what strangers may put into them."""

from __future__ import annotations

import logging
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fuzz.streams import stream_of, units_of
from onnx import TensorProto, helper, numpy_helper

import nnrcodec
from nnrcodec import EncoderConfig, LowRankConfig
from nnrcodec.container.stream import ONNX_STORAGE_FORMAT, read_stream
from nnrcodec.errors import (
    BitstreamError,
    ConfigError,
    LimitExceededError,
    ModelError,
    PayloadError,
    SyntaxElementError,
)
from nnrcodec.formats import load, save
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model, OnnxTopology, Role
from nnrcodec.syntax.constants import TopologyStorageFormat

NETS = Path(__file__).parents[2].parent / "shared" / "data" / "nets"
RANDOM = np.random.default_rng(0)


def values(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape, scale=0.2).astype(np.float32)


def proto_of(
    nodes: list[Any],
    tensors: dict[str, Any],
    shape: tuple[int | str, ...] = ("n", 2, "h", "w"),
    opset: int = 17,
) -> Any:
    initial = [
        t if isinstance(t, TensorProto) else numpy_helper.from_array(t, name)
        for name, t in tensors.items()
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))],
        initial,
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
        producer_name="somebody",
    )


def filter_proto() -> Any:
    """Two convolutions with names as exporters give them, a batch norm, and a residual.

    The size of the padding is computed from the input; one tensor has typed values.
    """
    typed = helper.make_tensor("gamma", TensorProto.FLOAT, [16], [1 + k / 16 for k in range(16)])
    tensors = {
        "onnx::Conv_1": values(16, 2, 3, 3),
        "gamma": typed,
        "beta": values(16),
        "mean": values(16),
        "var": np.abs(values(16)) + 0.5,
        "42": values(2, 16, 3, 3),
        "conv2/bias:0": values(2),
        "first_two": np.array([2], np.int64),
        "scale": np.array([1, 1, 2, 2], np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "onnx::Conv_1"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "gamma", "beta", "mean", "var"], ["b"], "bn"),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        helper.make_node(
            "Conv", ["c", "42", "conv2/bias:0"], ["d"], "conv2", auto_pad="SAME_UPPER"
        ),
        helper.make_node("Add", ["x", "d"], ["e"], "sum"),
        helper.make_node("Resize", ["e", "", "scale"], ["f"], "up"),
        helper.make_node("Shape", ["f"], ["g"]),
        helper.make_node("Reshape", ["f", "g"], ["y"]),
    ]
    return proto_of(nodes, tensors)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(filter_proto().SerializeToString())
    return path


def runs(path: Path, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options)
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    return y


def assert_same_output(data: bytes, path: Path, merge: bool = False) -> None:
    """Compare what a decoded .onnx file computes with what the decoded network does."""
    network = nnrcodec.decode_model(data, merge=merge)
    for size in ((1, 2, 8, 8), (3, 2, 13, 17)):
        x = RANDOM.random(size, np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(runs(path, x), expected, atol=1e-5)


def test_a_file_comes_back_byte_by_byte(file: Path, tmp_path: Path) -> None:
    model = load(file)
    save(model, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == file.read_bytes()


def test_weights_are_tensors_under_their_names_and_numbers_stay_in_the_proto(file: Path) -> None:
    model = load(file)
    assert list(model.tensors) == [
        *("onnx__Conv_1.weight", "gamma", "beta", "mean", "var", "42.weight", "42.bias"),
    ]
    assert [t.role for t in model.tensors.values()].count(Role.BUFFER) == 2
    assert model.graph is not None
    assert model.graph.inputs[0].shape == ("d0", 2, "d1", "d2")
    state = nnrcodec.decode(nnrcodec.encode(model, calib=None))
    assert {"onnx::Conv_1", "42", "conv2/bias:0"} < state.keys()


@pytest.mark.parametrize("profile", ["ext", "nnc"])
def test_decoded_it_is_the_same_proto_with_other_weights(
    file: Path, tmp_path: Path, profile: Any
) -> None:
    data = nnrcodec.encode(load(file), config=EncoderConfig(profile=profile), calib=None)
    (tmp_path / "net.nnr").write_bytes(data)
    out = tmp_path / "decoded.onnx"
    nnrcodec.decode_file(tmp_path / "net.nnr", out)
    assert_same_output(data, out)
    before, after = onnx.load(file), onnx.load(out)
    onnx.checker.check_model(after, full_check=True)
    state = nnrcodec.decode(data)
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        if old.name in state:
            np.testing.assert_array_equal(numpy_helper.to_array(new), state[old.name])
            assert old.HasField("raw_data") == new.HasField("raw_data")
            for field in ("raw_data", "float_data"):
                old.ClearField(field)
                new.ClearField(field)
    assert before.SerializeToString() == after.SerializeToString()


def test_the_proto_is_in_a_topology_unit_of_the_standard(file: Path) -> None:
    data = nnrcodec.encode(load(file), calib=None)
    (unit,) = (
        unit
        for unit in units_of(data)
        if getattr(unit.body, "topology_storage_format", 0) == TopologyStorageFormat.NNR_TPL_ONNX
    )
    assert unit.body.topology_compression_format == 1
    skeleton = onnx.ModelProto.FromString(zlib.decompress(unit.body.topology_data))
    assert [t.name for t in skeleton.graph.initializer][:2] == ["onnx::Conv_1", "gamma"]
    assert not skeleton.graph.initializer[0].raw_data


def test_in_profile_nnc_deployed_decoders_pass_over_it(file: Path) -> None:
    data = nnrcodec.encode(load(file), config=EncoderConfig(profile="nnc"), calib=None)
    formats = {
        u.body.topology_storage_format: u.body.topology_data
        for u in units_of(data)
        if hasattr(u.body, "topology_storage_format")
    }
    assert TopologyStorageFormat.NNR_TPL_ONNX not in formats
    assert formats[ONNX_STORAGE_FORMAT].find(b"\0") == len(formats[ONNX_STORAGE_FORMAT]) - 1


def test_low_rank_comes_out_as_two_nodes_and_merged_as_one(file: Path, tmp_path: Path) -> None:
    config = EncoderConfig(
        low_rank=LowRankConfig(ranks={"onnx__Conv_1": 4, "42": nnrcodec.LayerRank("channel", 2)})
    )
    data = nnrcodec.encode(load(file), config=config, calib=None)
    (tmp_path / "net.nnr").write_bytes(data)
    for merge, convolutions in ((False, 4), (True, 2)):
        out = tmp_path / f"{merge}.onnx"
        nnrcodec.decode_file(tmp_path / "net.nnr", out, merge=merge)
        assert [n.op_type for n in onnx.load(out).graph.node].count("Conv") == convolutions
        assert_same_output(data, out, merge)


@pytest.mark.parametrize(
    ("node", "shape", "x", "rank"),
    [
        ({"op": "Gemm", "transB": 1}, (20, 12), (3, 12), 4),
        ({"op": "ConvTranspose", "strides": [2, 2], "pads": [1, 0, 0, 1]}, (4, 6, 3, 4), None, 3),
        (
            {"op": "Conv", "strides": [2, 1], "dilations": [1, 2], "pads": [1, 2, 0, 1]},
            None,
            None,
            3,
        ),
    ],
)
@pytest.mark.parametrize("scheme", ["separable", "channel"])
def test_pairs_have_the_geometry_of_their_layer(
    tmp_path: Path, node: dict[str, Any], shape: Any, x: Any, rank: int, scheme: Any
) -> None:
    options = dict(node)
    op, shape, x = options.pop("op"), shape or (8, 4, 3, 4), x or (1, 4, 9, 11)
    scheme = "linear" if op == "Gemm" else scheme
    outputs = shape[1] if op == "ConvTranspose" else shape[0]
    tensors = {"w.weight": values(*shape), "w.bias": values(outputs)}
    proto = proto_of(
        [helper.make_node(op, ["x", "w.weight", "w.bias"], ["y"], **options)], tensors, x
    )
    (tmp_path / "one.onnx").write_bytes(proto.SerializeToString())
    ranks = {"w": nnrcodec.LayerRank(scheme, rank)}
    data = nnrcodec.encode(
        load(tmp_path / "one.onnx"),
        config=EncoderConfig(low_rank=LowRankConfig(ranks=ranks)),
        calib=None,
    )
    (tmp_path / "one.nnr").write_bytes(data)
    nnrcodec.decode_file(tmp_path / "one.nnr", tmp_path / "two.onnx")
    given = RANDOM.random(x, np.float32)
    with torch.no_grad():
        expected = nnrcodec.decode_model(data)(torch.from_numpy(given)).numpy()
    assert len(onnx.load(tmp_path / "two.onnx").graph.node) == 2
    np.testing.assert_allclose(runs(tmp_path / "two.onnx", given), expected, atol=1e-5)


def test_an_update_of_an_onnx_file_comes_out_as_one(file: Path, tmp_path: Path) -> None:
    base = nnrcodec.encode(load(file), calib=None)
    state = {name: value + 0.1 * (value.ndim > 1) for name, value in nnrcodec.decode(base).items()}
    update = nnrcodec.UpdateEncoder(base).encode(state)
    for name, data in (("0.nnr", base), ("1.nnr", update)):
        (tmp_path / name).write_bytes(data)
    nnrcodec.decode_file([tmp_path / "0.nnr", tmp_path / "1.nnr"], tmp_path / "new.onnx")
    weights = {t.name: t for t in onnx.load(tmp_path / "new.onnx").graph.initializer}
    np.testing.assert_allclose(numpy_helper.to_array(weights["42"]), state["42"], atol=0.02)


def test_with_folded_batch_norms_the_file_is_made_from_the_graph(
    file: Path, tmp_path: Path
) -> None:
    result = nnrcodec.encode(load(file), config=EncoderConfig(fold_batch_norm=True), calib=None)
    assert any("made anew from the graph" in note for note in result.report.notes)
    (tmp_path / "net.nnr").write_bytes(result)
    nnrcodec.decode_file(tmp_path / "net.nnr", tmp_path / "folded.onnx")
    assert_same_output(result, tmp_path / "folded.onnx")
    proto = onnx.load(tmp_path / "folded.onnx")
    assert "BatchNormalization" not in {n.op_type for n in proto.graph.node}
    dims = [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["d0", 2, "d1", "d2"]
    assert not any(node.metadata_props for node in proto.graph.node)


def test_what_is_not_translated_is_named_and_the_file_comes_back_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first"),
        helper.make_node("NonZero", ["a"], ["b"], "indices of all"),
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
    ]
    path = tmp_path / "net.onnx"
    path.write_bytes(proto_of(nodes, {"w": values(4, 2, 3, 3)}).SerializeToString())
    model = load(path)
    assert model.graph is None
    assert "NonZero (node 'indices of all')" in caplog.text
    data = nnrcodec.encode(model)
    (tmp_path / "net.nnr").write_bytes(data)
    nnrcodec.decode_file(tmp_path / "net.nnr", tmp_path / "back.onnx")
    assert [n.name for n in onnx.load(tmp_path / "back.onnx").graph.node] == [
        *("first", "indices of all", ""),
    ]


def test_low_rank_of_a_file_without_a_graph_of_ours(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "c.weight"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("NonZero", ["a"], ["b"]),
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
    ]
    path = tmp_path / "net.onnx"
    path.write_bytes(proto_of(nodes, {"c.weight": values(8, 2, 3, 3)}).SerializeToString())
    config = EncoderConfig(low_rank=LowRankConfig(ranks={"c": 3}))
    (tmp_path / "net.nnr").write_bytes(nnrcodec.encode(load(path), config=config))
    nnrcodec.decode_file(tmp_path / "net.nnr", tmp_path / "pair.onnx")
    assert len(onnx.load(tmp_path / "pair.onnx").graph.node) == 4


@pytest.mark.parametrize("profile", ["ext", "nnc"])
def test_tables_are_exact_and_values_that_are_not_finite_or_large_too(
    tmp_path: Path, profile: Any
) -> None:
    mask = np.triu(np.full((8, 8), -np.inf, np.float32), 1)
    table, indices = values(1, 2, 8, 8), np.arange(600, dtype=np.int64).reshape(2, 300)
    large, nan = indices << 40, values(2)
    nan[1] = np.nan
    nodes = [
        helper.make_node("Conv", ["x", "w", "nan"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["a", "table"], ["b"]),
        helper.make_node("Add", ["b", "mask"], ["y"]),
        helper.make_node("Cast", ["large"], ["unused too"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["indices"], ["unused"], to=TensorProto.FLOAT),
    ]
    tensors = {"w": values(2, 2, 3, 3), "table": table, "mask": mask, "indices": indices}
    tensors |= {"large": large, "nan": nan}
    path = tmp_path / "net.onnx"
    path.write_bytes(proto_of(nodes, tensors, (1, 2, 8, 8)).SerializeToString())
    model = load(path)
    assert model.tensors["table"].exact
    assert len(model.tensors) == len(tensors)
    assert model.graph is not None
    config = EncoderConfig(profile=profile, qp=-8)
    data = nnrcodec.encode(model, config=config, calib=None)
    (tmp_path / "net.nnr").write_bytes(data)
    nnrcodec.decode_file(tmp_path / "net.nnr", tmp_path / "back.onnx")
    back = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "back.onnx").graph.initializer
    }
    for name in tensors.keys() - {"w"}:
        np.testing.assert_array_equal(back[name], tensors[name])
    assert not np.array_equal(back["w"], tensors["w"])


def test_half_precision_and_double_typed_values_come_back(tmp_path: Path) -> None:
    array = values(4, 2, 3, 3)
    typed = [
        helper.make_tensor(
            "h", TensorProto.FLOAT16, [4, 2, 3, 3], array.astype(np.float16).ravel()
        ),
        helper.make_tensor("d", TensorProto.DOUBLE, [4, 2, 3, 3], array.astype(float).ravel()),
        helper.make_tensor("i", TensorProto.INT64, [300], list(range(300))),
        helper.make_tensor("u", TensorProto.UINT32, [300], list(range(300))),
    ]
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path = tmp_path / "net.onnx"
    proto = proto_of(nodes, {t.name: t for t in typed})
    path.write_bytes(proto.SerializeToString())
    save(load(path), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


@pytest.mark.skipif(not NETS.is_dir(), reason="networks by others are not here")
@pytest.mark.parametrize("name", ["rfb320", "nokia_postfilter"])
def test_networks_by_others_are_translated(name: str, tmp_path: Path) -> None:
    path = NETS / f"{name}.onnx"
    model = load(path)
    save(model, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()
    assert model.graph is not None
    from nnrcodec.graph.module import build_module

    x = RANDOM.random(model.graph.inputs[0].shape, np.float32)
    with torch.no_grad():
        got = build_module(model)(torch.from_numpy(x))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options)
    expected = session.run(None, {session.get_inputs()[0].name: x})
    for actual, wanted in zip([got] if torch.is_tensor(got) else got, expected, strict=True):
        np.testing.assert_allclose(actual.numpy(), wanted, atol=1e-5)


def external(location: str, **more: int) -> Any:
    proto = filter_proto()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=str(value))
    return proto


def test_values_in_another_file_of_the_folder_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weight = values(16, 2, 3, 3)
    (tmp_path / "weights.bin").write_bytes(b"1234" + weight.tobytes() + b"more")
    proto = external("weights.bin", offset=4, length=weight.nbytes)
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    model = load(tmp_path / "net.onnx")
    np.testing.assert_array_equal(next(iter(model.tensors.values())).read(), weight)
    assert "has the values of 1 tensors in other files" in caplog.text
    save(model, tmp_path / "inside.onnx")
    assert runs(tmp_path / "inside.onnx", RANDOM.random((1, 2, 8, 8), np.float32)).shape


@pytest.mark.parametrize(
    ("location", "more", "why"),
    [
        ("../secret", {}, "only files in the folder"),
        ("/etc/passwd", {}, "only files in the folder"),
        ("..\\secret", {}, "only files in the folder"),
        ("..", {}, "only files in the folder"),
        ("link", {}, "is a link"),
        ("short", {}, "ends before"),
        ("short", {"offset": -1}, "offset"),
        ("short", {"length": 3}, "3 are declared"),
        ("short", {"offset": 10**30}, "offset"),
    ],
)
def test_values_elsewhere_are_not_read(
    tmp_path: Path, location: str, more: dict[str, int], why: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(10**4))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "short").write_bytes(bytes(100))
    (folder / "net.onnx").write_bytes(external(location, **more).SerializeToString())
    with pytest.raises(ModelError, match=why):
        load(folder / "net.onnx")


def onnx_stream(topology: OnnxTopology, file: Path) -> bytes:
    return nnrcodec.encode(replace(load(file), onnx=topology), calib=None)


def test_a_proto_from_a_stranger_cannot_name_files(file: Path, tmp_path: Path) -> None:
    data = onnx_stream(OnnxTopology(external("secret").SerializeToString()), file)
    (tmp_path / "net.nnr").write_bytes(data)
    with pytest.raises(SyntaxElementError, match="in another file"):
        nnrcodec.decode_file(tmp_path / "net.nnr", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("seed", range(40))
def test_any_proto_of_a_stranger_is_written_or_refused(
    file: Path, tmp_path: Path, seed: int
) -> None:
    random = np.random.default_rng(seed)
    model = load_once(file)
    assert model.onnx is not None
    damaged = bytearray(model.onnx.proto)
    for _ in range(random.integers(1, 6)):
        damaged[random.integers(len(damaged))] = random.integers(256)
    try:
        save(replace(model, onnx=replace(model.onnx, proto=bytes(damaged))), tmp_path / "o.onnx")
    except BitstreamError:
        assert not (tmp_path / "o.onnx").exists()


_LOADED: dict[str, Model] = {}


def load_once(file: Path) -> Model:
    return _LOADED.setdefault("net", load(file)) if not _LOADED else _LOADED["net"]


def test_the_proto_is_guarded_by_a_digest(file: Path) -> None:
    data = nnrcodec.encode(load(file), calib=None)

    def changed(change: Any) -> bytes:
        units = units_of(data)
        (index,) = (
            i for i, u in enumerate(units) if getattr(u.body, "topology_storage_format", 0) == 2
        )
        change(units, index)
        return stream_of(units)

    def other(units: Any, index: int) -> None:
        units[index].body.topology_data = zlib.compress(b"another graph")

    def cut(units: Any, index: int) -> None:
        units[index].body.topology_data = units[index].body.topology_data[:-5]

    def bomb(units: Any, index: int) -> None:
        units[index].body.topology_data = zlib.compress(bytes(2**22))

    def gone(units: Any, index: int) -> None:
        del units[index]

    for change, why in ((other, "digest"), (cut, "do not end"), (gone, "is missing")):
        with pytest.raises(PayloadError, match=why):
            nnrcodec.decode(changed(change))
    with pytest.raises(LimitExceededError, match="too long when inflated"):
        nnrcodec.decode(changed(bomb))
    assert read_stream(data).record is not None


def test_an_onnx_graph_that_decoders_would_refuse_is_not_written(file: Path) -> None:
    huge = OnnxTopology(bytes(Limits().free_onnx_bytes * 2))
    with pytest.raises(ModelError, match="decoders accept"):
        onnx_stream(huge, file)


def test_streams_of_tensors_only_have_no_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "net.nnr").write_bytes(nnrcodec.encode({"w": values(4, 4)}))
    with pytest.raises(ConfigError, match="no graph for an"):
        nnrcodec.decode_file(tmp_path / "net.nnr", tmp_path / "net.onnx")


def test_without_the_package_the_error_says_what_to_install(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"pip install 'nnrcodec\[onnx\]'"):
        load(file)


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    proto = filter_proto()
    proto.graph.initializer.add().CopyFrom(proto.graph.initializer[0])
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="two tensors 'onnx::Conv_1'"):
        load(tmp_path / "net.onnx")


def test_nothing_is_said_of_a_file_that_is_translated(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "nnrcodec")
    load(file)
    assert not caplog.records
