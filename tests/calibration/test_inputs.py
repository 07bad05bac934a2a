"""Calibration inputs from files, and what is refused."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import network, values

from nnrcodec.api import calibration_inputs
from nnrcodec.calibration.inputs import Chosen, given_inputs, load_inputs, read_picture
from nnrcodec.calibration.synthetic import Inputs
from nnrcodec.errors import ConfigError
from nnrcodec.graph.graph import Dim, Graph, Input, Ref

DIMS = {
    "n": Dim(1, None, 2),
    "h": Dim(4, None, 32),
    "w": Dim(4, 24, 16),
    "t": Dim(1, 20, 5),
}


def graph_of(*inputs: Input) -> Graph:
    return Graph(inputs, (), Ref(0), DIMS)


def image(channels: int = 3, batch: int | str = "n", dtype: str = "float32") -> Graph:
    """Return a graph that takes pictures of up to 24 columns and any number of rows."""
    return graph_of(Input("x", dtype, (batch, channels, "h", "w")))


VECTOR = graph_of(Input("x", "float32", ("n", 3)))
PAIR = graph_of(Input("x", "float32", ("n", 3)), Input("tokens", "int64", ("n", "t")))


def only(inputs: Inputs) -> list[torch.Tensor]:
    """Return the one tensor of each input."""
    assert all(len(each) == 1 for each in inputs)
    return [each[0] for each in inputs]


def picture(number: int, rows: int = 40, columns: int = 30) -> np.ndarray:
    """Return a picture, no part of which is like another."""
    rng = np.random.default_rng(number)
    return rng.integers(256, size=(rows, columns, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of three pictures, and something else."""
    image_of = pytest.importorskip("PIL.Image").fromarray
    for number in range(3):
        image_of(picture(number)).save(tmp_path / f"{number}_{'ab'[number % 2]}.png")
    (tmp_path / "notes.txt").write_text("nothing to see")
    return tmp_path


