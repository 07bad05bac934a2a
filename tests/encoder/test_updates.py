from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from encoder.test_nnc import check_stream

import nnrcodec
from nnrcodec import EncoderConfig, LowRankConfig, UniformConfig, UpdateDecoder
from nnrcodec.container.stream import read_stream
from nnrcodec.encoder.updates import UpdateEncoder
from nnrcodec.entropy.cabac.config import CabacConfig
from nnrcodec.errors import BitstreamError, ConfigError, ModelError, UnitOrderError
from nnrcodec.quant.step_size import step_size
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.data_unit import NnrCompressedDataUnitHeader

State = dict[str, np.ndarray]


def first_state() -> State:
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.normal(size=(12, 8, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(size=12).astype(np.float32),
        "fc_G": rng.normal(size=(40, 30)).astype(np.float32),
        "half": rng.normal(size=(20, 33)).astype(np.float16),
        "double": rng.normal(size=30),
        "scale": np.float32(1.5),
        "steps": np.array(7),
        "mask": rng.random((5, 9)) < 0.3,
        "frozen": rng.normal(size=(30, 30)).astype(np.float32),
    }


def next_state(state: State, seed: int, sparse: float = 0.2) -> State:
    """Return a state a little later."""
    rng = np.random.default_rng(seed)
    new = {}
    for name, value in state.items():
        if value.dtype.kind == "f" and name != "frozen":
            change = 0.3 * rng.normal(size=value.shape) * (rng.random(value.shape) < sparse)
            new[name] = np.asarray(value + change, value.dtype)
        else:
            new[name] = value
    new["steps"] = np.array(int(state["steps"]) + 1000)
    new["mask"] = np.roll(state["mask"], 1)
    return new


def headers_of(data: bytes) -> list[NnrCompressedDataUnitHeader]:
    return [unit.body for unit in read_stream(data).of_type(NnrUnitType.NNR_NDU)]


def largest_error(found: State, expected: State) -> float:
    return max(
        float(np.abs(np.float64(found[name]) - np.float64(value)).max())
        for name, value in expected.items()
    )


ROUNDED = EncoderConfig(dq=False, quantization=UniformConfig(qp=-20, nonweight_qp=-20))
HALF_STEP = step_size(-20, 2) / 2


@pytest.mark.parametrize("profile", ["ext", "nnc"])
@pytest.mark.parametrize("scan_order", [0, 1])
def test_errors_do_not_add_up(profile: str, scan_order: int) -> None:
    state = first_state()
    base_config = EncoderConfig(profile=profile)  # type: ignore[arg-type]
    streams = [nnrcodec.encode(state, config=base_config)]
    cabac = CabacConfig(scan_order=scan_order)
    config = EncoderConfig(dq=False, quantization=ROUNDED.quantization, cabac=cabac)
    encoder, decoder = UpdateEncoder(streams[0], config=config), UpdateDecoder()
    decoder.decode(streams[0])
    for seed in range(6):
        state = next_state(state, seed)
        streams.append(encoder.encode(state))
        check_stream(streams[-1])
        decoder.decode(streams[-1])
        found = decoder.state
        assert list(found) == list(state)
        assert all(
            found[n].dtype == v.dtype and found[n].shape == v.shape for n, v in state.items()
        )
        assert largest_error(found, state) <= HALF_STEP * (1 + 2**-8)
        for name in ("steps", "mask"):
            assert np.array_equal(found[name], state[name])


@pytest.mark.parametrize("config", [None, ROUNDED, EncoderConfig(lambda_=0.0)])
def test_updates_follow_the_state_and_are_small(config: EncoderConfig | None) -> None:
    state = first_state()
    base = nnrcodec.encode(state, config=config)
    encoder, decoder = UpdateEncoder(base, config=config), UpdateDecoder()
    decoder.decode(base)
    for seed in range(3):
        state = next_state(state, seed, 0.02)
        update = encoder.encode(state)
        assert len(update) < 0.5 * len(nnrcodec.encode(state, config=config))
        decoder.decode(update)
        assert largest_error(decoder.state, state) < 1


def test_an_encoder_that_starts_from_what_was_sent_makes_the_same_update() -> None:
    states = [first_state()]
    for seed in range(3):
        states.append(next_state(states[-1], seed))
    base = nnrcodec.encode(states[0])
    encoder = UpdateEncoder(base)
    updates = [encoder.encode(state) for state in states[1:]]
    later = UpdateEncoder(base, updates[:2])
    assert later.encode(states[3]) == updates[2]


def test_what_did_not_change_is_not_sent() -> None:
    state = first_state()
    base = nnrcodec.encode(state)
    encoder, decoder = UpdateEncoder(base), UpdateDecoder()
    decoder.decode(base)
    seen: list[tuple[str, int, int]] = []
    same = encoder.encode(decoder.state, progress=lambda *now: seen.append(now))
    assert len(seen) == len(state)
    assert seen[-1] == ("coding", *(sum(v.size for v in state.values()),) * 2)
    assert headers_of(same) == []
    assert same.report.tensors == ()
    assert same.report.original_bytes == sum(v.nbytes for v in state.values())
    assert decoder.decode(same) == {}
    changed = dict(decoder.state) | {"steps": np.array(8)}
    update = encoder.encode(changed)
    assert [header.topology_elem_id for header in headers_of(update)] == ["steps"]
    assert [(t.name, t.relative_error) for t in update.report.tensors] == [("steps", 0.0)]


def test_identifiers_count_the_updates_of_each_tensor() -> None:
    state = first_state()
    encoder = UpdateEncoder(nnrcodec.encode(state), config=ROUNDED)
    seen: dict[str, list[int]] = {}
    names = list(state)
    for seed, name in enumerate(["fc_G", "conv.weight", "fc_G", "fc_G"]):
        state = state | {name: next_state(state, seed)[name]}
        for header in headers_of(encoder.encode(state)):
            coded = header.topology_elem_id or ""
            assert header.parent_node_id_present_flag == 1
            assert header.device_id == header.parent_device_id == 0
            assert names[header.parameter_id] == ("fc_G" if coded == "fc_G_" else coded)
            seen.setdefault(coded, []).append(header.put_node_depth)
    assert seen["fc_G_"] == [1, 2, 3]
    assert seen["conv.weight"][-1] == len(seen["conv.weight"])


def test_similar_updates_follow_one_another() -> None:
    rng = np.random.default_rng(4)
    weight = rng.normal(size=(100, 100)).astype(np.float32)
    change = (rng.random((100, 100)) < 0.1) * rng.choice([-0.5, 0.5], (100, 100))
    encoder = UpdateEncoder(nnrcodec.encode({"w": weight}), config=ROUNDED)
    sizes, temporal = [], []
    for _ in range(3):
        weight = (weight + change).astype(np.float32)
        data = encoder.encode({"w": weight})
        sizes.append(len(data))
        temporal += [header.temporal_context_modeling_flag for header in headers_of(data)]
    assert temporal == [0, 1, 1]
    assert max(sizes[1:]) < 0.7 * sizes[0]


def test_modules_are_taken_as_they_are() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 20, 3), torch.nn.BatchNorm2d(20))
    base = nnrcodec.encode(module, (torch.zeros(1, 3, 9, 9),), EncoderConfig(profile="nnc"))
    encoder, decoder = UpdateEncoder(base), UpdateDecoder()
    decoder.decode(base)
    with torch.no_grad():
        module(torch.randn(2, 3, 9, 9))  # batch statistics move
        module[0].weight += 0.1
    decoder.decode(encoder.encode(module))
    state = module.state_dict()
    assert list(decoder.state) == list(state)
    assert decoder.state["1.num_batches_tracked"] == 1
    assert np.abs(decoder.state["0.weight"] - state["0.weight"].numpy()).max() < 0.05


