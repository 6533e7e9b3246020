"""What of the data a run does not learn, counted and listed."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import final

from gfocal.data.faults import Fault
from gfocal.errors import UserError

logger = logging.getLogger(__name__)

SHOWN = 3
"""Faults of a kind that are told one by one."""


@final
class LeftOut:
    """Lists each fault once in left_out.csv (kind, where, what) and tells the first few of each kind.

    rank: of this process; all but the first have a file of their own, left_out-RANK.csv. goes_on: whether the file is
    of a former part of this run.
    """

    def __init__(self, out: Path, *, rank: int = 0, goes_on: bool = False) -> None:
        self.path = out / (f"left_out-{rank}.csv" if rank else "left_out.csv")
        self._known = set(_listed(self.path)) if goes_on else set()
        self._counts = Counter(fault.kind for fault in self._known)

    def note(self, faults: Iterable[Fault]) -> None:
        """Take in faults, known ones or new."""
        fresh = [fault for fault in dict.fromkeys(map(_as_written, faults)) if fault not in self._known]
        if not fresh:
            return
        self._known.update(fresh)
        for fault in fresh:
            self._counts[fault.kind] += 1
            if self._counts[fault.kind] <= SHOWN:
                logger.warning("left out: %s", fault)
            elif self._counts[fault.kind] == SHOWN + 1:
                logger.warning("left out: more of this kind are listed in %s", self.path)
        try:
            new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)  # on another machine there is none yet
            with self.path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows([("kind", "where", "what")] if new else [])
                writer.writerows((fault.kind, fault.where, fault.what) for fault in fresh)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from error

    def summary(self) -> str:
        """Return one line, empty where nothing was left out."""
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self._counts.items()))
        return f"left out of the training: {counts} (listed in {self.path})" if counts else ""


def _as_written(fault: Fault) -> Fault:
    """Return a fault as the file holds it: names of files may hold what UTF-8 cannot."""
    return replace(fault, where=_utf8(fault.where), what=_utf8(fault.what))


def _utf8(text: str) -> str:
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _listed(path: Path) -> list[Fault]:
    """Return what a file lists."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Fault(**row) for row in csv.DictReader(file) if None not in row.values()]  # type: ignore[arg-type]
