import pytest
import torch
from torch import nn

from nnrcodec.errors import ConfigError
from nnrcodec.evaluate import measure
from nnrcodec.evaluate.measure import Seconds, example_input, interleaved, multiply_adds, run
from nnrcodec.graph.export import model_of_module, model_of_program


class Clock:
    """A clock that only actions move."""

    def __init__(self):
        self.now = 0.0

    def action(self, name, log, seconds):
        left = iter(seconds)

        def act():
            log.append(name)
            self.now += next(left)

        return act


def test_actions_take_turns_and_the_first_round_does_not_count(monkeypatch):
    clock, log, told = Clock(), [], []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock.now)
    actions = {
        "a": clock.action("a", log, [100, 1, 2, 9, 3, 4]),
        "b": clock.action("b", log, [0, 5, 5, 5, 50, 5]),
    }
    seconds = interleaved(actions, 5, lambda done, total: told.append((done, total)))
    assert log == ["a", "b"] * 6
    assert seconds["a"] == Seconds(3, (2, 4))
    assert seconds["b"] == Seconds(5, (5, 5))
    assert told == [(k, 12) for k in range(1, 13)]


def test_one_measurement_is_its_own_median():
    assert Seconds.of([0.5]) == Seconds(0.5, (0.5, 0.5))
    assert Seconds.of([4, 1]) == Seconds(2.5, (1.75, 3.25))


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (1, 3, 10, 12), 10 * 12 * 8 * 3 * 9),
        (nn.Conv2d(4, 8, (3, 1), stride=2, groups=2), (2, 4, 9, 5), 2 * (4 * 3) * 8 * 2 * 3),
        (nn.ConvTranspose2d(2, 3, 2, stride=2), (1, 2, 5, 5), 5 * 5 * 2 * 3 * 4),
        (nn.Linear(20, 7), (5, 20), 5 * 20 * 7),
        (nn.ReLU(), (5, 20), 0),
    ],
)
def test_multiply_adds(module, shape, expected):
    assert multiply_adds(module, (torch.rand(shape),)) == expected


def test_errors_of_a_network_say_the_input_and_are_one_line():
    for values in ((torch.rand(2, 3),), (torch.rand(2, 4), torch.rand(1))):
        with pytest.raises(ConfigError, match=r"^the network does not run on an input of 2x") as e:
            run(nn.Linear(4, 4), values)
        assert "\n" not in str(e.value)


def test_an_input_has_the_size_that_is_asked_for(original):
    (usual,) = example_input(original, None)
    assert usual.shape == (1, 1, 96, 96)
    (wide,) = example_input(original, (24, 50))
    assert (wide.shape, wide.dtype) == ((1, 1, 24, 50), torch.float32)
    assert torch.equal(wide, example_input(original, (24, 50))[0])
    program = torch.export.export(nn.Conv2d(3, 2, 3), (torch.rand(1, 3, 8, 9),))
    colours = model_of_program(program)
    (fixed,) = example_input(colours, (8, 9))
    assert fixed.shape == (1, 3, 8, 9)
    assert fixed.is_contiguous(memory_format=torch.channels_last)


def test_sizes_that_do_not_fit(original):
    fixed = model_of_program(torch.export.export(nn.Conv2d(1, 2, 3), (torch.rand(1, 1, 8, 9),)))
    for size, hint in (((8, 10), "takes 9 samples where that has 10"), ((9, 9), "takes 8 samples")):
        with pytest.raises(ConfigError, match=hint):
            example_input(fixed, size)
    with pytest.raises(ConfigError, match="input size of 7 does not fit"):
        example_input(original, (7,))
    with pytest.raises(ConfigError, match="at least 1 samples where that has 0"):
        example_input(original, (0, 20))
    free = {2: torch.export.Dim("height", min=4, max=64)}
    bounded = model_of_module(nn.Conv2d(1, 2, 3), (torch.rand(1, 1, 8, 9),), (free,))
    with pytest.raises(ConfigError, match="takes 4 to 64 samples where that has 65"):
        example_input(bounded, (65, 9))