def places(patch: torch.Tensor, rows: int = 40, columns: int = 30) -> list[tuple[int, int, int]]:
    """Return all pictures and places from which a patch, (1, 3, h, w), can have been cut."""
    samples = np.rint(patch[0].numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
    high, wide = samples.shape[:2]
    return [
        (number, top, left)
        for number in range(3)
        for top in range(rows - high + 1)
        for left in range(columns - wide + 1)
        if np.array_equal(picture(number)[top : top + high, left : left + wide], samples)
    ]


# Pictures


def test_patches_are_cut_from_all_pictures_of_a_folder(folder: Path) -> None:
    found = only(load_inputs(folder, image(), 6, side=20))
    assert [value.shape for value in found] == [(1, 3, 20, 20)] * 6
    assert all(value.dtype == torch.float32 and value.is_contiguous() for value in found)
    cut = [places(value) for value in found]
    assert all(cut)
    assert len({place for places_of_one in cut for place in places_of_one}) > 3
    assert {places_of_one[0][0] for places_of_one in cut[:3]} == {0, 1, 2}
    assert {places_of_one[0][0] for places_of_one in cut[3:]} == {0, 1, 2}


def test_a_pattern_or_a_file_names_pictures(folder: Path) -> None:
    for path, numbers in ((folder / "*_a.png", {0, 2}), (folder / "1_b.png", {1})):
        found = only(load_inputs(str(path), image(), 4, side=20))
        assert {places(value)[0][0] for value in found} == numbers


def test_the_seed_decides_on_the_places(folder: Path) -> None:
    found, again, other = (only(load_inputs(folder, image(), 4, s, side=8)) for s in (1, 1, 2))
    assert all(map(torch.equal, found, again))
    assert not all(map(torch.equal, found, other))


@pytest.mark.parametrize(
    ("side", "shape"), [(8, (8, 8)), (32, (32, 24)), (2, (4, 4)), (40, (40, 24))]
)
def test_side_is_kept_to_within_what_the_network_takes(
    folder: Path, side: int, shape: tuple[int, int]
) -> None:
    (found,) = only(load_inputs(folder, image(), 1, side=side))
    assert found.shape[2:] == shape


def test_side_may_be_larger_than_it_is_by_default(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image").fromarray(picture(0, 130, 30)).save(tmp_path / "a.png")
    (found,) = only(load_inputs(tmp_path, image(), 1, side=120))
    assert found.shape == (1, 3, 120, 24)
    (found,) = only(load_inputs(tmp_path, image(), 1))
    assert found.shape == (1, 3, 96, 24)


def test_a_fixed_size_is_kept_to(folder: Path) -> None:
    graph = graph_of(Input("x", "float64", (2, 3, 16, 7)))
    found = only(load_inputs(folder, graph, 5, side=20))
    assert [value.shape for value in found] == [(2, 3, 16, 7)] * 5
    assert found[0].dtype == torch.float64
    assert all(places(value[part : part + 1]) for value in found for part in range(2))


def test_pictures_become_gray_for_one_channel(folder: Path) -> None:
    (found,) = only(load_inputs(folder / "0_a.png", image(1), 1, side=40))
    assert found.shape == (1, 1, 40, 24)
    gray = read_picture(folder / "0_a.png", 1)
    assert gray.shape == (1, 40, 30)
    weighted = picture(0) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray[0] - weighted).max() <= 1
    np.testing.assert_array_equal(
        read_picture(folder / "0_a.png", 3).transpose(1, 2, 0), picture(0)
    )


def test_pictures_for_a_network_of_bytes_are_not_divided(folder: Path) -> None:
    (found,) = only(load_inputs(folder, image(dtype="uint8"), 1, side=20))
    assert found.dtype == torch.uint8
    assert places(found.double() / 255)


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (VECTOR, "one input .n, channels, height, width."),
        (PAIR, "one input .n, channels, height, width."),
        (image(4), "the model takes 4 channels; pictures have 1 or 3"),
    ],
)
def test_networks_that_do_not_take_the_pictures_are_refused(
    folder: Path, graph: Graph, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_inputs(folder, graph, 2)


@pytest.mark.parametrize("name", ["", "*.jpg", "nowhere/*.png", "nothing", "notes.txt"])
def test_where_there_are_no_pictures_it_is_said_what_is_expected(folder: Path, name: str) -> None:
    place = folder / "empty" if not name else folder / name
    (folder / "empty").mkdir()
    with pytest.raises(ConfigError, match="there are no calibration inputs; expected a folder"):
        load_inputs(place, image(), 2)


def test_what_is_no_picture_is_refused_by_name(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    for path in (folder / "broken.png", folder / "*.txt"):
        with pytest.raises(ConfigError, match=r"cannot read .*(broken\.png|notes\.txt)"):
            load_inputs(path, image(), 2)


def test_files_that_cannot_be_read_are_left_out_with_a_count(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = only(load_inputs(folder / "?_?.png", image(), 6, side=20))
    whole = (folder / "0_a.png").read_bytes()
    for name, content in (("broken.png", b"nothing"), ("cut.PNG", whole[: len(whole) // 2])):
        (folder / name).write_bytes(content)
    found = only(load_inputs(folder, image(), 40, side=20))
    assert len(found) == 40
    assert all(places(value) for value in found)
    ((level, text),) = [(r.levelname, r.getMessage()) for r in caplog.records]
    assert level == "WARNING"
    assert text.startswith("2 of 5 pictures cannot be read and are left out, such as ")
    assert len(expected) == 6


def test_pictures_in_folders_of_classes_are_taken(folder: Path) -> None:
    (folder / "class").mkdir()
    (folder / "2_a.png").rename(folder / "class" / "2_a.JPEG.png")
    found = only(load_inputs(folder, image(), 3, side=20))
    assert {places(value)[0][0] for value in found} == {0, 1, 2}


@pytest.mark.parametrize(
    ("rows", "columns", "shape"),
    [
        (50, 24, (32, 24)),  # the export's 32 rows
        (20, 10, (16, 8)),  # multiples of 8
        (7, 5, (7, 5)),
        (3, 2, (4, 4)),  # the network takes no fewer
    ],
)
def test_of_pictures_that_are_smaller_less_is_taken(
    tmp_path: Path, rows: int, columns: int, shape: tuple[int, int]
) -> None:
    image_of = pytest.importorskip("PIL.Image").fromarray
    image_of(picture(0, rows, columns)).save(tmp_path / "a.png")
    (found,) = only(load_inputs(tmp_path, image(), 1))
    assert found.shape[2:] == shape


@pytest.mark.parametrize("size", [(41, 8), (8, 31), (50, 60)])
def test_pictures_that_are_too_small_for_a_fixed_size_are_enlarged(
    folder: Path, size: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    found = only(load_inputs(folder, graph_of(Input("x", "float32", (1, 3, *size))), 5))
    assert {value.shape for value in found} == {(1, 3, *size)}
    assert [r.getMessage().split(",")[0] for r in caplog.records] == ["3 pictures"]
    assert "they are resized, and a part is cut out" in caplog.text


def test_far_too_large_pictures_are_made_smaller_for_a_fixed_size(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(192, dtype=np.uint8)[None, :, None], (160, 192, 3))
    pytest.importorskip("PIL.Image").fromarray(ramp.copy()).save(tmp_path / "a.png")
    (found,) = only(load_inputs(tmp_path, graph_of(Input("x", "float32", (1, 3, 20, 20))), 1))
    assert found.shape == (1, 3, 20, 20)
    assert 255 * (found.max() - found.min()) == pytest.approx(192 * 20 / 48, abs=6)


def test_gray_ones_become_colour_and_16_bits_8(tmp_path: Path) -> None:
    image_of = pytest.importorskip("PIL.Image").fromarray
    gray = picture(0)[..., 0]
    image_of(gray).save(tmp_path / "8.png")
    image_of(gray.astype(np.uint16) * 257).save(tmp_path / "16.png")
    image_of(np.dstack([picture(0), gray])).save(tmp_path / "alpha.png")
    for name in ("8.png", "16.png"):
        assert np.array_equal(read_picture(tmp_path / name, 3), np.broadcast_to(gray, (3, 40, 30)))
        assert np.array_equal(read_picture(tmp_path / name, 1)[0], gray)
    assert np.array_equal(read_picture(tmp_path / "alpha.png", 3).transpose(1, 2, 0), picture(0))


def test_without_pillow_it_is_said_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_import = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("PIL"):
            raise ImportError(name)
        return plain_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install nnrcodec\[pictures\]"):
        load_inputs(folder, image(), 2)


# Arrays


def test_samples_of_an_array_are_evenly_spaced(tmp_path: Path) -> None:
    array = np.arange(33, dtype=np.float64).reshape(11, 3)
    np.save(tmp_path / "a.npy", array)
    for count, rows in ((3, [0, 5, 10]), (1, [0]), (11, list(range(11))), (50, list(range(11)))):
        found = only(load_inputs(tmp_path / "a.npy", VECTOR, count))
        assert [value.tolist() for value in found] == [[array[row].tolist()] for row in rows]
        assert all(value.dtype == torch.float32 for value in found)


def test_as_many_samples_are_taken_at_once_as_the_network_takes(tmp_path: Path) -> None:
    array = np.arange(33, dtype=np.float32).reshape(11, 3)
    np.save(tmp_path / "a.npy", array)
    graph = graph_of(Input("x", "float32", (4, 3)))
    found = only(load_inputs(tmp_path / "a.npy", graph, 9))
    assert [value[0, 0].item() / 3 for value in found] == [0, 7]
    assert [value.shape for value in found] == [(4, 3)] * 2
    with pytest.raises(ConfigError, match="contains 11 samples, the model takes 12 at once"):
        load_inputs(tmp_path / "a.npy", graph_of(Input("x", "float32", (12, 3))), 9)


@pytest.mark.parametrize("last", [False, True])
def test_bytes_are_divided_and_channels_moved_to_where_the_network_has_them(
    tmp_path: Path, last: bool
) -> None:
    array = np.random.default_rng(0).integers(256, size=(4, 3, 8, 6), dtype=np.uint8)
    np.save(tmp_path / "a.npy", array.transpose(0, 2, 3, 1) if last else array)
    found = only(load_inputs(tmp_path / "a.npy", image(), 4))
    np.testing.assert_array_equal(torch.cat(found), array.astype(np.float32) / 255)
    assert all(value.is_contiguous() for value in found)
    (found, *_) = only(load_inputs(tmp_path / "a.npy", image(dtype="uint8"), 4))
    np.testing.assert_array_equal(found, array[:1])


def test_arrays_go_to_inputs_by_their_names(tmp_path: Path) -> None:
    x, tokens = np.ones((5, 3), np.float32), np.arange(35).reshape(5, 7)
    np.savez(tmp_path / "a.npz", tokens=tokens, x=x, other=np.zeros(3))
    torch.save({"tokens": torch.from_numpy(tokens), "x": torch.ones(5, 3)}, tmp_path / "a.pt")
    torch.save((torch.ones(5, 3), torch.from_numpy(tokens)), tmp_path / "a.pth")
    for name in ("a.npz", "a.pt", "a.pth"):
        found = load_inputs(tmp_path / name, PAIR, 2)
        assert [[tuple(v.shape) for v in each] for each in found] == [[(1, 3), (1, 7)]] * 2
        assert [each[1].dtype for each in found] == [torch.int64] * 2
        assert [each[1][0, 0].item() for each in found] == [0, 28]


def test_one_input_takes_the_only_array_with_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.ones((5, 3)), labels=np.arange(5))
    torch.save({"images": torch.ones(5, 3), "note": "from somewhere"}, tmp_path / "a.pt")
    for name in ("a.npz", "a.pt"):
        assert len(load_inputs(tmp_path / name, VECTOR)) == 5
    np.savez(tmp_path / "two.npz", a=np.ones((5, 3)), b=np.ones((5, 3)))
    with pytest.raises(ConfigError, match=r"two\.npz contains 'a', 'b'; expected x, the inputs"):
        load_inputs(tmp_path / "two.npz", VECTOR)


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(5, 3, requires_grad=True),
        torch.ones(5, 3, dtype=torch.bfloat16),
        [torch.ones(5, 3)],
    ],
)
def test_tensors_may_be_of_any_kind(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "a.pt")
    found = only(load_inputs(tmp_path / "a.pt", VECTOR, 2))
    assert all(torch.equal(v, torch.ones(1, 3)) and not v.requires_grad for v in found)


class Mischief:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    held = np.array([[Mischief(mark)]], dtype=object)
    torch.save({"x": Mischief(mark)}, tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", held)
    np.savez(tmp_path / "a.npz", x=held)
    for name in ("a.pt", "a.npy", "a.npz"):
        with pytest.raises(ConfigError, match="contains no arrays"):
            load_inputs(tmp_path / name, VECTOR)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (np.ones((5, 4), np.float32), "input 'x' has size 4 in axis 1, the model takes 3"),
        (np.ones((5, 3, 1), np.float32), "input 'x' has 3 axes, the model takes 2"),
        (np.ones((0, 3), np.float32), "contains 0 samples, the model takes 1 at once"),
        (np.float32(3), "contains a float32 array, expected arrays of numbers"),
        (np.array([["a", "b", "c"]]), "contains a <U1 array, expected arrays of numbers"),
        (np.ones((5, 3), np.complex64), "contains a complex64 array, expected arrays of numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, content: Any, reason: str) -> None:
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(ConfigError, match=reason):
        load_inputs(tmp_path / "a.npy", VECTOR)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("text", "contains a str, expected arrays of numbers"),
        ({"x": "text"}, "contains a str, expected arrays of numbers"),
        ({"y": "text"}, "contains 'y'; expected x"),
        ([torch.ones(5, 3)] * 2, "contains 2 arrays, the model takes 1"),
        (torch.tensor(3.0), "contains a float32 array, expected arrays of numbers"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, content: Any, reason: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ConfigError, match=reason):
        load_inputs(tmp_path / "a.pt", VECTOR)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for name in ("a.npy", "a.npz", "a.pt"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ConfigError, match=f"{name} contains no arrays: "):
            load_inputs(tmp_path / name, VECTOR)


# From a caller


def test_tensors_arrays_and_tuples_of_them_are_inputs() -> None:
    source = [
        values((2, 3)),
        np.ones((2, 3), np.float32),
        (values((1, 3)).requires_grad_(), np.arange(4)),
        [values((3,))],
    ]
    found = given_inputs(iter(source))
    shapes = [[tuple(value.shape) for value in each] for each in found]
    assert shapes == [[(2, 3)], [(2, 3)], [(1, 3), (4,)], [(3,)]]
    assert not any(value.requires_grad for each in found for value in each)
    assert [len(given_inputs(source, count)) for count in (1, 3, 9)] == [1, 3, 4]


def test_no_more_inputs_are_asked_for_than_are_used() -> None:
    def endless() -> Any:
        while True:
            yield values((2, 3))

    assert len(given_inputs(endless(), 5)) == 5


@pytest.mark.parametrize("bad", ["text", object(), (values((2,)), None)])
def test_what_is_no_tensor_is_refused_by_its_number(bad: object) -> None:
    with pytest.raises(ConfigError, match="calibration input 1 is not a tensor: "):
        given_inputs([values((2,)), bad])


def test_none_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="there are no calibration inputs"):
        given_inputs([])


def test_a_number_that_is_asked_for_is_kept_to() -> None:
    model = network("plain_cnn").model()
    given = [values((1, 1, 9, 9)) for _ in range(5)]
    assert not isinstance(calibration_inputs(model, given).inputs, Chosen)
    for calib in ("auto", "synthetic", given):
        calibration = calibration_inputs(model, calib, 3)
        assert isinstance(calibration.inputs, Chosen)
        assert calibration.inputs.all_of_them
        assert len(calibration.inputs) == 3
        assert calibration_inputs(model, calibration) is calibration