def test_infinities_that_stay_are_no_difference() -> None:
    mask = np.where(np.eye(8) > 0, -np.inf, 1).astype(np.float32)
    base = nnrcodec.encode({"mask": mask})
    encoder = UpdateEncoder(base)
    assert headers_of(encoder.encode({"mask": mask})) == []


WITHOUT_DIFFERENCE = {
    "infinite": (np.where(np.eye(8) > 0, -np.inf, 1), np.zeros((8, 8))),
    "nan": (np.zeros(40, np.float32), np.full(40, np.nan, np.float32)),
    "far": (np.array([5, 2**40]), np.array([5, 0])),
    "complex": (np.zeros(9, np.complex64), np.arange(9, dtype=np.complex64) * 1j),
    "jump": (np.full((9, 9), 3.4e38, np.float32), np.full((9, 9), -3.4e38, np.float32)),
    "double": (np.ones((30, 30)), np.full((30, 30), 1e300)),
}


@pytest.mark.parametrize("case", WITHOUT_DIFFERENCE)
@pytest.mark.parametrize("config", [None, EncoderConfig(lossless=True)])
def test_where_there_is_no_difference_the_tensor_is_whole(
    case: str, config: EncoderConfig | None, caplog: pytest.LogCaptureFixture
) -> None:
    before, after = WITHOUT_DIFFERENCE[case]
    rest = {"rest": np.ones(5, np.float32)}
    encoder, decoder = (
        UpdateEncoder({"w": before, **rest}, config=config),
        UpdateDecoder({"w": before, **rest}),
    )
    update = encoder.encode({"w": after, **rest})
    assert update.report.new == (("w",) if config is None or case == "complex" else ())
    assert "which tensors" not in caplog.text
    decoder.decode(update)
    np.testing.assert_array_equal(decoder.state["w"], after)


