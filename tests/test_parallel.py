from __future__ import annotations

import threading
import time

import pytest

from nnrcodec.parallel import in_order


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_results_are_in_order(threads: int | None) -> None:
    def slow_at_first(item: int) -> int:
        time.sleep(0.01 * (item < 2))
        return item * item

    assert list(in_order(slow_at_first, range(40), threads)) == [i * i for i in range(40)]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_error_is_raised_and_the_rest_is_left(threads: int) -> None:
    done: list[int] = []

    def work(item: int) -> int:
        if item >= 3:
            raise ValueError(str(item))
        done.append(item)
        return item

    with pytest.raises(ValueError, match="3"):
        list(in_order(work, range(1000), threads))
    assert sorted(done) == [0, 1, 2]


def test_not_much_is_begun_ahead() -> None:
    begun = []
    lock = threading.Lock()

    def work(item: int) -> int:
        with lock:
            begun.append(item)
        return item

    results = in_order(work, range(1000), 2)
    next(results)
    time.sleep(0.05)
    assert len(begun) < 20
    results.close()  # type: ignore[attr-defined]
