"""Shows the examples of docstrings as code: Markdown would take their prompts for quotations."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLES = re.compile(r"(?:^>>> .*(?:\n(?!\s*$).*)*\n?\n?)+", re.MULTILINE)
FLAGS = re.compile(r"\s*# doctest:.*$", re.MULTILINE)


class Doctests(griffe.Extension):
    """Fences the examples of every docstring that a page shows."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """Rewrite an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLES.sub(_fenced, obj.docstring.value)


def _fenced(found: re.Match[str]) -> str:
    return f"```pycon\n{FLAGS.sub('', found[0]).rstrip()}\n```\n\n"
