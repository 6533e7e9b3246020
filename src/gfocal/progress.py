"""Progress of long work: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINES = 10
"""Lines written in all where the output is no terminal."""


@final
class ProgressBar:
    """Shows on standard error how much of `total` steps is done and how long the rest will take.

    start: steps that were done before, which tell nothing of the speed.
    """

    def __init__(self, total: int, title: str, *, start: int = 0) -> None:
        self._total = total
        self._done_before = start
        self._title = title
        self._start = time.monotonic()
        self._next = 0.0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        console = Console(file=sys.stderr)
        self._bar = Progress(*columns, console=console, transient=False) if console.is_terminal else None
        self._task = self._bar.add_task(title, total=total, completed=start, note="") if self._bar else None

    def __enter__(self) -> ProgressBar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` steps are behind, with a short note beside the bar."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, note=note)
        elif done >= self._next or done == self._total:
            self._next = done + max(self._total / LINES, 1)
            spent = time.monotonic() - self._start
            left = spent / max(done - self._done_before, 1) * (self._total - done)
            print(f"{self._title} {done}/{self._total}  {_clock(spent)} left {_clock(left)}  {note}", file=sys.stderr)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
