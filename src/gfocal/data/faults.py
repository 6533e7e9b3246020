"""What is wrong with a data set: told at the first fault, or noted while the rest is used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias, final

from gfocal.errors import UserError

Kind: TypeAlias = Literal["malformed", "class", "reversed", "picture", "size"]
"""An entry that cannot be read, of no known class, whose sides are negative; a file that is no picture, or another."""


@dataclass(frozen=True)
class Fault:
    """One entry or picture that cannot be used. where: its file and place there. what: what is wrong, what to do."""

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
