"""Who waits for a compilation is told, once."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from nnrcodec.entropy import compiled


def wait(what: str, seconds: float) -> None:
    with compiled.announced(what):
        time.sleep(seconds)


def test_says_once_to_all_threads(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(compiled.ANNOUNCE)
    monkeypatch.setattr(compiled, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(compiled, "_done", set())
    with caplog.at_level(logging.WARNING):
        threads = [threading.Thread(target=wait, args=("this test", 0.2)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait("this test", 0.2)
    assert [record.getMessage() for record in caplog.records] == [
        "compiling this test for this machine, once; this takes some seconds"
    ]


def test_says_nothing_if_it_is_quick(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(compiled.ANNOUNCE)
    monkeypatch.setattr(compiled, "_PATIENCE_S", 60.0)
    with caplog.at_level(logging.WARNING):
        wait("a quick test", 0)
    assert not caplog.records


def test_says_nothing_where_the_environment_asks_for_that(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(compiled.ANNOUNCE, "0")
    monkeypatch.setattr(compiled, "_PATIENCE_S", 0.01)
    with caplog.at_level(logging.WARNING):
        wait("a silent test", 0.1)
    assert not caplog.records
