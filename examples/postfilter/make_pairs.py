"""Make pairs of original and VVC-decoded luma pictures for the post-filter.

Photographs that ship inside the scikit-image and scikit-learn wheels (and, when asked, the gray
pictures of an ``.npz`` file) are coded all-intra by libvvenc and decoded by the native VVC decoder,
both in the ffmpeg binary of the imageio-ffmpeg wheel. This module owns the choice of pictures and
the run of the codec; reading the pairs back is in ``evaluate.py``.
"""

import argparse
import re
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import skimage.data
from PIL import Image
from sklearn.datasets import load_sample_image

QPS = (22, 27, 32, 37, 42)
PRESET = "faster"
# IntraPeriod and GOPSize 1: every picture is an I slice. IntraQPOffset 0: libvvenc would lower the
# QP of I slices by 3. MCTF and BIM off: no filtering of the source and no block-wise QP changes.
VVENC_PARAMS = "intraperiod=1:gopsize=1:intraqpoffset=0:mctf=0:bim=0"
# The network takes the place of the in-loop filters. Intra prediction never sees what they do: in
# all-intra coding they are post-filters already.
NO_IN_LOOP_FILTERS = ":loopfilterdisable=1:sao=0:alf=0:ccalf=0"

# Licences are in README.md. The validation pictures are in the public domain or CC0, because
# crops of them are part of the repository.
VALIDATION_PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "rocket")
TRAINING_PHOTOGRAPHS = ("brick", "coins", "grass", "gravel", "hubble_deep_field")
TRAINING_SAMPLE_IMAGES = ("china", "flower")

EVAL_SIZE = 256

# Copies of some training pictures get film grain before they are coded. The pictures themselves
# have little (JPEG took it), and a filter that never saw grain takes what VVC keeps of it for
# coding noise.
GRAIN_EVERY = 3
GRAIN_RMS = (1.0, 6.0)