def test_a_constant_of_a_network_with_a_graph_may_become_infinite() -> None:
    class Masked(torch.nn.Module):
        def __init__(self, far: float) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((4,), far))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.minimum(x, self.mask)

    example = torch.rand(2, 4)
    base = nnrcodec.encode(Masked(1.0), (example,), calib=None)
    encoder, decoder = UpdateEncoder(base), UpdateDecoder()
    decoder.decode(base)
    update = encoder.encode(Masked(torch.inf).state_dict())
    assert update.report.new == ("mask",)
    decoder.decode(update)
    assert torch.equal(decoder.model()(9 * example), 9 * example)


def test_weights_that_vanish_or_grow_are_followed() -> None:
    weight = np.random.default_rng(0).normal(size=(30, 30)).astype(np.float32)
    base = nnrcodec.encode({"w": weight})
    encoder, decoder = UpdateEncoder(base, config=EncoderConfig(dq=False)), UpdateDecoder()
    decoder.decode(base)
    for factor, error in ((0, 0.2), (1e-4, 1e-4), (1e4, 2e3), (1, 1e-1)):
        decoder.decode(encoder.encode({"w": weight * np.float32(factor)}))
        assert np.abs(decoder.state["w"] - weight * factor).max() <= error


def without(state: State, *names: str) -> State:
    return {name: value for name, value in state.items() if name not in names}


