"""The page of `gfocal explain`: one HTML file that needs nothing else, put together from the parts beside this file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from gfocal.draw.explain.material import Explained
from gfocal.draw.explain.packing import pack, picture_text, rounded, rows_of
from gfocal.draw.pictures import PALETTE
from gfocal.files import whole_or_absent
from gfocal.structures import Truth

LONGEST_SIDE = 1280
"""Pixels of the longer side that a picture is stored with: the page must open on a phone."""

_THUMBNAIL = 128  # twice what the list shows, for fine screens
_SCRIPTS = ("data.js", "stage.js", "panel.js", "page.js")


def write_page(
    path: Path,
    pictures: Iterable[Explained],
    *,
    title: str,
    class_names: tuple[str, ...],
    first_score: float = 0.3,
    most: int = 300,
) -> int:
    """Write a page in which the boxes of pictures can be chosen, filtered and compared; return how many pictures.

    pictures: are taken one at a time, so that no more than one need be in memory. first_score: (0..1) the lowest
    score that is shown at first. most: candidates told of a picture, the best, beside what suppression left. The file
    appears complete or not at all; it asks no network, and its scripts take no text for code. UserError where it
    cannot be written.
    """
    facts: list[dict[str, object]] = []
    # what the page needs to answer, and the rest, which it reads on while it is looked at already
    first: list[str] = []
    rest: list[str] = []
    present: set[int] = set()
    for index, explained in enumerate(pictures):
        fact, boxes = _fact(explained, most=most)
        facts.append(fact)
        present |= {*explained.before.labels.tolist()}
        first.append(_blob(f"boxes-{index}", boxes))
        (rest if index else first).append(
            _blob(f"picture-{index}", picture_text(explained.picture, longest=LONGEST_SIDE))
        )
    style, script = _part("page.css"), _script()
    data = {
        "classes": class_names,
        "present": sorted(present),
        "palette": PALETTE,
        "firstScore": first_score,
        "pictures": facts,
    }
    page = Template(_part("page.html")).substitute(
        title=escape(title),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        first="\n".join(first),
        rest="\n".join(rest),
    )
    with whole_or_absent(path) as scratch:
        # names of files may hold what UTF-8 cannot
        scratch.write_bytes(page.encode("utf-8", errors="replace"))
    return len(facts)


def _blob(name: str, text: str) -> str:
    """Return base64 as an element that no browser runs or shows."""
    return f'<script type="text/plain" id="{name}">{text}</script>'


def _fact(explained: Explained, *, most: int) -> tuple[dict[str, object], str]:
    """Return what the page must know of a picture before it is looked at, and its packed boxes."""
    head, boxes = pack(rows_of(explained, most=most), explained.class_scores)
    height, width = explained.picture.shape[:2]
    return {
        "name": explained.name,
        "width": width,
        "height": height,
        "thumbnail": picture_text(explained.picture, longest=_THUMBNAIL),
        "overlap": explained.overlap,
        "truth": None if explained.truth is None else _truth(explained.truth),
        **head,
    }, boxes


def _truth(truth: Truth) -> dict[str, object]:
    return {
        "boxes": rounded(truth.boxes),
        "labels": truth.labels.tolist(),
        "crowd": truth.crowd.tolist(),
        "softness": None if truth.softness is None else rounded(truth.softness),
    }


def _script() -> str:
    """Return the scripts as one, whose names no other script can meet."""
    return "\n(() => {\n" + "\n".join(_part(name) for name in _SCRIPTS) + "\n})();\n"


def _hash(text: str) -> str:
    """Return by what the page's own policy tells its style and script from any other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _part(name: str) -> str:
    return resources.files("gfocal.draw.explain").joinpath(name).read_text(encoding="utf-8")
