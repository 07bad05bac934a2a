from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnrcodec.entropy.ans import scale_classes
from nnrcodec.entropy.ans.scale_classes import MAX_CLASS, Layout, ScaleClasses

CLASSES = st.lists(st.integers(0, 4), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((), (1, 1, 1)),
        ((5,), (1, 1, 5)),
        ((5, 3), (5, 3, 1)),
        ((5, 3, 2, 2), (5, 3, 4)),
    ],
)
def test_layout_is_first_dimension_second_and_rest(
    shape: tuple[int, ...], layout: tuple[int, int, int]
) -> None:
    assert Layout.of(shape) == Layout(*layout)


def test_elements_of_a_class_come_by_row_class_then_in_c_order() -> None:
    levels = np.arange(8).reshape(2, 2, 2)
    classes = ScaleClasses(np.array([1, 0]), np.array([0, 1]))
    order = [scale_classes.gather(levels, classes, j).tolist() for j in range(classes.count)]
    assert order == [[4, 5], [6, 7, 0, 1], [2, 3]]


@given(CLASSES, CLASSES, st.integers(1, 3))
def test_scatter_undoes_gather(row: list[int], column: list[int], rest: int) -> None:
    levels = np.arange(len(row) * len(column) * rest).reshape(len(row), len(column), rest)
    classes = ScaleClasses(np.array(row), np.array(column))
    layout = Layout(*levels.shape)
    found = np.full_like(levels, -1)
    for scale_class in range(classes.count):
        coded = scale_classes.gather(levels, classes, scale_class)
        assert coded.size == scale_classes.size(layout, classes, scale_class)
        scale_classes.scatter(coded, found, classes, scale_class)
    assert (found == levels).all()


def test_rows_that_are_louder_get_higher_classes() -> None:
    rng = np.random.default_rng(0)
    scale = np.array([1, 1, 4, 16, 4, 1] * 4)
    levels = np.rint(rng.normal(size=(24, 20, 9)) * scale[:, None, None]).astype(np.int32)
    classes = scale_classes.choose(levels)
    mean = [classes.row[scale == s].mean() for s in (1, 4, 16)]
    assert mean == sorted(set(mean))
    assert not classes.column.any()


def test_rows_alike_get_no_classes() -> None:
    levels = np.rint(np.random.default_rng(0).normal(size=(30, 30, 1)) * 3).astype(np.int32)
    assert scale_classes.choose(levels).count == 1


def test_a_few_elements_get_no_classes() -> None:
    levels = np.array([0, 1000] * 8, np.int32).reshape(2, 8, 1).swapaxes(0, 1)
    assert scale_classes.choose(levels).count == 1


def test_scales_far_apart_stay_within_the_greatest_class() -> None:
    levels = np.ones((20, 40, 1), np.int32)
    levels[:10] = 1000 * np.arange(1, 41).reshape(1, 40, 1) % 1001
    classes = scale_classes.choose(levels)
    assert 0 < classes.row.max() <= MAX_CLASS


def test_neighbouring_classes_with_the_same_levels_are_merged() -> None:
    counts = np.array([[100, 100, 0], [101, 99, 0], [0, 0, 500]])
    assert [size for size, _ in scale_classes.merged_classes(counts)] == [2, 1]


def test_histograms_count_each_class() -> None:
    levels = np.array([[0, 1], [2, 2]])[:, :, None]
    classes = ScaleClasses(np.array([0, 1]), np.array([0, 0]))
    assert scale_classes.histograms(levels, classes, 0, 3).tolist() == [[1, 1, 0], [0, 0, 2]]
