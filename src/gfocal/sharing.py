"""Several processes that look at pictures side by side, each with the model on a device of its own."""

from __future__ import annotations

import logging
import multiprocessing
import re
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from gfocal.devices import choose_device, keep_memory, threads_each
from gfocal.errors import UserError, unknown
from gfocal.finding import Result, Search, Task, find_all, load_for_search

logger = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that a process has to put away what it is doing."""
_GONE = (EOFError, ConnectionError)
"""What the end of a process looks like from the other end of a connection."""


def devices_of(devices: str, device: str) -> tuple[str, ...]:
    """Return the device of each process.

    devices: how many processes, each with a GPU of its own, or on the CPU where `device` says so or there is no GPU; or
    the devices themselves, separated by commas, a number standing for a GPU. UserError for a device that is not there.

    >>> devices_of("2", "cpu")
    ('cpu', 'cpu')
    """
    if re.fullmatch(r"\d+", devices):
        kind = choose_device(device).type
        names = [kind] * int(devices) if kind == "cpu" else [f"{kind}:{index}" for index in range(int(devices))]
    else:
        names = [f"cuda:{name}" if name.isdigit() else name for name in (part.strip() for part in devices.split(","))]
    if not names:
        raise UserError("devices is 0: name at least one")
    # counted, not tried: this process would take up memory on each
    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    for name in names:
        if name not in there:
            raise unknown("device", name, there)
    return tuple(names)


@dataclass(frozen=True)
class _Worker:
    """A process at this end: `asking` brings None when it wants a task, and takes it; `telling` brings results."""

    device: str
    process: BaseProcess
    asking: Connection
    telling: Connection

    def end(self) -> None:
        """End the process, whatever it is doing, and wait for it."""
        self.asking.close()
        self.telling.close()
        self.process.terminate()
        self.process.join(PATIENCE)
        self.process.kill()
        self.process.join()


def find_shared(
    model: str | Path, devices: Sequence[str], tasks: Iterator[Task], search: Search, *, pictures: int | None = None
) -> Generator[Result]:
    """Yield the results of tasks, each done by the next process that is free, as they come.

    model: what `gfocal.load` takes. devices: of each process. pictures: how many there are in all, where known. Tasks
    are handed out one by one, so that slow ones keep nobody waiting. Closing the generator ends the processes.
    UserError of any process, or where one dies.
    """
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    logger.info("computing in %d processes: %s", len(devices), ", ".join(devices))
    try:
        with _deaf_to_interrupts():
            for device in devices:
                share = None if pictures is None else pictures // len(devices)
                workers.append(_started(context, str(model), device, search, num_workers=len(devices), pictures=share))
        yield from _collected(workers, tasks)
    finally:
        for worker in workers:
            worker.end()


@contextmanager
def _deaf_to_interrupts() -> Generator[None]:
    """Let processes that are started meanwhile pass over Ctrl-C: this one hears it, and ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _started(
    context: SpawnContext, model: str, device: str, search: Search, *, num_workers: int, pictures: int | None
) -> _Worker:
    asking, asking_there = context.Pipe()
    telling, telling_there = context.Pipe(duplex=False)
    ends = {"asking": asking_there, "telling": telling_there}
    arguments = {"search": search, "threads": threads_each(num_workers), "pictures": pictures, **ends}
    process = context.Process(target=work, args=(model, device), kwargs=arguments, daemon=True)
    process.start()
    # so that this end sees it when the process is gone
    asking_there.close()
    telling_there.close()
    return _Worker(device, process, asking, telling)


def _collected(workers: Sequence[_Worker], tasks: Iterator[Task]) -> Iterator[Result]:
    """Hand out tasks to who asks and yield results, until every process has closed its end."""
    open_ends = {end: worker for worker in workers for end in (worker.asking, worker.telling)}
    while open_ends:
        for end in wait(list(open_ends)):
            assert isinstance(end, Connection)
            worker = open_ends[end]
            try:
                message = end.recv()
                if end is worker.asking:
                    end.send(next(tasks, None))
            except _GONE:
                del open_ends[end]
                if end is worker.telling:
                    _refuse_death(worker)
                continue
            if isinstance(message, UserError):
                raise message
            if message is not None:
                yield message


def _refuse_death(worker: _Worker) -> None:
    """Raise UserError where a process has ended otherwise than after its last task."""
    worker.process.join()
    code = worker.process.exitcode
    if code:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise UserError(f"the process on {worker.device} died ({how}): see above, mend it, and resume the run")


def work(
    model: str,
    device: str,
    *,
    search: Search,
    threads: int,
    pictures: int | None,
    asking: Connection,
    telling: Connection,
) -> None:
    """Be one of the processes: load the model, ask for tasks and tell what is found, until there is none left."""
    # an exception, so that no half-written drawing stays
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    torch.set_num_threads(threads)
    keep_memory()
    try:
        loaded = load_for_search(model, search, pictures=pictures, device=device)
        for result in find_all(loaded, _tasks(asking), search):
            _tell(telling, result)
    except UserError as error:
        _tell(telling, error)


def _tell(telling: Connection, message: Result | UserError) -> None:
    with suppress(*_GONE):  # the first process is gone, and its end of `asking`, too
        telling.send(message)


def _tasks(asking: Connection) -> Iterator[Task]:
    """Yield tasks until there is none left, or nobody who has any."""
    while True:
        try:
            asking.send(None)
            task = asking.recv()
        except _GONE:
            return
        if task is None:
            return
        yield task
