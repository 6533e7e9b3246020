"""The one exception that tells a user what to mend."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import TypeVar, final

Number = TypeVar("Number", int, float)


@final
class UserError(ValueError):
    """Something the user gave cannot be used: the message says what, where, and what to do instead.

    The command line prints it as one line and ends with exit code 2.
    """

    def __init__(self, message: str) -> None:
        # a loader's worker hands an error over as the text of its traceback, which ends with the message
        super().__init__(message.rsplit("gfocal.errors.UserError: ", 1)[-1].strip())


def unknown(what: str, given: str, allowed: Iterable[str]) -> UserError:
    """Return the error for a name outside a set: the nearest name first, then all that are allowed."""
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {what} {shortened(given)!r}: {hint}choose from {', '.join(names)}")


def shortened(text: str, longest: int = 300) -> str:
    """Return a text, without its middle where it is longer than a message should be.

    >>> shortened("a" * 10, longest=5)
    'aa…aa'
    """
    end = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:end]}…{text[-end:]}"


def encodable(text: str) -> str:
    r"""Return a text with what UTF-8 cannot hold written out: names of files and classes may be of any bytes.

    >>> print(encodable("bad\udcff.jpg"))
    bad\udcff.jpg
    """
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def first_line(error: Exception) -> str:
    """Return the first line of what an error of another library says, or the name of its class where it says nothing.

    >>> first_line(RuntimeError(" no compiler ")), first_line(MemoryError())
    ('no compiler', 'MemoryError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def at_least(name: str, value: Number, low: float) -> Number:
    """Return `value`; ValueError where it is below `low`, infinite or NaN."""
    if not low <= value < math.inf:
        raise ValueError(f"{name} must be at least {low}, got {value}")
    return value


def within_one(name: str, value: float) -> float:
    """Return `value`; UserError where it is not between 0 and 1, as a percentage is not.

    >>> within_one("threshold", 50)
    Traceback (most recent call last):
    gfocal.errors.UserError: threshold must be between 0 and 1, got 50
    """
    if not 0 <= value <= 1:
        raise UserError(f"{name} must be between 0 and 1, got {value}")
    return value


def above(name: str, value: Number, low: float) -> Number:
    """Return `value`; ValueError where it is not greater than `low`, infinite or NaN."""
    if not low < value < math.inf:
        raise ValueError(f"{name} must be greater than {low}, got {value}")
    return value
