import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nnrcodec.errors import ConfigError
from nnrcodec.evaluate import AccuracyTask, CallableTask, OutputsTask, PsnrTask, Task
from nnrcodec.evaluate.tasks import psnr
from nnrcodec.graph.export import model_of_module, model_of_program
from nnrcodec.graph.module import build_module


class Does(nn.Module):
    """A network that does what a function does."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *values):
        return self.function(*values)


SAME = Does(lambda picture: picture)


def read(path):
    return np.array(Image.open(path)).astype(int)


def save(path, values):
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def by_hand(made, original):
    return 10 * math.log10(255**2 / np.mean((made - original) ** 2.0))


def test_psnr_of_a_difference_of_one_everywhere_and_of_none():
    black = np.zeros((4, 6), np.uint8)
    assert psnr(black + 1, black) == pytest.approx(48.1308036)
    assert psnr(black, black) == math.inf


def test_psnr_is_a_mean_over_pictures_by_qp_and_by_picture(pictures):
    task = PsnrTask(pictures)
    expected = {
        f"{name}, {qp}": by_hand(
            read(pictures / f"{name}_qp{qp}_dec.png"), read(pictures / f"{name}_orig.png")
        )
        for name in ("lake", "tree")
        for qp in (22, 37)
    }
    score = task.score(SAME)
    assert score == task.baseline
    assert score.unit == "dB"
    assert score.groups["picture, QP"] == pytest.approx(expected)
    assert score.groups["QP"] == pytest.approx(
        {qp: (expected[f"lake, {qp}"] + expected[f"tree, {qp}"]) / 2 for qp in ("22", "37")}
    )
    assert score.groups["picture"] == pytest.approx(
        {name: (expected[f"{name}, 22"] + expected[f"{name}, 37"]) / 2 for name in ("lake", "tree")}
    )
    assert score.value == pytest.approx(sum(expected.values()) / 4)


def test_what_a_filter_makes_is_rounded_and_clipped_to_8_bits(tmp_path):
    save(tmp_path / "a_orig.png", [[0, 100, 255, 255]])
    save(tmp_path / "a_qp30_dec.png", [[3, 100, 250, 255]])
    task = PsnrTask(tmp_path)
    # -9.3, 100.3, 262.8 and 268.05 become 0, 100, 255 and 255
    assert task.score(Does(lambda x: 1.1 * x - 0.1 * 96 / 255 - 3 / 255)).value < math.inf
    sharper = Does(lambda x: torch.tensor([[[[-9.3, 100.3, 262.8, 268.1]]]]) / 255)
    assert task.score(sharper).value == math.inf
    off_by_one = Does(lambda x: torch.tensor([[[[0.0, 100.6, 255, 255]]]]) / 255)
    assert task.score(off_by_one).value == pytest.approx(10 * math.log10(255**2 / 0.25))


def test_a_filter_that_makes_no_numbers_has_a_psnr_of_none(pictures):
    assert math.isnan(PsnrTask(pictures).score(Does(lambda x: x * math.nan)).value)


def test_colour_pictures(tmp_path):
    colours = np.random.default_rng(0).integers(0, 200, (5, 6, 3))
    save(tmp_path / "a_orig.png", colours)
    save(tmp_path / "a_qp30_dec.png", colours + 2)
    shapes = []

    def look(picture):
        shapes.append(tuple(picture.shape))
        return picture

    score = PsnrTask(tmp_path, 3).score(Does(look))
    assert shapes == [(1, 3, 5, 6)]
    assert score.value == pytest.approx(10 * math.log10(255**2 / 4))


def test_other_files_are_passed_over(pictures, tmp_path):
    for path in pictures.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for name in ("lake_qp_dec.png", "lake_qp3x_dec.png", "lake_qp22_dec.txt", "no.png"):
        (tmp_path / name).write_bytes(b"no picture")
    assert PsnrTask(tmp_path).baseline == PsnrTask(pictures).baseline


def test_pictures_that_are_no_pairs(tmp_path):
    with pytest.raises(ConfigError, match="contains no pairs of pictures: expected NAME_orig"):
        PsnrTask(tmp_path / "none")
    save(tmp_path / "a_orig.png", np.zeros((4, 4)))
    with pytest.raises(ConfigError, match="contains no pairs"):
        PsnrTask(tmp_path)
    save(tmp_path / "a_qp30_dec.png", np.zeros((4, 5)))
    with pytest.raises(ConfigError, match="another size"):
        PsnrTask(tmp_path)
    (tmp_path / "a_qp30_dec.png").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot read"):
        PsnrTask(tmp_path)


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (lambda x: x[..., 1:], "does not return pictures of the size"),
        (lambda x: (x, x), "does not return pictures of the size"),
        (lambda x, y: x, "does not run on an input of 1x1x12x16"),
        (lambda x: x @ x, "does not run on an input of 1x1x12x16"),
    ],
)
def test_networks_that_are_no_filters(pictures, function, hint):
    with pytest.raises(ConfigError, match=hint):
        PsnrTask(pictures).score(Does(function))


def brightest_half(images):
    """Return how bright the upper and the lower half of images are."""
    return torch.stack([half.mean((1, 2, 3)) for half in images.chunk(2, 2)], 1)


def labelled(path, labels, channels=3):
    """Write images that are brighter in their upper half (0) or in their lower one (1)."""
    images = np.zeros((len(labels), 4, 6, channels), np.uint8)
    for image, upper_or_lower in zip(images, (0, 1, 0, 1, 1, 0, 0), strict=False):
        image[2 * upper_or_lower : 2 * upper_or_lower + 2] = 200
    np.savez(path, images=images, labels=np.array(labels))
    return path


def test_accuracy_counts_images_that_get_their_label(tmp_path):
    path = labelled(tmp_path / "test.npz", [0, 1, 0, 0, 1, 1, 0])
    score = AccuracyTask(path).score(Does(brightest_half))
    assert score.value == pytest.approx(100 * 5 / 7)
    assert (score.unit, score.more) == ("%", {"images": 7, "right": 5})


def test_a_network_gets_as_many_images_at_once_as_it_takes(tmp_path):
    path = labelled(tmp_path / "test.npz", [0, 1, 0, 0, 1, 1, 0])

    class Halves(nn.Module):
        def forward(self, images):
            return torch.cat(
                [
                    images[:, :, :2].mean((1, 2, 3))[:, None],
                    images[:, :, 2:].mean((1, 2, 3))[:, None],
                ],
                1,
            )

    for batch in (1, 3, 7, 10):
        program = torch.export.export(Halves(), (torch.rand(batch, 3, 4, 6),))
        fixed = build_module(model_of_program(program))
        assert AccuracyTask(path).score(fixed).value == pytest.approx(100 * 5 / 7)
    free = {0: torch.export.Dim("batch", min=3, max=4)}
    some = model_of_module(Halves(), (torch.rand(4, 3, 4, 6),), (free,))
    assert AccuracyTask(path).score(build_module(some)).value == pytest.approx(100 * 5 / 7)


def test_images_of_8_bits_are_normalized_and_get_their_channels_first(tmp_path):
    rng = np.random.default_rng(1)
    images, seen = rng.integers(0, 256, (2, 4, 5, 3), dtype=np.uint8), []
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([0, 1]))

    def look(batch):
        seen.append(batch)
        return torch.zeros(len(batch), 4)

    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    AccuracyTask(tmp_path / "a.npz", mean, std).score(Does(look))
    expected = (images / 255 - mean) / std
    np.testing.assert_allclose(
        seen[0].numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6
    )
    np.savez(tmp_path / "gray.npz", images=images[..., 0], labels=np.array([0, 1]))
    AccuracyTask(tmp_path / "gray.npz", (0.5,), (2,)).score(Does(look))
    np.testing.assert_allclose(
        seen[1].numpy(), (images[:, None, :, :, 0] / 255 - 0.5) / 2, rtol=1e-5, atol=1e-6
    )
    floats = rng.normal(size=(2, 7)).astype(np.float32)
    np.savez(tmp_path / "floats.npz", images=floats, labels=np.array([0, 1]))
    AccuracyTask(tmp_path / "floats.npz").score(Does(look))
    assert np.array_equal(seen[2].numpy(), floats)


IMAGES, LABELS = np.zeros((2, 4, 5, 3), np.uint8), np.array([0, 1])


@pytest.mark.parametrize(
    ("held", "options", "hint"),
    [
        ({"pictures": IMAGES, "labels": LABELS}, {}, "not an .npz file with images and labels"),
        ({"images": IMAGES, "labels": LABELS[:1]}, {}, "and 1 labels"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, {}, "and 0 labels"),
        ({"images": IMAGES, "labels": LABELS / 2}, {}, "one integer for each image"),
        ({"images": IMAGES, "labels": np.stack([LABELS, LABELS])}, {}, "one integer for each"),
        ({"images": IMAGES.astype("U"), "labels": LABELS}, {}, "expected numbers"),
        ({"images": IMAGES, "labels": LABELS}, {"mean": (0.1, 0.2)}, "mean is 0.1, 0.2: expected"),
        ({"images": IMAGES, "labels": LABELS}, {"mean": (math.nan,)}, "mean is nan"),
        ({"images": IMAGES, "labels": LABELS}, {"std": (0.1,) * 4}, "each of 3 channels"),
        ({"images": IMAGES, "labels": LABELS}, {"std": (0.0,)}, "it must be above 0"),
    ],
)
def test_files_without_labelled_images(tmp_path, held, options, hint):
    np.savez(tmp_path / "a.npz", **held)
    with pytest.raises(ConfigError, match=hint):
        AccuracyTask(tmp_path / "a.npz", **options)


def test_files_that_are_no_npz(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "objects.npz", images=np.array([None, 1]), labels=LABELS)
    for name in ("a.npy", "cut.npz", "empty.npz", "objects.npz", "none.npz", "."):
        with pytest.raises(ConfigError, match=r"is not an \.npz file with images and labels"):
            AccuracyTask(tmp_path / name)


@pytest.mark.parametrize(
    "function",
    [lambda x: (x.sum(1), x), lambda x: x.sum(), lambda x: x.argmax(1), lambda x: x[:1].flatten(1)],
)
def test_networks_that_are_no_classifiers(tmp_path, function):
    task = AccuracyTask(labelled(tmp_path / "a.npz", [0, 1]))
    with pytest.raises(ConfigError, match="one row of numbers for each image"):
        task.score(Does(function).eval())


class Gain(nn.Module):
    """Two outputs: the input times a factor, and a table of its sums over pictures."""

    def __init__(self, gain=1.0, swapped=False):
        super().__init__()
        self.register_buffer("gain", torch.tensor(gain))
        self.swapped = swapped

    def forward(self, picture):
        table = torch.cat([picture.mean((1, 2, 3))[:, None], -picture.mean((1, 2, 3))[:, None]], 1)
        return self.gain * picture, self.gain * (-table if self.swapped else table)


@pytest.fixture
def outputs():
    inputs = [torch.full((1, 1, 4, 5), 0.5), torch.full((1, 1, 4, 5), -0.25)]
    return OutputsTask(model_of_module(Gain(), (torch.rand(1, 1, 4, 5),)), inputs)


def test_outputs_of_a_tenth_more_are_20_decibel_away(outputs):
    score = outputs.score(Gain(1.1))
    assert score.unit == "dB SNR"
    assert score.value == pytest.approx(20, abs=1e-4)
    assert score.more["largest error"] == pytest.approx(0.05, rel=1e-4)
    # 22 outputs for either input, all of them 0.05 or 0.025 off
    assert score.more["RMS error"] == pytest.approx(math.sqrt((0.05**2 + 0.025**2) / 2), rel=1e-4)
    assert score.more["same top-1, %"] == 100


def test_equal_outputs_have_no_error_and_turned_ones_another_top(outputs):
    assert outputs.score(Gain()).value == math.inf
    assert outputs.score(Gain()).more["largest error"] == 0
    assert outputs.score(Gain(swapped=True)).more["same top-1, %"] == 0
    assert math.isnan(outputs.score(Gain(math.nan)).value)


def test_outputs_where_the_original_is_silent():
    model = model_of_module(Gain(0.0), (torch.rand(1, 1, 4, 5),))
    task = OutputsTask(model, [torch.ones(1, 1, 4, 5)])
    assert task.score(Gain(0.0)).value == math.inf
    assert task.score(Gain(1.0)).value == -math.inf


def test_outputs_read_their_inputs_from_files(original, module, pictures, tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((3, 1, 9, 8), dtype=np.float32))
    for path in (tmp_path / "a.npy", pictures / "lake_orig.png", pictures / "*_dec.png"):
        assert OutputsTask(original, path).score(module).value > 100


def test_outputs_that_cannot_be_compared(outputs, original):
    with pytest.raises(ConfigError, match="other shapes"):
        outputs.score(Does(lambda picture: (picture, picture)))
    with pytest.raises(ConfigError, match="tensors only, no graph"):
        OutputsTask({"w": np.ones(3)}, [torch.ones(1)])
    with pytest.raises(ConfigError, match="does not run on an input of 2x3"):
        OutputsTask(original, [torch.ones(2, 3)])
    with pytest.raises(ConfigError, match="there are no"):
        OutputsTask(original, [])

    class Indices(nn.Module):
        def forward(self, values):
            return values.argmax(1)

    with pytest.raises(ConfigError, match="no real numbers to compare"):
        OutputsTask(model_of_module(Indices(), (torch.rand(1, 3),)), [torch.rand(1, 3)])


def test_a_function_of_yours():
    task = CallableTask(lambda network: sum(p.numel() for p in network.parameters()), "size", "p")
    assert isinstance(task, Task)
    score = task.score(nn.Linear(3, 4))
    assert (score.value, score.unit, task.name) == (16.0, "p", "size")
