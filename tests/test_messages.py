"""What the package says through `logging`."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from nnrcodec.messages import logger_of, said_once

NAME = "nnrcodec.of_tests"


@pytest.fixture
def logger() -> logging.Logger:
    return logger_of(NAME)


def test_a_run_says_each_message_once_and_keeps_warnings(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with said_once() as warnings, ThreadPoolExecutor(4) as pool:
        for number in [1, 2] * 8:
            pool.submit(logger.warning, "layer %d", number)
        for _ in range(2):
            logger.info("it goes on")
    assert sorted(warnings) == ["layer 1", "layer 2"]
    assert sorted(caplog.messages) == ["it goes on", "layer 1", "layer 2"]


def test_the_next_run_says_it_again_and_so_does_what_is_in_none(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with said_once() as warnings:
            logger.warning("odd")
        assert warnings == ["odd"]
    for _ in range(2):
        logger.warning("odd")
    assert caplog.messages == ["odd"] * 4


def test_a_run_in_a_run_has_all_its_warnings(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    with said_once() as outer:
        logger.warning("before")
        for _ in range(2):
            with said_once() as inner:
                logger.warning("inside")
                logger.warning("inside")
            assert inner == ["inside"]
    assert outer == ["before", "inside"]


def test_loggers_of_other_modules_are_kept_too() -> None:
    with said_once() as warnings:
        for _ in range(2):
            logging.getLogger("nnrcodec.of_others").warning("odd")
    assert warnings == ["odd"]
