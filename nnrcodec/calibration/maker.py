"""Makes up inputs of the sizes and kinds that a network takes."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto

import numpy as np
import torch

from nnrcodec.calibration import pictures, signals, tokens
from nnrcodec.calibration.kinds import Kind, Taken
from nnrcodec.calibration.sizes import within_bounds
from nnrcodec.graph.graph import Graph


class _Purpose(IntEnum):
    """What random numbers are for: each purpose has others."""

    VALUES = auto()
    LENGTHS = auto()
    PADDING = auto()
    VOCABULARY = auto()
    FAMILIES = auto()


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes inputs of certain sizes, before they are put in their ranges.

    Parameters
    ----------
    graph : Graph
    kinds : sequence of Taken
        What its inputs are.
    seed : int
    dims : mapping of str to int
        Sizes of the dynamic dimensions.
    held_out : bool
        As for `synthetic_inputs`.
    varies : bool
        Whether sequences of tokens have different lengths, where these are free.
    kept : int
        What a mask has where there is no padding: 1, or 0.
    """

    graph: Graph
    kinds: Sequence[Taken]
    seed: int
    dims: Mapping[str, int]
    held_out: bool = False
    varies: bool = True
    kept: int = 1

    def input(self, number: int, length: int | None = None) -> tuple[torch.Tensor, ...]:
        """Return an input by its number; unless given, its number decides on the length."""
        dims = dict(self.dims)
        if self.varies:
            group = number // tokens.ALIKE
            length = length or tokens.length_of(group, self._rng(_Purpose.LENGTHS, group))
            dims |= {name: within_bounds(self.graph, name, length) for name in self._lengths}
        shapes = [
            tuple(dims[size] if isinstance(size, str) else size for size in entry.shape)
            for entry in self.graph.inputs
        ]
        used = self._used(number, shapes)
        values = (self._value(index, shape, number, used) for index, shape in enumerate(shapes))
        return tuple(
            torch.from_numpy(value).to(getattr(torch, entry.dtype))
            for value, entry in zip(values, self.graph.inputs, strict=True)
        )

    def has(self, kind: Kind) -> bool:
        """Return whether an input is of a kind."""
        return any(taken.kind is kind for taken in self.kinds)

    @functools.cached_property
    def _lengths(self) -> list[str]:
        """Names of the dynamic lengths of sequences of tokens."""
        sizes = (
            entry.shape[taken.time]
            for entry, taken in zip(self.graph.inputs, self.kinds, strict=True)
            if taken.kind is Kind.TOKENS and taken.time > 0
        )
        return [size for size in sizes if isinstance(size, str)]

    @functools.cached_property
    def _vocabularies(self) -> dict[int, tokens.Vocabulary]:
        return {
            index: tokens.Vocabulary(
                taken.rows, self._rng(_Purpose.VOCABULARY, index), held_out=self.held_out
            )
            for index, taken in enumerate(self.kinds)
            if taken.kind is Kind.TOKENS
        }

    def _rng(self, purpose: _Purpose, *key: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, int(self.held_out), purpose, *key))

    def _used(self, number: int, shapes: Sequence[tuple[int, ...]]) -> list[int]:
        """Return how much of each sequence of a batch is no padding."""
        if not self.has(Kind.MASK):
            return []
        rng = self._rng(_Purpose.PADDING, number)
        for shape, taken in zip(shapes, self.kinds, strict=True):
            if taken.kind is Kind.MASK and len(shape) > 1:
                return [tokens.used(shape[-1], rng) for _ in range(shape[0])]
        return []

    def _value(
        self, index: int, shape: tuple[int, ...], number: int, used: Sequence[int]
    ) -> np.ndarray:
        taken, entry = self.kinds[index], self.graph.inputs[index]
        rng = self._rng(_Purpose.VALUES, number, index)
        match taken.kind:
            case Kind.PICTURE:
                values = self._pictures(index, shape, number, rng)
                return 255 * values if entry.dtype == "uint8" else values
            case Kind.SIGNAL:
                return self._signals(taken, shape, rng)
            case Kind.FEATURES:
                return self._features(taken, shape, rng)
            case Kind.TOKENS:
                return self._tokens(index, shape, used, rng)
            case Kind.MASK:
                return self._mask(index, shape, used)
            case _:
                return rng.standard_normal(shape)

    def _pictures(
        self, index: int, shape: tuple[int, ...], number: int, rng: np.random.Generator
    ) -> np.ndarray:
        batch, channels = shape[:2]
        thin = min(shape[2:]) == 1
        later = any(taken.kind is Kind.PICTURE for taken in self.kinds[:index])
        if thin and not later:
            return rng.standard_normal(shape)
        values = np.stack(
            [
                pictures.picture(self._family(batch * number + item), shape[1:], rng)
                for item in range(batch)
            ]
        )
        for picture in values:
            level = rng.integers(256) / 255
            if (later and rng.random() < 0.5) or thin:
                picture[:] = level
            elif channels not in (1, 3) and rng.random() < 0.5:
                picture[-1] = level
        return values

    def _family(self, number: int) -> str:
        """Return the family of a picture: each is in turn, in an order that changes."""
        families = pictures.HELD_OUT if self.held_out else pictures.FITTED
        turn, place = divmod(number, len(families))
        return str(self._rng(_Purpose.FAMILIES, turn).permutation(families)[place])

    def _signals(
        self, taken: Taken, shape: tuple[int, ...], rng: np.random.Generator
    ) -> np.ndarray:
        if taken.channels is None:  # if there are windows, they follow one another
            values = [
                signals.sound(math.prod(shape[1:]), rng, held_out=self.held_out)
                for _ in range(shape[0])
            ]
            return np.reshape(values, shape)
        length, channels = shape[taken.time], shape[taken.channels]
        values = [
            signals.sound(length, rng, held_out=self.held_out) for _ in range(channels * shape[0])
        ]
        return np.moveaxis(np.reshape(values, (shape[0], channels, length)), 1, taken.channels)

    def _features(
        self, taken: Taken, shape: tuple[int, ...], rng: np.random.Generator
    ) -> np.ndarray:
        batch = 1 - taken.time if taken.time < 2 and taken.channels == 2 else 0
        values = np.stack(
            [
                signals.features(
                    shape[taken.time], shape[taken.channels or 0], rng, held_out=self.held_out
                )
                for _ in range(shape[batch])
            ]
        )
        return np.moveaxis(values, (0, 1, 2), (batch, taken.time, taken.channels or 0))

    def _tokens(
        self, index: int, shape: tuple[int, ...], used: Sequence[int], rng: np.random.Generator
    ) -> np.ndarray:
        rows, length = self.kinds[index].rows, shape[-1] if shape else 1
        if "position" in self.graph.inputs[index].name:
            return np.broadcast_to(np.arange(length) % rows, shape).copy()
        ids = np.full((math.prod(shape[:-1]), length), tokens.PADDING)
        for number, row in enumerate(ids):
            end = used[number] if len(used) == len(ids) else length
            row[:end] = self._vocabularies[index].sequence(end, rng)
        return ids.reshape(shape)

    def _mask(self, index: int, shape: tuple[int, ...], used: Sequence[int]) -> np.ndarray:
        mask = np.full(shape, self.kept)
        if len(used) == len(mask):
            for row, end in zip(mask, used, strict=True):
                row[..., end:] = 1 - self.kept
        return mask