CHANGES: dict[str, tuple[State, tuple[str, ...], str]] = {
    "new": ({"extra": np.ones(3, np.float32)}, (), "'extra' is not in the base model"),
    "gone": ({}, ("mask", "steps"), "'steps', 'mask' are in the base model only"),
    "shape": (
        {"scale": np.full(2, 7.0, np.float32)},
        (),
        r"'scale' is float32\[2\], in the base model float32",
    ),
    "dtype": (
        {"steps": np.array(1, np.int32)},
        (),
        r"'steps' is int32\[\], in the base model int64",
    ),
    "empty": ({"half": np.zeros((0, 33), np.float16)}, (), r"'half' is float16\[0, 33\]"),
    "all": ({"w": np.eye(3, dtype=np.float32)}, tuple(first_state()), "'conv.weight', .* 4 more"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("config", [None, EncoderConfig(lossless=True)])
@pytest.mark.parametrize("short_names", [False, True])
def test_tensors_come_and_go(
    change: str,
    config: EncoderConfig | None,
    short_names: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = first_state()
    base = nnrcodec.encode(state, config=EncoderConfig(short_names=short_names))
    encoder, decoder = UpdateEncoder(base, config=config), UpdateDecoder()
    decoder.decode(base)
    state = next_state(state, 1)
    decoder.decode(encoder.encode(state))  # has left histories
    new, gone, message = CHANGES[change]
    changed = without(state, *gone) | new
    update = encoder.encode(changed)
    assert re.search(f"changes which tensors the model has: .*{message}", caplog.text)
    assert (set(update.report.new), set(update.report.gone)) == (set(new), set(gone))
    assert update.report.notes
    decoder.decode(update)
    assert list(decoder.state) == list(changed)
    for name, value in new.items():
        assert decoder.state[name].dtype == value.dtype
        assert decoder.state[name].shape == value.shape
        np.testing.assert_allclose(decoder.state[name], value, atol=0.05)
    for seed in range(2):  # and on
        changed = {
            name: value if name in ("mask", "steps") else np.asarray(value + 1, value.dtype)
            for name, value in changed.items()
        }
        caplog.clear()
        decoder.decode(encoder.encode(changed))
        assert largest_error(decoder.state, {n: v for n, v in changed.items() if v.size}) < 1, seed
        assert "which tensors" not in caplog.text


def test_new_tensors_stand_where_they_stand_in_the_model() -> None:
    state = {name: np.full(4, 2.0, np.float32) for name in "abcd"}
    encoder, decoder = UpdateEncoder(state), UpdateDecoder(state)
    changed = {n: state.get(n, np.full(3, 5.0, np.float32)) for n in ("x", "a", "c", "y", "z", "d")}
    decoder.decode(encoder.encode(changed))
    assert list(decoder.state) == list(changed)


def test_with_a_graph_tensors_stay() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval()
    base = nnrcodec.encode(module, (torch.zeros(2, 4),), calib=None)
    state = module.state_dict()
    with pytest.raises(ModelError, match=r"has a graph .*: 'x' is not in .* Encode a new base"):
        UpdateEncoder(base).encode({**state, "x": torch.zeros(2)})
    with pytest.raises(ModelError, match=r"'0.bias' is in the base model only"):
        UpdateEncoder(base).encode({"0.weight": state["0.weight"]})


def test_ties_come_and_go() -> None:
    table = np.random.default_rng(0).normal(size=(8, 9)).astype(np.float32)
    base = {"a": table, "b": table, "c": np.ones(3, np.float32)}
    encoder, decoder = UpdateEncoder(base), UpdateDecoder(base)
    wide = np.concatenate([table, table])
    decoder.decode(encoder.encode({"a": wide, "b": wide, "c": base["c"]}))
    assert decoder.network().ties == {"b": "a"}
    assert decoder.state["b"].shape == (16, 9)
    update = encoder.encode({"a": wide, "b": wide + 1, "c": base["c"]})  # no longer tied
    assert update.report.new == ("b",)
    assert "'b' is no longer the same as 'a'" in update.report.notes[0]
    decoder.decode(update)
    assert decoder.network().ties == {}
    assert float(np.abs(decoder.state["b"] - wide - 1).max()) < 0.2
    decoder.decode(encoder.encode({"b": wide + 1, "c": base["c"]}))  # the first of them goes
    assert list(decoder.state) == ["b", "c"]


# Base models that are no streams


def test_a_network_that_both_sides_have_is_a_base_model(tmp_path: Path) -> None:
    state = first_state()
    path = tmp_path / "base.npz"
    np.savez(path, **state)
    changed = next_state(state, 5)
    updates = {UpdateEncoder(base).encode(changed) for base in (state, path, str(path))}
    (update,) = updates
    path_decoder = UpdateDecoder(path)
    path.unlink()  # what was read is in memory
    for decoder in (UpdateDecoder(state), path_decoder):
        np.testing.assert_array_equal(decoder.state["half"], state["half"])
        decoder.decode(update)
        assert largest_error(decoder.state, changed) < 0.2
        np.testing.assert_array_equal(decoder.state["frozen"], state["frozen"])
    assert "frozen" not in {tensor.name for tensor in update.report.tensors}
    with pytest.raises(UnitOrderError, match="update of the model with digest"):
        UpdateDecoder(changed).decode(update)


def test_nothing_that_did_not_change_costs_anything() -> None:
    state = first_state()
    assert len(UpdateEncoder(state).encode(state)) < 200


def test_short_names_of_an_update_to_a_file() -> None:
    state = first_state()
    changed = next_state(state, 5)
    config = EncoderConfig(short_names=True)
    update = UpdateEncoder(state, config=config).encode(changed)
    assert "conv.weight" not in {header.topology_elem_id for header in headers_of(update)}
    decoder = UpdateDecoder(state)
    decoder.decode(update)
    assert largest_error(decoder.state, changed) < 0.2


def test_a_network_with_a_graph_is_a_base_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
    example = torch.rand(1, 3, 9, 9)
    path = tmp_path / "base.pt2"
    torch.export.save(torch.export.export(module, (example,)), path)
    with torch.no_grad():
        module[0].bias += 1
    update = UpdateEncoder(path).encode(torch.export.export(module, (example,)))
    decoder = UpdateDecoder(path)
    decoder.decode(update)
    torch.testing.assert_close(decoder.model()(example), module(example), atol=0.02, rtol=0)


def test_a_base_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot (read|open)"):
        UpdateEncoder(tmp_path / "none.pt")
    for name, content, message in (
        ("lfs.pt", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("junk.pt", b"junk", "of a kind that is not known"),
        ("junk.nnc", b"junk", "only 4 are left"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises((ModelError, BitstreamError), match=message):
            UpdateDecoder(tmp_path / name)
    with pytest.raises(BitstreamError):
        UpdateDecoder(b"something")
    with pytest.raises(ConfigError, match="cannot encode a int"):
        UpdateDecoder(7)


def test_training_starts_from_what_the_receiver_has(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 30, 3, padding=1), torch.nn.ReLU()).eval()
    example = torch.rand(1, 3, 9, 9)
    base = nnrcodec.encode(module, (example,), calib=None)
    encoder = UpdateEncoder(base)
    network = encoder.start()
    np.testing.assert_array_equal(network.state_dict()["0.weight"], encoder.state["0.weight"])
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        network.get_parameter("0.bias").add_(0.5)
    update = encoder.encode(network)
    assert [tensor.name for tensor in update.report.tensors] == ["0.bias"]
    assert "nnrcodec" not in caplog.text
    again = UpdateEncoder(base)
    assert again.start(module) is module
    np.testing.assert_array_equal(module.state_dict()["0.weight"], again.state["0.weight"])
    with pytest.raises(ModelError, match="give start"):
        UpdateEncoder({"w": np.zeros(3, np.float32)}).start()


def test_training_from_the_original_is_said(caplog: pytest.LogCaptureFixture) -> None:
    state = {"w": np.random.default_rng(0).normal(size=(60, 60)).astype(np.float32)}
    base = nnrcodec.encode(state)
    config = EncoderConfig(quantization=UniformConfig(qp=-50))
    UpdateEncoder(base, config=config).encode(state)
    assert "more than half as large as its base model" in caplog.text


def test_whole_layers_are_projected_onto_low_rank(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(6, 12, 3, padding=1), torch.nn.ReLU()).eval()
    example = torch.rand(2, 6, 9, 9)
    low_rank = LowRankConfig(ranks={"0": 17})
    base = nnrcodec.encode(module, (example,), EncoderConfig(low_rank=low_rank), calib=None)
    with torch.no_grad():
        module[0].weight.mul_(1.1)
        module[0].bias.add_(1)
    encoder, decoder = UpdateEncoder(base), UpdateDecoder()
    decoder.decode(base)
    decoder.decode(encoder.encode(torch.export.export(module, (example,))))
    assert "1 layers are low rank in the base model and whole here" in caplog.text
    assert "the graph of the network" not in caplog.text
    assert list(decoder.state) == ["0.u.weight", "0.v.weight", "0.v.bias"]
    torch.testing.assert_close(decoder.model()(example), module(example), atol=0.15, rtol=0)


@pytest.mark.parametrize(
    "config",
    [
        EncoderConfig(codebook=True),
        EncoderConfig(fold_batch_norm=True),
        EncoderConfig(low_rank=LowRankConfig(energy=0.5)),
        EncoderConfig(target_bytes=100),
    ],
)
def test_tools_that_change_the_model_are_refused(config: EncoderConfig) -> None:
    base = nnrcodec.encode({"w": np.eye(30, dtype=np.float32)})
    with pytest.raises(ConfigError, match="are for the base model only"):
        UpdateEncoder(base, config=config)
    with pytest.raises(ConfigError, match="no rANS"):
        UpdateEncoder(base, config=EncoderConfig(entropy="ans"))


def test_streams_that_are_not_what_they_should_be_are_refused() -> None:
    state = first_state()
    base = nnrcodec.encode(state)
    update = UpdateEncoder(base).encode(next_state(state, 0))
    with pytest.raises(ConfigError, match="stream 1 of those to build on is an update"):
        UpdateEncoder(update)
    with pytest.raises(ConfigError, match="stream 3 of those to build on is no update"):
        UpdateEncoder(base, [update, base])
    with pytest.raises(ConfigError, match="expected a list"):
        UpdateEncoder(base, update)
    with pytest.raises(BitstreamError):
        UpdateEncoder(base[:100])


def test_the_update_does_not_depend_on_threads() -> None:
    state = first_state()
    base = nnrcodec.encode(state)
    updates = {
        UpdateEncoder(base, config=EncoderConfig(threads=n)).encode(next_state(state, 0))
        for n in (1, 4)
    }
    assert len(updates) == 1


def test_an_update_of_another_model_is_refused() -> None:
    weights = np.random.default_rng(8).normal(size=(20, 20)).astype(np.float32)
    base, other = (nnrcodec.encode({"w": weights * scale}) for scale in (1.0, 1.5))
    encoder = nnrcodec.UpdateEncoder(base)
    updates = [encoder.encode({"w": weights + shift}) for shift in (0.5, 0.9)]
    for streams in ((other, updates[0]), (base, updates[1]), (base, *updates, updates[1])):
        decoder = nnrcodec.UpdateDecoder()
        for stream in streams[:-1]:
            decoder.decode(stream)
        before = decoder.state["w"].copy()
        with pytest.raises(UnitOrderError, match="update of the model with digest"):
            decoder.decode(streams[-1])
        np.testing.assert_array_equal(decoder.state["w"], before)


@pytest.mark.parametrize("changed", [False, True])
def test_another_graph_is_said(changed: bool, caplog: pytest.LogCaptureFixture) -> None:
    """An update has tensors only: the receiver keeps the graph that it has."""

    def network(activation: torch.nn.Module) -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(8, 8), activation, torch.nn.Linear(8, 8)).eval()

    example = (torch.zeros(2, 8),)
    base = nnrcodec.encode(network(torch.nn.ReLU()), example, calib=None)
    new = network(torch.nn.Tanh() if changed else torch.nn.ReLU())
    with torch.no_grad():
        new[0].weight.add_(0.1)
    UpdateEncoder(base).encode(torch.export.export(new, example))
    assert ("the graph of the network is not that of the base model" in caplog.text) is changed


# What stands around the tensors

X = torch.arange(12.0).reshape(3, 4)


def quantized(scale: float, zero_point: int = 0) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such tensors are deprecated
        return torch.quantize_per_tensor(X, scale, zero_point, torch.qint8)


AROUND = {
    "scale": ({"w": quantized(0.1)}, {"w": quantized(0.2)}),
    "zero point": ({"w": quantized(0.1)}, {"w": quantized(0.1, 3)}),
    "to float": ({"w": quantized(0.1), "v": X}, {"w": X, "v": X}),
    "to quantized": ({"w": X, "v": X}, {"w": quantized(0.1), "v": X}),
    "to integers": ({"w": quantized(0.1)}, {"w": quantized(0.1).int_repr()}),
    "of integers": ({"w": quantized(0.1).int_repr()}, {"w": quantized(0.1)}),
    "none": ({"a": X, "n": None}, {"a": X, "n": X * 7}),
    "number": ({"a": X, "n": 5}, {"a": X, "n": torch.tensor(7)}),
    "to number": ({"a": X, "n": torch.tensor(7)}, {"a": X, "n": 5}),
    "dict": ({"a": {"b": X}, "c": X + 1}, {"a": X, "c": X + 1}),
    "nested": ({"a": X}, {"model": {"a": X}, "epoch": 3}),
}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
@pytest.mark.parametrize("change", AROUND)
@pytest.mark.parametrize("lossless", [False, True])
def test_what_becomes_of_the_places_of_tensors_comes_back(
    change: str, lossless: bool, tmp_path: Path
) -> None:
    for name, state in zip(("old", "new"), AROUND[change], strict=True):
        torch.save(state, tmp_path / f"{name}.pt")
    config = EncoderConfig(lossless=lossless)
    encoder = UpdateEncoder(tmp_path / "old.pt", config=config)
    (tmp_path / "u.nnc").write_bytes(encoder.encode(nnrcodec.load(tmp_path / "new.pt")))
    nnrcodec.decode_file([tmp_path / "old.pt", tmp_path / "u.nnc"], tmp_path / "out.pt")
    found, expected = torch.load(tmp_path / "out.pt"), AROUND[change][1]
    assert list(found) == list(expected)
    require_same(found, expected, exact=lossless)


def require_same(found: object, expected: object, *, exact: bool) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        assert list(found) == list(expected)
        for key, value in expected.items():
            require_same(found[key], value, exact=exact)
    elif isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        if expected.is_quantized:
            assert found.q_scale() == expected.q_scale()
            assert found.q_zero_point() == expected.q_zero_point()
            found, expected = found.int_repr(), expected.int_repr()
        torch.testing.assert_close(found, expected, atol=0 if exact else 0.1, rtol=0)
    else:
        assert found == expected


@pytest.mark.parametrize("lossless", [False, True])
def test_values_around_tensors_come_with_lossless_updates(
    lossless: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, epoch in (("old", 3), ("new", 9)):
        torch.save({"epoch": epoch, "model": {"a": X}}, tmp_path / f"{name}.pt")
    encoder = UpdateEncoder(tmp_path / "old.pt", config=EncoderConfig(lossless=lossless))
    (tmp_path / "u.nnc").write_bytes(encoder.encode(nnrcodec.load(tmp_path / "new.pt")))
    nnrcodec.decode_file([tmp_path / "old.pt", tmp_path / "u.nnc"], tmp_path / "out.pt")
    assert torch.load(tmp_path / "out.pt")["epoch"] == (9 if lossless else 3)
    assert ("lossless updates have it" in caplog.text) is not lossless


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("a b", "b a", "in another order than those of the base model"),
        ("a b b2=b", "a b b2", "one and the same has changed, but not their values"),
        ("a b b2", "a b b2=b", "the receiver keeps 'b2' as they are in the base model"),
    ],
)
def test_what_an_update_does_not_tell_is_said(
    before: str, after: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    values = {name: torch.arange(40.0) + ord(name[0]) for name in ("a", "b", "b2")}

    def state(names: str) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for name, _, tied in (part.partition("=") for part in names.split()):
            found[name] = found[tied] if tied else values[name].clone()
        return found

    encoder = UpdateEncoder(state(before))
    result = encoder.encode(state(after))
    assert said in caplog.text
    assert [note for note in result.report.notes if said in note]
    assert list(encoder.state) == before.replace("=b", "").split()
