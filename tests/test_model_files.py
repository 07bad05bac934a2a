"""Files as people have them, from the command line and back; made here after public reports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import nnrcodec
from nnrcodec import EncoderConfig, ModelError
from nnrcodec.cli import decode, encode, info

CASES = Path(__file__).parents[2] / "shared" / "cases"


def network() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 3, 3)
    ).eval()


def checkpoint() -> dict[str, object]:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    return {"model": model.state_dict(), "iteration": 4000, "optimizer": optimizer.state_dict()}


def there_and_back(path: Path, *options: str, ending: str = ".pth") -> Path:
    stream, out = path.parent / "x.nnr", path.parent / f"back{ending}"
    assert encode.main([str(path), "-o", str(stream), *options]) == 0
    assert decode.main([str(stream), "-o", str(out)]) == 0
    return out


def test_a_checkpoint_comes_back_as_one_without_its_optimizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = checkpoint()
    torch.save(content, tmp_path / "last.ckpt")
    back = torch.load(there_and_back(tmp_path / "last.ckpt"), weights_only=True)
    said = capsys.readouterr()
    assert "coded is 'model'; left out: 'optimizer' (state of training" in said.err
    assert "without optimizer, which its encoder left out" in said.out
    assert list(back) == ["model", "iteration"]
    assert back["iteration"] == 4000
    network().load_state_dict(back["model"])
    assert back["model"]._metadata == content["model"]._metadata  # type: ignore[attr-defined]
    assert info.main([str(tmp_path / "x.nnr"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["wrapper"], [left["name"] for left in told["left_out"]]) == (
        "torch",
        ["optimizer"],
    )
    back = torch.load(there_and_back(tmp_path / "last.ckpt", "--key", "all"), weights_only=True)
    torch.optim.Adam(network().parameters()).load_state_dict(back["optimizer"])


def test_json_and_report_have_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(checkpoint(), tmp_path / "m.pth")
    assert encode.main([str(tmp_path / "m.pth"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["coded"], told["form"]) == ("model", "a PyTorch file")
    assert [left["name"] for left in told["left_out"]] == ["optimizer"]
    assert any("left out: 'optimizer'" in warning for warning in told["warnings"])
    report = nnrcodec.encode_file(tmp_path / "m.pth").report
    assert [left.name for left in report.left_out] == ["optimizer"]
    assert any("left out: 'optimizer'" in note for note in report.notes)


def test_one_of_several_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = network().state_dict()
    path = tmp_path / "net_g.pth"
    torch.save({"params": state, "params_ema": {k: v + 1 for k, v in state.items()}}, path)
    assert encode.main([str(path)]) == 1
    assert "'params', 'params_ema'): choose one with --key" in capsys.readouterr().err
    assert encode.main([str(path), "--key", "ema"]) == 2
    back = torch.load(there_and_back(path, "--key", "params_ema"), weights_only=True)
    assert list(back) == ["params_ema"]
    assert float(back["params_ema"]["0.weight"].mean()) > 0.9


def test_a_tied_table_is_coded_once(tmp_path: Path) -> None:
    table = torch.randn(64, 32)
    tied = {"embed.weight": table, "lm_head.weight": table, "ln.weight": torch.ones(32)}
    torch.save(tied, tmp_path / "tied.pth")
    torch.save({name: value.clone() for name, value in tied.items()}, tmp_path / "apart.pth")
    result = nnrcodec.encode_file(tmp_path / "tied.pth")
    assert len(result) < 0.6 * len(nnrcodec.encode_file(tmp_path / "apart.pth"))
    assert result.report.ties == {"lm_head.weight": "embed.weight"}
    back = torch.load(there_and_back(tmp_path / "tied.pth"), weights_only=True)
    assert back["embed.weight"].data_ptr() == back["lm_head.weight"].data_ptr()
    assert (tmp_path / "back.pth").stat().st_size < 1.2 * (tmp_path / "tied.pth").stat().st_size


def test_tied_weights_of_a_network_with_a_graph_are_coded_once() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(50, 24)
            self.head = torch.nn.Linear(24, 50, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(tokens))

    module, tokens = Tied(), torch.arange(40).reshape(1, 40)
    result = nnrcodec.encode(module, (tokens,), calib=None)
    assert len(result.report.tensors) == 1
    runs = nnrcodec.decode_model(result)
    assert float((runs(tokens) - module(tokens)).detach().abs().max()) < 0.5
    assert nnrcodec.load_into(Tied(), result).head.weight.shape == (50, 24)


def test_ties_hold_through_updates() -> None:
    table = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    base = nnrcodec.encode({"a": table, "b": table, "empty": np.zeros((0, 2), np.float32)})
    encoder, decoder = nnrcodec.UpdateEncoder(base), nnrcodec.UpdateDecoder()
    decoder.decode(base)
    later = table.copy()
    later[3] += 5
    empty = np.zeros((0, 2), np.float32)
    decoder.decode(encoder.encode({"a": later, "b": later, "empty": empty}))
    assert np.array_equal(decoder.state["a"], decoder.state["b"])
    assert float(np.abs(decoder.state["b"] - later).max()) < 0.5
    decoder.decode(encoder.encode({"a": later, "b": table, "empty": empty}))  # no longer the same
    assert float(np.abs(decoder.state["b"] - table).max()) < 0.5


def test_odd_tensors_do_not_refuse_a_file(tmp_path: Path) -> None:
    state = {
        "w": torch.randn(16, 16),
        "act.max_val": torch.tensor(1.5),
        "zero_point": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "fp8": torch.randn(16, 16).to(torch.float8_e4m3fn),
        "fft": torch.randn(3, 4, dtype=torch.complex64),
        "mask": torch.tensor([True, False]),
        "nan": torch.tensor([1.0, float("nan"), -0.0]),
        "two": torch.tensor([2.0, float("inf")]),
    }
    torch.save(state, tmp_path / "m.pth")
    for profile in ("ext", "nnc"):
        out = there_and_back(tmp_path / "m.pth", "--profile", profile, "-q")
        back = torch.load(out, weights_only=True)
        assert list(back) == list(state)
        for name, expected in state.items():
            assert (back[name].dtype, back[name].shape) == (expected.dtype, expected.shape)
            bits = [v.reshape(-1).view(torch.uint8).tolist() for v in (back[name], expected)]
            assert (bits[0] == bits[1]) or name in ("w", "act.max_val")


def test_metadata_of_safetensors_come_back(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    save_file({"lora_A": torch.randn(8, 64).bfloat16()}, path, {"format": "pt", "alpha": "16"})
    out = there_and_back(path, ending=".safetensors")
    assert load_file(out)["lora_A"].dtype == torch.bfloat16
    assert b'"alpha":"16"' in out.read_bytes()


def test_what_a_kind_of_file_cannot_hold_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": network().state_dict(), "epoch": 3}, tmp_path / "m.pth")
    there_and_back(tmp_path / "m.pth", ending=".safetensors")
    assert "has the tensors only, not what stood around the tensors" in capsys.readouterr().err


def test_low_rank_of_a_checkpoint_keeps_its_wrapper(tmp_path: Path) -> None:
    torch.save({"model": {"fc.weight": torch.randn(40, 40)}, "epoch": 3}, tmp_path / "m.pth")
    out = there_and_back(tmp_path / "m.pth", "--rank", "fc=linear:4")
    back = torch.load(out, weights_only=True)
    assert (back["epoch"], list(back["model"])) == (3, ["fc.u.weight", "fc.v.weight"])


def test_streams_without_anything_new_are_of_the_version_before(tmp_path: Path) -> None:
    data = nnrcodec.encode({"w": np.ones((20, 20), np.float32)})
    assert b"nnrcodec 2.1 " in data
    torch.save(checkpoint(), tmp_path / "m.pth")
    assert b"nnrcodec 2.2 " in nnrcodec.encode_file(tmp_path / "m.pth")


def test_constants_of_a_graph_are_exact() -> None:
    class Positions(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(24, 24)
            self.register_buffer("table", torch.sin(torch.arange(480.0)).reshape(20, 24))
            self.register_buffer("window", torch.hann_window(24), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x * self.window) + self.table  # type: ignore[operator]

    module = Positions()
    data = nnrcodec.encode(module, (torch.rand(1, 20, 24),), calib=None)
    errors = {tensor.name: tensor.relative_error for tensor in data.report.tensors}
    assert errors["table"] == errors["window"] == 0 < errors["fc.weight"]


# Receivers.


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "net.generator."])
def test_prefixes_are_recognised_and_said(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    module = network()
    plain = nnrcodec.encode(module.state_dict())
    prefixed = nnrcodec.encode({f"{prefix}{k}": v for k, v in module.state_dict().items()})
    receiver = nnrcodec.load_into(network(), prefixed)
    assert f"'{prefix}0.weight' is loaded as '0.weight'" in caplog.text
    assert torch.allclose(receiver[0].weight, module[0].weight, atol=0.1)  # type: ignore[index]
    outer = torch.nn.Module()
    parts = prefix.rstrip(".").split(".")
    inner = outer
    for part in parts[:-1]:
        inner.add_module(part, torch.nn.Module())
        inner = getattr(inner, part)
    inner.add_module(parts[-1], network())
    nnrcodec.load_into(outer, plain)
    assert f"'0.weight' is loaded as '{prefix}0.weight'" in caplog.text


def test_prefixes_of_layers_of_low_rank_are_recognised() -> None:
    from nnrcodec import LowRankConfig

    state = {"module.0.weight": torch.randn(40, 40), "module.0.bias": torch.zeros(40)}
    config = EncoderConfig(low_rank=LowRankConfig(ranks={"module.0": 4}, scheme="channel"))
    module = nnrcodec.load_into(
        torch.nn.Sequential(torch.nn.Linear(40, 40)), nnrcodec.encode(state, config=config)
    )
    assert module[0].u.weight.shape == (4, 40)  # type: ignore[index]


def test_tensors_beside_the_state_dict_are_not_for_the_module(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"mean": torch.ones(3), "net": network().state_dict()}, tmp_path / "m.pth")
    nnrcodec.load_into(network(), nnrcodec.encode_file(tmp_path / "m.pth"))
    assert "not loaded into the module: 'mean'" in caplog.text


def test_errors_of_a_module_are_our_own() -> None:
    class Versioned(torch.nn.Linear):
        _version = 2

        def _load_from_state_dict(self, state, prefix, metadata, *rest):  # type: ignore[no-untyped-def]
            if metadata.get("version") != 2:
                raise ValueError("a version that is not known")
            super()._load_from_state_dict(state, prefix, metadata, *rest)

    data = nnrcodec.encode(Versioned(4, 4).state_dict())
    nnrcodec.load_into(Versioned(4, 4), data)

    class Refuses(torch.nn.Linear):
        def _load_from_state_dict(self, *_):  # type: ignore[no-untyped-def]
            raise ValueError("never")

    with pytest.raises(ModelError, match="does not take the state dict: ValueError: never"):
        nnrcodec.load_into(Refuses(4, 4), data)


def test_folded_batch_norms_are_named_as_the_reason() -> None:
    config = EncoderConfig(fold_batch_norm=True)
    data = nnrcodec.encode(network(), (torch.rand(1, 3, 9, 9),), config, calib=None)
    with pytest.raises(ModelError, match=r"folded .*--fold-batch-norm"):
        nnrcodec.load_into(network(), data)


# The small inputs that are not part of the project.

OUTCOMES = {
    "01-trainer-checkpoint/g_4000.pth": "left out: 'optimizer'",
    "02-lightning-ckpt/last.ckpt": "left out: 'optimizer_states'",
    "02-lightning-ckpt/last.pth": "left out: 'optimizer_states'",
    "03-ema/net_g.pth": "error: .*'params', 'params_ema'.*--key",
    "03-ema/model_last.pt": "error: .*'ema_model_state_dict', 'model_state_dict'.*--key",
    "04-dataparallel/dp.pth": "",
    "05-dtypes/bf16.safetensors": "",
    "05-dtypes/fp8.safetensors": "",
    "05-dtypes/mixed.pt": "",
    "06-noncontiguous/channels_last.pth": "become contiguous that have other strides: 'a.weight'",
    "07-nan/one_nan.pth": "'conv2.weight': 1 of 216 values are NaN, the first at",
    "07-nan/outlier.pth": "'conv1.weight': 1 of 216 values are far beyond all others, the first",
    "08-torchscript/traced.pt": "TorchScript network of the class",
    "09-shards/model.safetensors.index.json": "2 shards are coded as one stream",
    "09-shards": "2 shards are coded as one stream",
    "09-shards/model-00001-of-00002.safetensors": "one of 2 shards",
    "11-already-int/int8.pt": "",
    "14-broken-download/truncated.pth": "error: .*a truncated zip archive",
    "14-broken-download/empty.pth": "error: .*is empty: download it again",
    "14-broken-download/lfs.pth": "error: .*git lfs pull",
    "14-broken-download/unzipped/data.pkl": "error: .*zip the folder",
    "15-tied/tied.pth": "",
    "16-odd-entries/zero_dim_empty.pth": "",
    "16-odd-entries/list_of_dicts.pth": "error: .*'generator', 'discriminator.layers.0'.*--key",
    "16-odd-entries/norm_beside_model.pth": "",
    "16-odd-entries/tensor_and_int.pth": "",
    "16-odd-entries/nested2.pth": "error: .*'net.enc', 'net.dec'.*--key",
    "16-odd-entries/nested_tree.pth": "",
    "16-odd-entries/list.pth": "",
    "16-odd-entries/numpy.pth": "",
    "16-odd-entries/names.pth": "",
    "16-odd-entries/one_tensor.pth": "",
    "17-whole-module/module.pth": "pickled network of the class torch.nn.modules.container",
    "19-npz/weights.npz": "",
    "20-lora/adapter_model.safetensors": "",
}


@pytest.mark.skipif(not CASES.is_dir(), reason="these inputs are not part of the project")
@pytest.mark.parametrize("name", OUTCOMES)
def test_small_inputs_after_public_reports(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = OUTCOMES[name]
    stream = tmp_path / "x.nnr"
    code = encode.main([str(CASES / name), "-o", str(stream), "-q"])
    said = capsys.readouterr().err
    assert code == (1 if expected.startswith("error") else 0), said

    said = "\n".join(line for line in said.splitlines() if "compiling" not in line)
    assert re.search(expected, said) if expected else not said
    if code == 0:
        ending = Path(name).suffix if Path(name).suffix in (".npz", ".safetensors") else ".pt"
        assert decode.main([str(stream), "-o", str(tmp_path / f"out{ending}"), "-q"]) == 0


@pytest.mark.skipif(not CASES.is_dir(), reason="these inputs are not part of the project")
@pytest.mark.parametrize(
    ("base", "new", "most_bytes"),
    [
        ("10-delta/base.pth", "10-delta/tuned.pth", 800),
        ("10-delta/base.pth", "10-delta/tuned_missing.pth", 600),
        ("10-delta/tuned_missing.pth", "10-delta/tuned.pth", 600),
        ("21-float-base/base.pt", "21-float-base/overfitted.pt", 1800),
        ("21-float-base/base.pt", "21-float-base/base.pt", 200),
    ],
)
def test_updates_of_files_that_both_sides_have(
    base: str, new: str, most_bytes: int, tmp_path: Path
) -> None:
    update, output = tmp_path / "1.nnc", tmp_path / "new.pt"
    files = CASES / base, CASES / new
    assert encode.main([str(files[1]), "--base", str(files[0]), "-o", str(update), "-q"]) == 0
    assert update.stat().st_size < most_bytes
    assert decode.main([str(files[0]), str(update), "-o", str(output), "-q"]) == 0
    found, expected = torch.load(output), torch.load(files[1])
    found, expected = (values.get("model_state_dict", values) for values in (found, expected))
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert float((found[name].double() - value.double()).abs().max()) < 0.05
