"""Distillation: train a reduced network to return what the original returns, without labels.

The original is the teacher (G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural
network", 2015): the reduced network, the student, learns its outputs on calibration inputs by mean
squared error, in steps along its curvature (`nnrcodec.reduce.curvature`). Some inputs are held out
for validation, and the best student on these is kept; where it gets no better, training goes on
from there with lower rates.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from nnrcodec.calibration.inputs import require_fit
from nnrcodec.calibration.outputs import real_tensors
from nnrcodec.errors import ConfigError
from nnrcodec.graph.graph import Ref
from nnrcodec.graph.module import DecodedModel, build_module, output_of, run_node
from nnrcodec.graph.torch_internals import has_fast_bfloat16
from nnrcodec.messages import logger_of
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.model.torch_values import from_torch
from nnrcodec.progress import Progress
from nnrcodec.reduce.curvature import curvature_of
from nnrcodec.reduce.distillation import DistillationConfig, DistillationReport
from nnrcodec.reduce.optimizer import Optimizer

logger = logger_of(__name__)

_BATCH_ELEMENTS = 80_000
"""Input elements in a batch, about: 16 patches of 64 x 64, or 8 of 96 x 96."""

_LARGEST_BATCH = 64
_HELD_OUT = 8
"""One input of this many is not trained on."""

_JUDGEMENTS = 20
"""Number of validations on the held-out inputs."""

_PATIENCE = 3
"""Validations without a lower error after which rates are lowered, or training stops."""

_LOWER = 0.3
"""What rates are multiplied by."""

_LOWEST = 1e-3
"""Part of the first rates below which training stops."""

_NOISE = 0.1
"""Part of the error that computing in bfloat16 may cause; with more, float32 is taken."""

_WON_BACK = 0.5
"""Part of the error of the reduced network that is worth the time, at least; less is a warning."""

_WARM_UP = 10
"""Warm-up steps, in which the learning rate grows."""

_TRIED = 0.2
"""Part of all steps, at most, in which rates are tried."""

_BOLD = 3.0
"""Rates are higher by this than those whose first steps already help."""

_CONSTANT = 0.4
"""Part of the steps before the rate falls, along half a cosine."""

_LEAST_WEIGHT = 0.1
"""Inputs are weighted by the inverse of their error at the start; no error counts for less than
this part of the mean."""


def distill(
    original: Model,
    reduced: Model,
    inputs: Sequence[tuple[torch.Tensor, ...]],
    config: DistillationConfig,
    progress: Progress | None = None,
) -> tuple[Model, DistillationReport]:
    """Train a reduced network to return what the original returns.

    Parameters
    ----------
    original, reduced : Model
        With graphs of the same inputs and outputs.
    inputs : sequence of tuple of Tensor
        Calibration inputs, at least two; the more, the better.
    config : DistillationConfig
    progress : callable, optional
        Called after each step.

    Returns
    -------
    model : Model
        `reduced` with other values of its parameters.
    report : DistillationReport

    Raises
    ------
    ConfigError
        If there are too few inputs, or they do not fit the model.
    """
    if len(inputs) < 2:
        raise ConfigError("distillation needs at least two calibration inputs")
    teacher, student = build_module(original), _trainable(reduced)
    require_fit(teacher._nnr_graph, inputs)
    lesson = _Lesson.of(teacher, student, inputs)
    parameters = {name: p for name, p in student.named_parameters() if p.requires_grad}
    before = lesson.judge(student)
    if before == 0 or not parameters:
        logger.info(
            "distillation has nothing to do: %s",
            "the reduced network already does what the original does"
            if parameters
            else "the reduced network has no parameters",
        )
        return reduced, DistillationReport(0, 0.0, 1.0, 1.0)
    clock = _Clock(config, progress)
    optimizer = Optimizer(parameters, curvature_of(reduced, inputs, parameters), before)
    training = _Training(student, lesson, optimizer, clock, config.seed, before)
    training.run(training.found_rate())
    student.load_state_dict(training.kept)
    report = DistillationReport(clock.step, clock.seconds, 1.0, training.best / before)
    if report.error_after > 1 - _WON_BACK:
        logger.warning(
            "distillation has won back only %.0f %% of the squared error of low rank, in %d steps: "
            "give it more time or more inputs, or take higher ranks",
            100 * (1 - report.error_after),
            report.steps,
        )
    return _with_parameters(reduced, student), report


class _Training:
    """A student that learns, and the best of what it was."""

    def __init__(
        self,
        student: DecodedModel,
        lesson: _Lesson,
        optimizer: Optimizer,
        clock: _Clock,
        seed: int,
        error: float,
    ) -> None:
        self.best = error
        self.kept = copy.deepcopy(student.state_dict())
        self._student, self._lesson = student, lesson
        self._optimizer, self._clock = optimizer, clock
        self._generator = torch.Generator().manual_seed(seed)
        lesson.choose_precision(student, error)

    def found_rate(self) -> float:
        """Return a rate: somewhat more than the highest of which the first steps help."""
        rate, clock = 1.0, self._clock
        while clock.gone < _TRIED and rate > _LOWEST:
            for number in range(_WARM_UP):
                self._learn(rate * (number + 1) / _WARM_UP)
                if clock.gone >= _TRIED:
                    break
            if self._is_better():
                self._optimizer.forget()
                return min(rate * _BOLD, 1.0)
            self._restart()
            rate *= _LOWER
        return rate

    def run(self, rate: float) -> None:
        """Learn until the time is over, or nothing gets better."""
        clock = self._clock
        start, judged, since_best = clock.step, int(_JUDGEMENTS * clock.gone), 0
        while clock.gone < 1:
            self._learn(rate * _schedule(clock.step - start, clock.gone))
            due = int(_JUDGEMENTS * clock.gone) > judged and clock.step - start > _WARM_UP
            if not due and clock.gone < 1:
                continue
            judged = int(_JUDGEMENTS * clock.gone)
            since_best = 0 if self._is_better() else since_best + 1
            if since_best == _PATIENCE:
                rate, since_best = rate * _LOWER, 0
                self._restart()
                if rate < _LOWEST:
                    logger.info("distillation stops early, after %d steps", clock.step)
                    break

    def _learn(self, rate: float) -> None:
        batch = self._lesson.batch_of(self._generator)
        self._optimizer.step(lambda: self._lesson.loss(self._student, batch), rate)
        self._clock.tick()

    def _is_better(self) -> bool:
        """Judge the student, and keep it if it is better than before."""
        error = self._lesson.judge(self._student)
        if not error < self.best:
            return False
        self.best = error
        self.kept = copy.deepcopy(self._student.state_dict())
        self._lesson.choose_precision(self._student, error)
        return True

    def _restart(self) -> None:
        self._student.load_state_dict(self.kept)
        self._optimizer.forget()


class _Clock:
    """Progress of training, by steps or by time."""

    def __init__(self, config: DistillationConfig, progress: Progress | None) -> None:
        self._config, self._progress = config, progress
        self._start = time.perf_counter()
        self.step = 0
        self.gone = 0.0

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self._start

    @property
    def shown(self) -> tuple[int, int]:
        """Steps or seconds that are gone, and all."""
        whole = self._config.steps or round(60 * (self._config.minutes or 0))
        return round(self.gone * whole), whole

    def tick(self) -> None:
        """Count a step."""
        self.step += 1
        if self._config.steps is not None:
            self.gone = min(self.step / self._config.steps, 1.0)
        elif self._config.minutes is not None:
            self.gone = min(self.seconds / (60 * self._config.minutes), 1.0)
        if self._progress is not None:
            self._progress(*self.shown)


def _schedule(step: int, gone: float) -> float:
    """Return the part of the rate at a step, when a part of all is gone."""
    falling = min(max((gone - _CONSTANT) / (1 - _CONSTANT), 0.0), 1.0)
    return min((step + 1) / _WARM_UP, 0.5 + 0.5 * math.cos(math.pi * falling))


class _Lesson:
    """Inputs, the outputs of the teacher, and the weight of each input in the loss."""

    def __init__(self, inputs: Sequence[tuple[torch.Tensor, ...]], batch: int) -> None:
        self.batch = batch
        self._is_fast = has_fast_bfloat16()
        self._inputs = inputs
        self._held_out = range(0, len(inputs), _HELD_OUT)
        self._learned = [index for index in range(len(inputs)) if index % _HELD_OUT]
        self._wanted: list[list[torch.Tensor]] = []
        self._weights: list[float] = []

    @classmethod
    def of(
        cls,
        teacher: DecodedModel,
        student: DecodedModel,
        inputs: Sequence[tuple[torch.Tensor, ...]],
    ) -> _Lesson:
        elements = max(sum(value.numel() for value in values) for values in inputs)
        together = _batches_are_free(student) and len({_shapes(values) for values in inputs}) == 1
        batch = min(max(_BATCH_ELEMENTS // elements, 1), _LARGEST_BATCH) if together else 1
        lesson = cls(inputs, batch)
        if not together:
            logger.info(
                "distillation takes one calibration input at each step: they have different "
                "shapes, or the network takes a fixed number at once"
            )
        errors = []
        with torch.inference_mode():
            for values in inputs:
                wanted = real_tensors(teacher(*values))
                lesson._wanted.append([output.clone() for output in wanted])
                errors.append(float(_error(_run(student, values, fast=False), wanted)[0]))
        floor = _LEAST_WEIGHT * float(np.mean(errors)) + 1e-30
        lesson._weights = [1 / (error + floor) for error in errors]
        return lesson

    def batch_of(self, generator: torch.Generator) -> list[int]:
        """Return some of the inputs to learn from."""
        picked = torch.randint(len(self._learned), (self.batch,), generator=generator)
        return [self._learned[int(index)] for index in picked]

    def loss(self, student: DecodedModel, picked: Sequence[int]) -> torch.Tensor:
        """Return the mean weighted error on some of the inputs."""
        weights = torch.tensor([self._weights[index] for index in picked])
        if self.batch == 1:
            values, wanted = self._inputs[picked[0]], self._wanted[picked[0]]
        else:
            values = tuple(map(torch.cat, zip(*(self._inputs[i] for i in picked), strict=True)))
            wanted = [
                torch.cat(parts) for parts in zip(*(self._wanted[i] for i in picked), strict=True)
            ]
        outputs = _run(student, values, self._is_fast)
        return (weights * _error(outputs, wanted, len(picked))).mean()

    def choose_precision(self, student: DecodedModel, error: float) -> None:
        """Learn in float32 from now on if rounding to bfloat16 hides what there is to learn.

        Parameters
        ----------
        student : DecodedModel
        error : float
            Of the student, as `judge` returns it.
        """
        index = self._held_out[0]
        if not self._is_fast:
            return
        with torch.inference_mode():
            exact, rounded = (_run(student, self._inputs[index], fast) for fast in (False, True))
            noise = self._weights[index] * float(_error(rounded, exact)[0])
        if noise > _NOISE * error:
            logger.info("distillation is in float32: bfloat16 is not exact enough for its error")
            self._is_fast = False

    def judge(self, student: DecodedModel) -> float:
        """Return the mean weighted error on inputs that are not trained on, in float32."""
        with torch.inference_mode():
            errors = [float(self._judged(student, index)) for index in self._held_out]
        return float(np.mean(errors))

    def _judged(self, student: DecodedModel, index: int) -> torch.Tensor:
        outputs = _run(student, self._inputs[index], fast=False)
        return self._weights[index] * _error(outputs, self._wanted[index])


def _error(
    outputs: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], samples: int = 1
) -> torch.Tensor:
    """Return the mean squared error of each sample, over all outputs."""
    errors = [
        (a.float() - b.float()).square().reshape(samples, -1).mean(1)
        for a, b in zip(outputs, wanted, strict=True)
    ]
    return torch.stack(errors).mean(0)


def _run(module: DecodedModel, inputs: Sequence[torch.Tensor], fast: bool) -> list[torch.Tensor]:
    """Run a network, in bfloat16 where that shall be fast, but for nodes that take its inputs.

    bfloat16 cannot hold 8-bit samples exactly.
    """
    graph = module._nnr_graph
    values: list[Any] = [
        v.clone(memory_format=torch.channels_last if v.ndim == 4 else torch.preserve_format)
        for v in inputs
    ]
    for position, node in enumerate(graph.nodes):
        first = any(isinstance(leaf, Ref) and leaf.index < len(inputs) for leaf in node.leaves())
        with torch.autocast("cpu", torch.bfloat16, enabled=fast and not first):
            done = run_node(module, position, values)
        for number in done:
            values[number] = None
    return real_tensors(output_of(module, values))


def _batches_are_free(module: DecodedModel) -> bool:
    return all(
        value.shape and isinstance(value.shape[0], str) for value in module._nnr_graph.inputs
    )


def _shapes(values: tuple[torch.Tensor, ...]) -> tuple[torch.Size, ...]:
    return tuple(value.shape for value in values)


def _trainable(model: Model) -> DecodedModel:
    """Return a module with parameters of its own, in float32."""
    module = copy.deepcopy(build_module(model)).float()
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _with_parameters(model: Model, module: DecodedModel) -> Model:
    state = module.state_dict()

    def trained(tensor: Tensor) -> Tensor:
        if tensor.role is not Role.PARAMETER or tensor.name not in state:
            return tensor
        value = state[tensor.name]
        if not value.is_floating_point():
            return tensor
        value = value.to(getattr(torch, tensor.dtype)).contiguous()
        return from_torch(tensor.name, value, tensor.role)

    return replace(model, tensors={name: trained(t) for name, t in model.tensors.items()})
