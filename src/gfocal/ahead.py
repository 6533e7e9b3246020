"""Making the next values of a generator while the last one is still being worked on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import Any, Generic, TypeVar, final

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
    mailbox: _Mailbox[Value] = _Mailbox()
    thread = threading.Thread(target=mailbox.fill, args=(values,), name="newest", daemon=True)
    thread.start()
    try:
        yield from mailbox.taken()
    finally:
        mailbox.stopped.set()
        thread.join(PATIENCE)


@final
class _Mailbox(Generic[Value]):
    """Holds the last value that was put in until it is taken, and at last why none comes any more."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._changed = threading.Condition()
        self._value: list[Value] = []
        self._end: list[BaseException | None] = []

    def fill(self, values: Generator[Value, Any, Any]) -> None:
        """Put in the values of a generator until it ends or `stopped` is set, and close it."""
        error: BaseException | None = None
        try:
            for value in values:
                self._tell(self._value, value)
                if self.stopped.is_set():
                    break
        except BaseException as raised:
            error = raised
        finally:
            values.close()
            self._tell(self._end, error)

    def taken(self) -> Generator[Value]:
        """Yield what is in it whenever there is something, to the end, and raise the error that it ended with."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._value or self._end)
                if not self._value:
                    break
                value = self._value.pop()
            yield value
        if self._end[0] is not None:
            raise self._end[0]

    def _tell(self, place: list[Any], what: object) -> None:
        with self._changed:
            place[:] = [what]
            self._changed.notify()
