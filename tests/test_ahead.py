"""Values are made ahead of their use: in order, only so far, and no further once nobody wants them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator

import pytest

from gfocal.ahead import made_ahead, newest


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def test_values_come_in_order_and_once() -> None:
    assert list(made_ahead((number for number in range(100)), depth=3)) == list(range(100))
    assert list(made_ahead(number for number in range(0))) == []


def test_no_more_than_so_many_are_made_ahead() -> None:
    made: list[int] = []

    def values() -> Generator[int]:
        for number in range(10):
            made.append(number)
            yield number

    ahead = made_ahead(values(), depth=2)
    assert next(ahead) == 0
    assert until(lambda: len(made) == 3)
    time.sleep(0.1)
    assert len(made) == 3
    assert next(ahead) == 1
    assert until(lambda: len(made) == 4)
    ahead.close()


def test_nothing_is_made_ahead_that_must_not_be() -> None:
    made: list[int] = []

    def values() -> Generator[int]:
        for number in range(10):
            made.append(number)
            yield number

    ahead = made_ahead(values(), depth=0)
    for number in range(3):
        assert next(ahead) == number
        time.sleep(0.05)
        assert made == list(range(number + 1))
    ahead.close()


def test_the_newest_value_is_the_last_one_made() -> None:
    made, wanted = [], threading.Semaphore(0)

    def values() -> Generator[int]:
        for number in range(8):
            wanted.acquire()
            made.append(number)
            yield number

    last = newest(values())
    wanted.release(1)
    assert next(last) == 0
    wanted.release(5)
    assert until(lambda: len(made) == 6)
    time.sleep(0.05)
    assert next(last) == 5
    wanted.release(2)
    assert list(last)[-1] == 7


def test_an_error_comes_after_the_newest_value() -> None:
    def values() -> Generator[int]:
        yield 1
        raise KeyError("second")

    last = newest(values())
    assert next(last) == 1
    with pytest.raises(KeyError, match="second"):
        next(last)


def test_values_are_made_while_the_last_one_is_used() -> None:
    second = threading.Event()

    def values() -> Generator[int]:
        yield 1
        second.set()
        yield 2

    ahead = made_ahead(values())
    assert next(ahead) == 1
    assert second.wait(5)
    ahead.close()


def test_an_error_comes_where_its_value_would_have() -> None:
    def values() -> Generator[int]:
        yield 1
        yield 2
        raise KeyError("third")

    got: list[int] = []
    with pytest.raises(KeyError, match="third"):  # noqa: PT012
        for value in made_ahead(values(), depth=5):
            got.append(value)
    assert got == [1, 2]


@pytest.mark.parametrize("made", [made_ahead, newest])
def test_closing_ends_the_thread_and_closes_the_generator(
    made: Callable[[Generator[int]], Generator[int]],
) -> None:
    closed = threading.Event()

    def values() -> Generator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    ahead = made(values())
    next(ahead)
    assert threading.active_count() == before + 1
    ahead.close()
    assert closed.is_set()
    assert threading.active_count() == before


@pytest.mark.parametrize("made", [made_ahead, newest])
def test_closing_does_not_wait_for_what_never_comes(
    monkeypatch: pytest.MonkeyPatch, made: Callable[[Generator[int]], Generator[int]]
) -> None:
    monkeypatch.setattr("gfocal.ahead.PATIENCE", 0.05)
    never = threading.Event()

    def values() -> Generator[int]:
        yield 1
        never.wait(60)

    ahead = made(values())
    next(ahead)
    began = time.monotonic()
    ahead.close()
    assert time.monotonic() - began < 5
    never.set()
