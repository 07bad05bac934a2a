from __future__ import annotations

import threading
import time

import pytest
import torch

from nnrcodec.parallel import all_torch_threads, in_order, one_torch_thread, torch_threads


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


def test_operators_have_one_thread_and_get_the_others_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_torch_thread():
            assert (torch.get_num_threads(), torch_threads()) == (1, 3)
            with one_torch_thread():
                assert (torch.get_num_threads(), torch_threads()) == (1, 3)
            with all_torch_threads():
                assert (torch.get_num_threads(), torch_threads()) == (3, 3)
            assert list(in_order(lambda _: torch.get_num_threads(), range(6), 3)) == [1] * 6
            assert (torch.get_num_threads(), torch_threads()) == (1, 3)
        assert (torch.get_num_threads(), torch_threads()) == (3, 3)
    finally:
        torch.set_num_threads(before)
