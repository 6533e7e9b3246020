"""Bar charts as inline SVG, whose colours are the page's: readable in the dark, and on a phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from gfocal.analysis.doctor.statistics import Histogram

WIDTH = 360
"""Units of the drawing, about the pixels of a phone: text in it is as large as that of the page."""
BAR, GAP = 12, 8
COLOURS = 6
"""Series that the page's style has colours for."""


def shares_chart(title: str, series: Mapping[str, Histogram], *, labels: Sequence[str]) -> str:
    """Return a chart of the share of each bin in each series; empty bins at either end are left out."""
    totals = {name: max(sum(histogram.counts), 1) for name, histogram in series.items()}
    used = [place for place in range(len(labels)) if any(histogram.counts[place] for histogram in series.values())]
    bins = range(used[0], used[-1] + 1) if used else range(0)
    rows = [
        (labels[place], [(name, histogram.counts[place], totals[name]) for name, histogram in series.items()])
        for place in bins
    ]
    return bar_chart(title, rows)


def bar_chart(title: str, rows: Sequence[tuple[str, Sequence[tuple[str, int, int]]]], *, marked: int = -1) -> str:
    """Return horizontal bars, a row a label, of each its shares.

    rows: label, and of each series its name, the count, and the count of all that it is a share of. marked: row from
    which on bars are drawn as flawed, -1 for none.
    """
    most = max((count / total for _, bars in rows for _, count, total in bars), default=0) or 1
    left = max((7 * len(label) for label, _ in rows), default=0) + 6
    room = WIDTH - left - 56
    parts: list[str] = []
    y = 2
    for row, (label, bars) in enumerate(rows):
        middle = y + len(bars) * BAR / 2 + 4
        parts.append(f'<text x="{left - 6}" y="{middle:g}" text-anchor="end">{escape(label)}</text>')
        for place, (name, count, total) in enumerate(bars):
            wrong = " wrong" if 0 <= marked <= row else ""
            parts.append(_bar(place, name, count, count / total, left=left, y=y, room=room / most, wrong=wrong))
            y += BAR
        y += GAP
    body = "".join(parts) or f'<text x="{WIDTH / 2:g}" y="16" text-anchor="middle">nothing to count</text>'
    height = max(y, 24)
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{body}</svg></figure>'
    )


def _bar(place: int, name: str, count: int, share: float, *, left: int, y: int, room: float, wrong: str) -> str:
    width = max(share * room, 1 if count else 0)
    percent = f"{100 * share:.1f} %" if not count or share >= 0.0005 else "< 0.1 %"
    return (
        f"<g><title>{escape(name)}: {count:,} ({percent})</title>"
        f'<rect class="series-{place % COLOURS}{wrong}" x="{left}" y="{y}" width="{width:.2f}" height="{BAR - 1}"/>'
        f'<text class="value" x="{left + width + 4:.2f}" y="{y + BAR - 3}">{percent}</text></g>'
    )


def legend(names: Sequence[str]) -> str:
    """Return which colour stands for which series."""
    items = "".join(
        f'<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="series-{place % COLOURS}" width="10" '
        f'height="10"/></svg>{escape(name)}</li>'
        for place, name in enumerate(names)
    )
    return f'<ul class="key">{items}</ul>'
