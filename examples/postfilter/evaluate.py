"""Measure what the post-filter does for the PSNR of decoded pictures.

Owns reading pairs and filters, and the PSNR. Filtered pictures are clipped and rounded to 8 bits,
as a codec would store them, before they are measured: PSNR = 10 log10(255^2 / MSE) of the luma of
one picture, averaged over pictures in dB.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from model import PostFilter
from PIL import Image
from safetensors.torch import load_file

Filter = Callable[[torch.Tensor], torch.Tensor]

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Pair:
    """An original picture and its decoded versions.

    Attributes
    ----------
    name : str
        Name of the picture.
    original : ndarray of uint8, shape (height, width)
        Luma before coding.
    decoded : dict of int to ndarray of uint8, shape (height, width)
        Luma after coding, by QP in rising order.
    """

    name: str
    original: np.ndarray
    decoded: dict[int, np.ndarray]


@dataclass(frozen=True)
class Score:
    """PSNR of one decoded picture in dB, before and after the filter."""

    name: str
    qp: int
    before: float
    after: float


def load_pairs(folder: str | Path) -> list[Pair]:
    """Load all pairs of a folder, sorted by name.

    Parameters
    ----------
    folder : str or Path
        Holds ``NAME_orig.png`` and ``NAME_qpQP_dec.png``, both 8-bit gray.

    Raises
    ------
    FileNotFoundError
        When the folder holds no pairs.
    """
    pairs = []
    for path in sorted(Path(folder).glob("*_orig.png")):
        name = path.name.removesuffix("_orig.png")
        decoded = {
            int(file.name.removeprefix(f"{name}_qp").removesuffix("_dec.png")): read_gray(file)
            for file in sorted(path.parent.glob(f"{name}_qp*_dec.png"))
        }
        pairs.append(Pair(name, read_gray(path), decoded))
    if not pairs:
        raise FileNotFoundError(f"no *_orig.png in {folder}; make_pairs.py makes them")
    return pairs


def read_gray(path: Path) -> np.ndarray:
    """Read an 8-bit gray picture as uint8, shape (height, width)."""
    with Image.open(path) as picture:
        return np.array(picture.convert("L"))


def psnr(picture: np.ndarray, original: np.ndarray) -> float:
    """Return the PSNR of an 8-bit picture in dB.

    Parameters
    ----------
    picture, original : ndarray of uint8, shape (height, width)
        The picture to judge and the one it should be.

    Examples
    --------
    >>> black = np.zeros((8, 8), np.uint8)
    >>> round(psnr(black + 1, black), 2)
    48.13
    """
    error = picture.astype(np.float64) - original
    return float(10 * np.log10(255**2 / np.mean(error**2)))


def load_filter(path: str | Path) -> Filter:
    """Load a post-filter from a ``.pt2`` program or ``.safetensors`` weights."""
    if Path(path).suffix == ".pt2":
        return torch.export.load(path).module()
    model = PostFilter()
    model.load_state_dict(load_file(path))
    return model


def apply_filter(post_filter: Filter, decoded: np.ndarray) -> np.ndarray:
    """Filter one decoded picture; clip and round the result to 8 bits.

    Parameters
    ----------
    post_filter : callable
        Maps luma 0..1, float32 of shape (1, 1, height, width), to the same shape.
    decoded : ndarray of uint8, shape (height, width)
        Decoded luma.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        Filtered luma.
    """
    with torch.no_grad():
        filtered = post_filter(torch.from_numpy(decoded)[None, None].float() / 255)
    return filtered[0, 0].mul(255).round().clamp(0, 255).to(torch.uint8).numpy()


def score_pairs(post_filter: Filter, pairs: list[Pair]) -> list[Score]:
    """Measure the PSNR of every decoded picture before and after the filter."""
    return [
        Score(
            pair.name,
            qp,
            psnr(decoded, pair.original),
            psnr(apply_filter(post_filter, decoded), pair.original),
        )
        for pair in pairs
        for qp, decoded in pair.decoded.items()
    ]


def mean_scores(scores: list[Score]) -> list[Score]:
    """Average scores over the pictures, one score per QP."""
    means = []
    for qp in sorted({score.qp for score in scores}):
        chosen = [score for score in scores if score.qp == qp]
        before = sum(score.before for score in chosen) / len(chosen)
        after = sum(score.after for score in chosen) / len(chosen)
        means.append(Score("mean", qp, before, after))
    return means


def mean_gain(scores: list[Score]) -> float:
    """Return the mean PSNR gain of the filter in dB."""
    return sum(score.after - score.before for score in scores) / len(scores)


def print_scores(scores: list[Score]) -> None:
    """Print a table of scores."""
    print("picture             QP   before    after     gain")
    for score in scores:
        gain = score.after - score.before
        print(f"{score.name:18} {score.qp:3} {score.before:8.3f} {score.after:8.3f} {gain:+8.3f}")


def main() -> None:
    """Print PSNR before and after each filter, per picture and per QP."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "filters",
        type=Path,
        nargs="*",
        default=[FOLDER / "filter.safetensors"],
        metavar="FILTER",
        help=".pt2 programs or .safetensors weights (default: filter.safetensors beside this); "
        "the mean gains are compared with that of the first",
    )
    parser.add_argument(
        "--pairs",
        type=Path,
        default=FOLDER / "eval",
        help="folder made by make_pairs.py (default: eval/ beside this script)",
    )
    parser.add_argument("--means", action="store_true", help="print only the means per QP")
    arguments = parser.parse_args()

    pairs = load_pairs(arguments.pairs)
    gains: list[float] = []
    for path in arguments.filters:
        scores = score_pairs(load_filter(path), pairs)
        gains.append(mean_gain(scores))
        print(path)
        print_scores(([] if arguments.means else scores) + mean_scores(scores))
        change = f", change {gains[-1] - gains[0]:+.4f} dB" if len(gains) > 1 else ""
        print(f"mean gain {gains[-1]:+.3f} dB{change}")


if __name__ == "__main__":
    main()
