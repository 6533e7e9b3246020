"""What the doctor reports: findings, numbers and bins, as plain values and as text for a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gfocal.analysis.doctor.clipping import LITTLE, Clipping
from gfocal.analysis.doctor.findings import Finding
from gfocal.analysis.doctor.statistics import SplitStatistics
from gfocal.errors import encodable

SHOWN = 3
"""Examples of a finding in the text."""


@dataclass(frozen=True)
class Report:
    """What was found in a data set.

    data: how it was named. splits: each in numbers. findings: the gravest first, with the kinds of
    `gfocal.analysis.doctor.findings`. clipping: of the recipe, None where it has no bins or nothing is learnt.
    recipe: its name. read_pictures: whether picture files were read, without which nothing is known of them.
    """

    data: str
    splits: dict[str, SplitStatistics]
    findings: tuple[Finding, ...]
    clipping: Clipping | None
    recipe: str
    read_pictures: bool

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong: there may be notes, but neither errors nor warnings."""
        return all(finding.severity == "note" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, which JSON can hold."""
        return {
            "data": self.data,
            "sound": self.sound,
            "read_pictures": self.read_pictures,
            "splits": {name: split.to_dict() for name, split in self.splits.items()},
            "findings": [finding.to_dict() for finding in self.findings],
            "recipe": self.recipe,
            "bins": None if self.clipping is None else self.clipping.to_dict(),
        }

    def text(self) -> str:
        """Return the report in lines: what the data set holds, what is wrong, and what to do about it."""
        lines = [self.data]
        width = max(len(name) for name in self.splits)
        lines += [f"  {name:<{width}}  {_split_text(split)}" for name, split in self.splits.items()]
        for finding in self.findings:
            lines += ["", *_finding_lines(finding)]
        if self.clipping is not None:
            lines += ["", *bins_lines(self.clipping)]
        return encodable("\n".join([*lines, "", self.verdict()]))

    def verdict(self) -> str:
        """Return in one line whether anything is wrong."""
        unread = "" if self.read_pictures else "; pictures were not read"
        if self.sound:
            return f"nothing is wrong{unread}"
        counts = {kind: sum(f.severity == kind for f in self.findings) for kind in ("error", "warning", "note")}
        told = [f"{count} {kind}{'s' * (count > 1)}" for kind, count in counts.items() if count]
        return f"found: {', '.join(told)}{unread}"


def bins_lines(clipping: Clipping) -> Iterator[str]:
    """Yield what is to be known of the bins of the recipe."""
    reach = clipping.n * clipping.delta
    yield (
        f"bins of {clipping.recipe} (n = {clipping.n}, delta = {clipping.delta:g}): {100 * clipping.share:.2f} % of "
        f"{clipping.targets:,} edges in {clipping.pictures:,} pictures lie beyond {reach:g} strides"
    )
    shares = (
        f"{level.stride}: {100 * level.clipped / level.targets:.2f} %" for level in clipping.levels if level.targets
    )
    yield f"    by stride  {'  '.join(shares)}"
    yield f"    {smallest_text(clipping)}"


def smallest_text(clipping: Clipping) -> str:
    """Return what each of n, delta and the number of levels would have to be for the bins to reach."""
    levels = f"{clipping.smallest_levels} levels" if clipping.smallest_levels else "no number of levels"
    if clipping.smallest_levels == 1:
        levels = "1 level"
    return (
        f"under {100 * LITTLE:g} % would be clipped with n = {clipping.smallest_n}, or delta = "
        f"{rounded_up(clipping.smallest_delta):g}, or {levels}"
    )


def rounded_up(delta: float) -> float:
    """Return the next hundredth that is not less, 0.01 at least."""
    return max(-(-round(delta * 1e6) // 10_000), 1) / 100


def _split_text(split: SplitStatistics) -> str:
    sized = max(split.small + split.medium + split.large, 1)
    shares = (f"{100 * getattr(split, size) / sized:.0f} % {size}" for size in ("small", "medium", "large"))
    crowd = f", {split.crowds:,} around crowds ({100 * split.crowd_share:.1f} %)" if split.crowds else ""
    return f"{split.pictures:,} pictures, {split.boxes:,} boxes{crowd} ({', '.join(shares)})"


def _finding_lines(finding: Finding) -> Iterator[str]:
    yield f"{finding.severity}: {finding.what}: {finding.advice}"
    shown = finding.examples[:SHOWN]
    yield from (f"    {example}" for example in shown)
    if shown and finding.count > len(shown):
        yield f"    and {finding.count - len(shown):,} more"
