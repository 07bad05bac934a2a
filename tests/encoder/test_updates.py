from __future__ import annotations

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
    with pytest.raises(ModelError, match=r"difference of tensor 'mask' .* is infinite"):
        encoder.encode({"mask": np.zeros_like(mask)})


def test_weights_that_vanish_or_grow_are_followed() -> None:
    weight = np.random.default_rng(0).normal(size=(30, 30)).astype(np.float32)
    base = nnrcodec.encode({"w": weight})
    encoder, decoder = UpdateEncoder(base, config=EncoderConfig(dq=False)), UpdateDecoder()
    decoder.decode(base)
    for factor, error in ((0, 0.2), (1e-4, 1e-4), (1e4, 2e3), (1, 1e-1)):
        decoder.decode(encoder.encode({"w": weight * np.float32(factor)}))
        assert np.abs(decoder.state["w"] - weight * factor).max() <= error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": np.zeros(3, np.float32)}, "'extra' is not in the base model"),
        ({"mask": None}, "'mask' is in the base model only"),
        ({"scale": np.zeros(2, np.float32)}, r"'scale' is float32\[2\], in the base model float32"),
        ({"steps": np.array(1, np.int32)}, r"'steps' is int32\[\], in the base model int64"),
    ],
)
def test_other_tensors_are_refused_by_name(change: dict[str, object], message: str) -> None:
    state = first_state()
    encoder = UpdateEncoder(nnrcodec.encode(state))
    changed = {name: v for name, v in {**state, **change}.items() if v is not None}
    with pytest.raises(ModelError, match=message):
        encoder.encode(changed)


def test_integers_that_move_too_far_are_refused_by_name() -> None:
    encoder = UpdateEncoder(nnrcodec.encode({"n": np.array([5, 2**40])}))
    with pytest.raises(ModelError, match=r"difference of tensor 'n' .* encode a new base model"):
        encoder.encode({"n": np.array([5, 0])})
    assert len(headers_of(encoder.encode({"n": np.array([5, 2**40 + 3])}))) == 1


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
