"""Making the next values of a generator while the last one is still being worked on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import Any, TypeVar

Value = TypeVar("Value")

PATIENCE = 1.0
"""Seconds that closing waits for a value that is being made: a camera or a server may be silent for longer."""


def made_ahead(values: Generator[Value, Any, Any], *, depth: int = 2) -> Generator[Value]:
    """Yield the values of a generator in their order, made in a thread of their own, at most `depth` ahead.

    depth: 0 makes each value only when it is asked for, and still needs not wait for it when closed.
    What the generator raises is raised where its next value would have come. Closing makes no more values, and closes
    the generator in its thread.

    >>> list(made_ahead(n * n for n in range(5)))
    [0, 1, 4, 9, 16]
    """
    ready: queue.SimpleQueue[tuple[Value | None, BaseException | None]] = queue.SimpleQueue()
    places = threading.Semaphore(depth)
    stopped = threading.Event()

    def make() -> None:
        try:
            while places.acquire() and not stopped.is_set():
                ready.put((next(values), None))
        except BaseException as error:  # StopIteration, too: the end is one more thing to hand over
            ready.put((None, error))
        finally:
            values.close()

    thread = threading.Thread(target=make, name="made ahead", daemon=True)
    thread.start()
    try:
        while True:
            places.release()
            value, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield value  # pyright: ignore[reportReturnType]  None stands for nothing only beside an error
    finally:
        stopped.set()
        places.release()
        thread.join(PATIENCE)


def newest(values: Generator[Value, Any, Any]) -> Generator[Value]:
    """Yield the value of a generator that was made last, again and again; those before it that nobody took are lost.

    They are made in a thread of their own that never waits for who takes them. Of those that end, the last one always
    comes, and then what the generator raises. Closing ends and closes the generator in its thread.

    >>> list(newest(n * n for n in range(5)))[-1]
    16
    """
    changed = threading.Condition()
    made: list[Value] = []
    ended: list[BaseException | None] = []
    stopped = threading.Event()

    def make() -> None:
        error: BaseException | None = None
        try:
            for value in values:
                with changed:
                    made[:] = [value]
                    changed.notify()
                if stopped.is_set():
                    break
        except BaseException as raised:
            error = raised
        finally:
            values.close()
            with changed:
                ended.append(error)
                changed.notify()

    thread = threading.Thread(target=make, name="newest", daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: made or ended)
                if not made:
                    break
                value = made.pop()
            yield value
        if ended[0] is not None:
            raise ended[0]
    finally:
        stopped.set()
        thread.join(PATIENCE)
