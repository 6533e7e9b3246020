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

    total: None where nobody knows yet, and only what is done is shown. start: steps that were done before, which tell
    nothing of the speed.
    """

    def __init__(self, total: int | None, title: str, *, start: int = 0) -> None:
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
        # rich would also print on standard error what is meant for standard output, although that is a file
        both = sys.stdout.isatty()
        self._bar = Progress(*columns, console=console, redirect_stdout=both) if console.is_terminal else None
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

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        """Show that `done` steps are behind, with a short note beside the bar; total: where it is known only now."""
        self._total = self._total if total is None else total
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=self._total, note=note)
        elif done >= self._next or done == self._total:
            spent = time.monotonic() - self._start
            if self._total is None:
                self._next = 2 * done
                print(f"{self._title} {done}  {_clock(spent)}  {note}", file=sys.stderr)
                return
            self._next = done + max(self._total / LINES, 1)
            left = spent / max(done - self._done_before, 1) * (self._total - done)
            print(f"{self._title} {done}/{self._total}  {_clock(spent)} left {_clock(left)}  {note}", file=sys.stderr)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
