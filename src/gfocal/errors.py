"""The one exception that tells a user what to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave cannot be used: the message says what, where, and what to do instead.

    The command line prints it as one line and ends with exit code 2.
    """


def unknown(what: str, given: str, allowed: Iterable[str]) -> UserError:
    """Return the error for a name outside a set: the nearest name first, then all that are allowed."""
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {what} {given!r}: {hint}choose from {', '.join(names)}")
