"""The doctor's report as one HTML page that needs nothing else: findings, pictures with flaws drawn, plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from gfocal.analysis.doctor.charts import bar_chart, legend, shares_chart
from gfocal.analysis.doctor.clipping import Clipping
from gfocal.analysis.doctor.findings import Finding
from gfocal.analysis.doctor.flawed import flawed_pictures
from gfocal.analysis.doctor.report import SHOWN, Report, bins_lines, smallest_text
from gfocal.analysis.doctor.statistics import SplitStatistics
from gfocal.data.dataset import Dataset
from gfocal.files import whole_or_absent

EXAMPLES = 20
"""Places of a finding that the page lists."""
MOST_CLASSES = 100
ROWS = 16
"""Bars over the bins, beside the one beyond them."""

AREA_LABELS = ("< 0.01 %", "< 0.03 %", "< 0.1 %", "< 0.3 %", "< 1 %", "< 3 %", "< 10 %", "< 30 %", "to 100 %")
COUNT_LABELS = ("0", "1", "2", "3–4", "5–8", "9–16", "17–32", "33–64", "65–128", "over 128")
ASPECT_LABELS = ("< 1:8", "< 1:4", "< 1:2", "< 4:5", "about 1", "≥ 5:4", "≥ 2:1", "≥ 4:1", "≥ 8:1")
"""Of the bins of `gfocal.analysis.doctor.statistics`."""


def write_page(path: Path, report: Report, datasets: Mapping[str, Dataset]) -> None:
    """Write a report as one HTML file: no network, no script. datasets: the open splits, for pictures of flaws.

    The file appears complete or not at all. Raises UserError where it cannot be written.
    """
    findings = "".join(_finding(finding, datasets) for finding in report.findings)
    unread = "" if report.read_pictures else '<p class="quiet">Pictures were not read.</p>'
    page = Template(_part("page.html")).substitute(
        title=escape(report.data),
        style=_part("page.css"),
        verdict=escape(report.verdict()),
        state="sound" if report.sound else "flawed",
        summary="".join(_summary(name, split) for name, split in report.splits.items()),
        findings=(findings or '<p class="quiet">Nothing was found.</p>') + unread,
        charts="".join(_charts(report.splits)),
        classes=_classes(report.splits),
        bins=_bins(report),
    )
    with whole_or_absent(path) as scratch:
        # names of files may hold what UTF-8 cannot
        scratch.write_bytes(page.encode("utf-8", errors="replace"))


def _part(name: str) -> str:
    return resources.files("gfocal.analysis.doctor").joinpath(name).read_text(encoding="utf-8")


def _summary(name: str, split: SplitStatistics) -> str:
    return (
        f'<div class="figure"><dt>{escape(name)}</dt><dd>{split.boxes:,} boxes</dd>'
        f"<dd>{split.pictures:,} pictures</dd></div>"
    )


def _finding(finding: Finding, datasets: Mapping[str, Dataset]) -> str:
    shown = finding.examples[:EXAMPLES]
    rest = finding.count - len(shown)
    items = "".join(f"<li>{escape(str(example))}</li>" for example in shown)
    more = f"<li>and {rest:,} more</li>" if shown and rest > 0 else ""
    pictures = flawed_pictures(finding, datasets)
    opened = " open" if not pictures and len(shown) <= SHOWN else ""
    listed = f"<details{opened}><summary>Where</summary><ul>{items}{more}</ul></details>" if shown else ""
    return (
        f'<article class="finding {finding.severity}" id="{finding.kind}"><h3><span class="badge">{finding.severity}'
        f"</span> {escape(finding.what)}</h3><p>{escape(finding.advice)}</p>"
        f"{pictures}{listed}</article>"
    )


def _charts(splits: Mapping[str, SplitStatistics]) -> Iterator[str]:
    if len(splits) > 1:
        yield legend(list(splits))
    yield '<div class="charts">'
    rows = [
        (label, [(name, getattr(s, size), max(s.small + s.medium + s.large, 1)) for name, s in splits.items()])
        for size, label in (("small", "small < 32²"), ("medium", "medium"), ("large", "large ≥ 96²"))
    ]
    yield bar_chart("Size in square pixels, as COCO parts it", rows)
    relative = {name: split.relative_area for name, split in splits.items()}
    yield shares_chart("Share of its picture that a box covers", relative, labels=AREA_LABELS)
    counts = {name: split.boxes_a_picture for name, split in splits.items()}
    yield shares_chart("Boxes of a picture", counts, labels=COUNT_LABELS)
    aspects = {name: split.aspect for name, split in splits.items()}
    yield shares_chart("Width over height of a box", aspects, labels=ASPECT_LABELS)
    yield "</div>"


def _classes(splits: Mapping[str, SplitStatistics]) -> str:
    """Return a table of the boxes of each class in each split, the most frequent class first."""
    names = dict.fromkeys(name for split in splits.values() for name in split.classes)
    totals = {name: sum(split.classes.get(name, 0) for split in splits.values()) for name in names}
    order = sorted(names, key=lambda name: -totals[name])
    head = "".join(f'<th scope="col" class="number">{escape(split)}</th>' for split in splits)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td class="number">{split.classes.get(name, 0):,}</td>' for split in splits.values())
        + "</tr>"
        for name in order[:MOST_CLASSES]
    )
    more = f'<p class="quiet">and {len(order) - MOST_CLASSES:,} more</p>' if len(order) > MOST_CLASSES else ""
    opened = " open" if len(order) <= 12 else ""
    return (
        f'<details class="classes"{opened}><summary>Classes ({len(order)})</summary><div class="scroll"><table><thead>'
        f'<tr><th scope="col">Class</th>{head}</tr></thead><tbody>{body}</tbody></table>{more}</div></details>'
    )


def _bins(report: Report) -> str:
    clipping = report.clipping
    if clipping is None:
        return f'<p class="quiet">The recipe {escape(report.recipe)} has no bins, or there is nothing to learn.</p>'
    first, *_ = bins_lines(clipping)
    levels = [
        (f"stride {level.stride}", [("clipped", level.clipped, level.targets)])
        for level in clipping.levels
        if level.targets
    ]
    return (
        f"<p>{escape(first[0].upper() + first[1:])}; {escape(smallest_text(clipping))}.</p>"
        f'<div class="charts">{_distances(clipping)}{bar_chart("Edges of each level that are clipped", levels)}</div>'
    )


def _distances(clipping: Clipping) -> str:
    """Return a chart of the distances that are to be learnt, in strides."""
    reach = clipping.n * clipping.delta
    step = max(round(reach / ROWS), 1)
    used = min(int(reach // step), -(-len(clipping.histogram) // step))
    counts = [sum(clipping.histogram[row * step : (row + 1) * step]) for row in range(used)]
    labels = [f"{row * step}–{(row + 1) * step}" for row in range(used)]
    rest = clipping.targets - clipping.clipped - sum(counts)
    if rest > 0:
        labels, counts = [*labels, f"{used * step}–{reach:g}"], [*counts, rest]
    rows: Sequence[tuple[str, Sequence[tuple[str, int, int]]]] = [
        (label, [("edges", count, max(clipping.targets, 1))])
        for label, count in zip([*labels, f"over {reach:g}"], [*counts, clipping.clipped], strict=True)
    ]
    return bar_chart("Distance to an edge that is to be learnt, in strides", rows, marked=len(labels))