def luma(picture: np.ndarray) -> np.ndarray:
    """Convert a picture to luma and crop it to multiples of 8.

    Parameters
    ----------
    picture : ndarray of uint8, shape (height, width) or (height, width, 3)
        A gray picture, or R, G and B.

    Returns
    -------
    ndarray of uint8, shape (height // 8 * 8, width // 8 * 8)
        Full-range BT.601 luma.
    """
    if picture.ndim == 3:
        picture = np.rint(picture @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    height, width = picture.shape
    return np.ascontiguousarray(picture[: height // 8 * 8, : width // 8 * 8])


def with_grain(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian grain of random strength, half of the time a little correlated.

    Parameters
    ----------
    picture : ndarray of uint8, shape (height, width)
        Luma.
    rng : Generator
        Source of the grain.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        The picture with grain of an rms between the two values of ``GRAIN_RMS``.
    """
    grain = rng.standard_normal(picture.shape)
    if rng.integers(2):
        grain += np.roll(grain, 1, axis=0)
        grain += np.roll(grain, 1, axis=1)
    grain *= rng.uniform(*GRAIN_RMS) / grain.std()
    return np.clip(np.rint(picture + grain), 0, 255).astype(np.uint8)


def run_ffmpeg(arguments: list[str], stdin: bytes | None = None) -> bytes:
    """Run the ffmpeg binary of imageio-ffmpeg and return its standard output.

    libvvenc reports its slices there when ffmpeg is verbose.

    Raises
    ------
    RuntimeError
        When ffmpeg fails; the message ends with what it wrote to standard error.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "verbose", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.decode()[-1000:]}")
    return done.stdout


def code_pictures(
    pictures: list[np.ndarray], qp: int, in_loop_filters: bool = False
) -> tuple[list[np.ndarray], int]:
    """Encode pictures of one size as an all-intra VVC clip and decode it again.

    The 8-bit luma becomes the 10-bit luma of a yuv420p10le clip with constant chroma and no change
    of range; the decoded luma is rounded back to 8 bits.

    Parameters
    ----------
    pictures : list of ndarray of uint8, shape (height, width)
        Equal, even sizes.
    qp : int
        QP of every picture, 0 to 63.
    in_loop_filters : bool
        Whether deblocking, SAO and ALF are on, as the preset has them.

    Returns
    -------
    decoded : list of ndarray of uint8, shape (height, width)
        The decoded luma in the order given.
    size_bytes : int
        Size of the coded clip.

    Raises
    ------
    RuntimeError
        When ffmpeg fails, or a picture was not coded as an I slice with this QP.
    """
    height, width = pictures[0].shape
    chroma = np.full(height * width // 2, 512, "<u2").tobytes()
    params = VVENC_PARAMS + ("" if in_loop_filters else NO_IN_LOOP_FILTERS)
    raw = b"".join((picture.astype("<u2") << 2).tobytes() + chroma for picture in pictures)
    with tempfile.TemporaryDirectory() as folder:
        clip = str(Path(folder, "clip.vvc"))
        source = ["-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-s", f"{width}x{height}", "-i", "-"]
        encoder = ["-c:v", "libvvenc", "-preset", PRESET, "-qp", str(qp), "-qpa", "0", "-g", "1"]
        log = run_ffmpeg([*source, *encoder, "-vvenc-params", params, "-f", "vvc", clip], raw)
        slices = re.findall(r"(\w)-SLICE, QP (\d+)", log.decode())
        if slices != [("I", str(qp))] * len(pictures):
            raise RuntimeError(f"not all-intra at QP {qp}: {slices}")
        size_bytes = Path(clip).stat().st_size
        sink = ["-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-fps_mode", "passthrough", "-"]
        raw = run_ffmpeg(["-f", "vvc", "-c:v", "vvc", "-i", clip, *sink])
    frames = np.frombuffer(raw, "<u2").reshape(len(pictures), -1)[:, : height * width]
    rounded = np.minimum((frames + 2) >> 2, 255).astype(np.uint8)
    return list(rounded.reshape(-1, height, width)), size_bytes


def make_pairs(
    originals: dict[str, np.ndarray], folder: Path, in_loop_filters: bool = False
) -> None:
    """Code pictures at the five QPs and save originals and results as PNG.

    Parameters
    ----------
    originals : dict of str to ndarray of uint8, shape (height, width)
        Luma pictures by name.
    folder : Path
        Receives ``NAME_orig.png`` and ``NAME_qpQP_dec.png``.
    in_loop_filters : bool
        As in `code_pictures`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names_by_shape = defaultdict(list)
    for name, original in originals.items():
        names_by_shape[original.shape].append(name)
        Image.fromarray(original).save(folder / f"{name}_orig.png", optimize=True)
    for (height, width), names in names_by_shape.items():
        for qp in QPS:
            pictures = [originals[name] for name in names]
            decoded, size_bytes = code_pictures(pictures, qp, in_loop_filters)
            for name, picture in zip(names, decoded, strict=True):
                Image.fromarray(picture).save(folder / f"{name}_qp{qp}_dec.png", optimize=True)
            rate = 8 * size_bytes / (len(names) * height * width)
            print(
                f"{folder}: {len(names)} pictures {width}x{height} QP {qp}: {rate:.3f} bit/sample"
            )


def crop_pairs(source: Path, target: Path) -> None:
    """Save the centres of all pictures in one folder to another one."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.png")):
        picture = np.asarray(Image.open(path))
        top, left = ((length - EVAL_SIZE) // 2 // 8 * 8 for length in picture.shape)
        crop = Image.fromarray(picture[top : top + EVAL_SIZE, left : left + EVAL_SIZE])
        crop.save(target / path.name, optimize=True)


def main() -> None:
    """Make the training, validation and evaluation pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir(), "postfilter"),
        help="folder for the pairs: train/, validation/, validation_extra/, and for comparison "
        "validation_in_loop/, coded with in-loop filters (default: %(default)s)",
    )
    parser.add_argument(
        "--extra-pictures",
        type=Path,
        metavar="FILE.npz",
        help="more pictures: array 'pictures' of uint8, shape (n, height, width)",
    )
    parser.add_argument(
        "--extra-held-out",
        type=int,
        default=20,
        help="how many of the extra pictures, from the end, are not trained on (default: 20)",
    )
    parser.add_argument(
        "--eval-folder",
        type=Path,
        metavar="FOLDER",
        help=f"also save the central {EVAL_SIZE}x{EVAL_SIZE} samples of the validation pairs here",
    )
    arguments = parser.parse_args()

    validation = {name: luma(getattr(skimage.data, name)()) for name in VALIDATION_PHOTOGRAPHS}
    train = {name: luma(getattr(skimage.data, name)()) for name in TRAINING_PHOTOGRAPHS}
    train |= {name: luma(load_sample_image(f"{name}.jpg")) for name in TRAINING_SAMPLE_IMAGES}
    make_pairs(validation, arguments.work / "validation")
    make_pairs(validation, arguments.work / "validation_in_loop", in_loop_filters=True)
    if arguments.eval_folder:
        crop_pairs(arguments.work / "validation", arguments.eval_folder)
    if arguments.extra_pictures:
        pictures = np.load(arguments.extra_pictures)["pictures"]
        extra = {f"extra{i:03}": luma(picture) for i, picture in enumerate(pictures)}
        for name in list(extra)[: len(extra) - arguments.extra_held_out]:
            train[name] = extra.pop(name)
        make_pairs(extra, arguments.work / "validation_extra")
    rng = np.random.default_rng(0)
    names = list(train)[::GRAIN_EVERY]
    train |= {f"{name}_grain": with_grain(train[name], rng) for name in names}
    make_pairs(train, arguments.work / "train")


if __name__ == "__main__":
    main()
