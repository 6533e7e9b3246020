"""Making the next values of an iterable while the last one is still being worked on."""

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
            value, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            places.release()
            yield value  # pyright: ignore[reportReturnType]  None stands for nothing only beside an error
    finally:
        stopped.set()
        places.release()
        thread.join(PATIENCE)
