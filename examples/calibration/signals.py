"""Real inputs of the benchmark's networks: pictures, text, speech.

Each comes in two parts that share nothing: one to give to the encoder, the other to judge by.
Nothing here is downloaded: pictures are from scikit-image, one text is Python's own manual, the
other the ``fortunes`` of Debian, and ``espeak-ng`` speaks.
"""

import io
import pydoc_data.topics
import re
import shutil
import subprocess
import wave
from pathlib import Path

import numpy as np

RATE = 16000
"""Samples of speech per second."""

FORTUNES = Path("/usr/share/games/fortunes")

SUBJECTS = ("literature", "wisdom", "people", "science", "food", "law", "sports", "medicine")
"""Of the fortunes; their texts are not about programming."""

VOICES = (
    ("en-us+m1", "en-us+f1", "en-gb+m3", "en-gb+f3", "de+m2", "fr+f2", "es+Diogo", "it+Alicia"),
    ("en-us+m5", "en-us+f4", "en-gb-scotland+m7", "en-gb-x-rp+f5", "nl+Denis", "pt+Annie"),
)
"""Of espeak-ng: those to give, those to judge by."""


def gray_pictures(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return photographs of 180x180 in 0..1: 200 to give and 200 to judge by."""
    with np.load(data / "train400.npz", allow_pickle=False) as held:
        pictures = held["pictures"].astype(np.float32) / 255
    return pictures[:200], pictures[200:]


def colour_pictures() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return photographs, uint8 of shape (height, width, 3)."""
    from skimage import data

    given = [data.chelsea(), data.rocket(), data.stereo_motorcycle()[0]]
    return given, [data.astronaut(), data.coffee()]


def faces() -> tuple[np.ndarray, np.ndarray]:
    """Return gray faces of 25x25 in 0..1: 50 to give and 50 to judge by."""
    from skimage import data

    found = data.lfw_subset()[:100].astype(np.float32)
    return found[:50], found[50:]


def sentences() -> tuple[list[str], list[str]]:
    """Return prose of two kinds, in a fixed shuffled order.

    Raises
    ------
    FileNotFoundError
        If there are no fortunes.
    """
    manual = (text for topic in pydoc_data.topics.topics.values() for text in topic.split("\n\n"))
    given = [text for text in manual if re.fullmatch(r"[A-Z][^*|]+[.]", text)]
    judged = []
    for subject in SUBJECTS:
        for text in (FORTUNES / subject).read_text(encoding="utf-8").split("\n%\n"):
            judged.append(re.sub(r"\s*-- .*", "", text, flags=re.DOTALL))
    return _prose(given), _prose(judged)


def _prose(texts: list[str]) -> list[str]:
    """Return the texts of a sentence or a few, on one line each."""
    lines = sorted({" ".join(text.split()) for text in texts})
    lines = [line for line in lines if 40 <= len(line) <= 400 and line.isprintable()]
    return [lines[index] for index in np.random.default_rng(0).permutation(len(lines))]


def speech(cache: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return utterances by several voices, float32 at `RATE`; they are made once.

    Raises
    ------
    FileNotFoundError
        If there is no ``espeak-ng``.
    """
    path = cache / "speech.npz"
    if not path.exists():
        if shutil.which("espeak-ng") is None:
            raise FileNotFoundError("espeak-ng")
        texts = iter(sentences()[0])
        spoken = {
            f"{part}.{voice}.{number}": _spoken(voice, next(texts))
            for part, voices in enumerate(VOICES)
            for voice in voices
            for number in range(4)
        }
        np.savez(path, **spoken)
    with np.load(path, allow_pickle=False) as held:
        given, judged = (
            [held[name] for name in held.files if name.startswith(f"{part}.")] for part in (0, 1)
        )
    return given, judged


def _spoken(voice: str, text: str) -> np.ndarray:
    from scipy.signal import resample_poly

    command = ["espeak-ng", "-v", voice, "--stdout", text]
    said = subprocess.run(command, check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(said)) as file:
        rate, samples = file.getframerate(), file.readframes(len(said))
    values = np.frombuffer(samples, np.int16).astype(np.float32) / 2**15
    return resample_poly(values, RATE, rate).astype(np.float32)


def mel_spectrogram(samples: np.ndarray) -> np.ndarray:
    """Return power in 40 mel bands every 10 ms, over windows of 25 ms, shape (frames, 40)."""
    window, step = 400, 160
    padded = np.pad(samples, window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::step]
    power = np.abs(np.fft.rfft(frames * np.hanning(window + 1)[:-1])) ** 2
    return (power @ _mel_filters(window).T).astype(np.float32)


def _mel_filters(window: int, bands: int = 40) -> np.ndarray:
    """Return triangles of equal area on Slaney's mel scale: linear to 1 kHz, logarithmic above."""
    linear, log_step = 200 / 3, np.log(6.4) / 27
    top = 15 + np.log(RATE / 2 / 1000) / log_step
    mels = np.linspace(0, top, bands + 2)
    edges = np.where(mels < 15, linear * mels, 1000 * np.exp(log_step * (mels - 15)))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.fft.rfftfreq(window, 1 / RATE)
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
