"""What is wrong with a data set: told at the first fault, or noted while the rest is used."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, final

from gfocal.data.pictures import path_text
from gfocal.errors import UserError

Kind: TypeAlias = Literal["malformed", "class", "reversed", "small", "picture", "size"]
"""An entry: unreadable, of no known class, of negative sides, of none; a file: no picture, or of another size."""

Note: TypeAlias = Callable[[Kind, str], None]
"""Takes note of a fault in a file that is known already: its kind; its place there, what is wrong, what to do."""


@dataclass(frozen=True)
class Fault:
    """One entry or picture that cannot be used.

    where: the file, as one printable line. what: the place in it (key or line), what is wrong, and what to do.
    """

    kind: Kind
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@final
@dataclass(frozen=True)
class Faults:
    """Collects faults, or raises UserError at the first one where `stop`; what is at fault is left out of the data."""

    stop: bool = True
    found: list[Fault] = field(default_factory=list[Fault])

    def note(self, fault: Fault) -> None:
        """Take note of a fault, or raise it as a UserError."""
        if self.stop:
            raise UserError(str(fault))
        self.found.append(fault)

    def of(self, path: Path) -> Note:
        """Return what takes note of the faults of one file."""
        where = place_text(path)
        return lambda kind, what: self.note(Fault(kind, where, what))


def place_text(path: Path) -> str:
    """Return a path as one printable line, without the middle of one that no file system holds."""
    text = path_text(path)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 2 :]}"


@contextmanager
def naming(path: Path) -> Generator[None]:
    """Put the name of a file before the message of any UserError."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place_text(path)}: {error}") from error.__cause__


_LONGEST = 600
