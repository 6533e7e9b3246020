"""The proof that a file is the model it was made from, and of which file and model it is the proof."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from gfocal.files import whole_or_absent

LEAST_MATCHED = 0.995
"""Share of detections that a file in float32 must have in common with its model."""

PACKAGES = ("gfocal", "torch", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf")
"""Those that have a part in a file or in its measurement."""


@dataclass(frozen=True)
class Difference:
    """How far two sets of matching numbers are apart."""

    max: float
    median: float


@dataclass(frozen=True)
class Agreement:
    """A file in one runtime beside its model in PyTorch.

    runtime: with its version, and its precision where that is not `as_written`: the one in which the file was written,
    rather than one that the CPU is faster in. matched: share of the detections of both sides that the other side has,
    too: of the same label, with an IoU of 0.9 at least and scores within 0.05; None where neither has any. scores,
    boxes and edge_std: how far those that match are apart, the latter two in pixels, edge_std None without
    distributions. ap: of the file, None without annotations. milliseconds: median time from a prepared picture to its
    detections.
    """

    runtime: str
    as_written: bool
    matched: float | None
    scores: Difference
    boxes: Difference
    edge_std: Difference | None
    ap: float | None
    milliseconds: float


@dataclass(frozen=True)
class Ranges:
    """Where the ranges of values for int8 were measured: on so many pictures, evenly spread over a split."""

    split: str
    pictures: int


@dataclass(frozen=True)
class Certificate:
    """What was measured of an exported file, and of what.

    model: where its weights came from. recipe: by name. content, precision: see `Header`. files: SHA-256 of each file.
    weights: SHA-256 of the weights. versions: of the packages that are installed. processor: as the system calls it.
    data: whose first `pictures` were compared. detections: in them by PyTorch in float32, whose are ap and milliseconds
    (see `Agreement`). runtimes: the file in each that is installed. ranges: None but for int8.
    """

    model: str
    recipe: str
    content: str
    precision: str
    files: Mapping[str, str]
    weights: str
    versions: Mapping[str, str]
    processor: str
    data: str
    pictures: int
    detections: int
    ap: float | None
    milliseconds: float
    runtimes: tuple[Agreement, ...]
    ranges: Ranges | None = None

    @property
    def worst(self) -> Agreement | None:
        """The runtime that, computing as the file was written, has the least in common; None where nothing is found."""
        compared = [one for one in self.runtimes if one.as_written and one.matched is not None]
        return min(compared, key=lambda one: one.matched or 0.0, default=None)

    @property
    def matched(self) -> float | None:
        """The share of detections in common of the `worst` runtime."""
        return None if self.worst is None else self.worst.matched

    def text(self) -> str:
        """Return what a person wants to know of it, a line for PyTorch and one for each runtime."""
        lines = [f"PyTorch float32: {self.detections} detections in {self.pictures} pictures of {self.data}"]
        lines[0] += _told(self.ap, self.milliseconds)
        for one in self.runtimes:
            compared = "nothing to compare"
            if one.matched is not None:
                compared = (
                    f"{100 * one.matched:.2f} % matched, scores within {one.scores.max:.1e}, boxes within "
                    f"{one.boxes.max:.1e} px"
                )
            lines.append(f"{one.runtime}: {compared}{_told(one.ap, one.milliseconds)}")
        if self.ranges is not None:
            lines.append(f"ranges for int8: measured on {self.ranges.pictures} pictures of {self.ranges.split}")
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write the certificate as JSON, whole or not at all."""
        with whole_or_absent(path) as scratch:
            scratch.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def sha256_of_weights(module: nn.Module) -> str:
    """Return the SHA-256 of all parameters and statistics, in the order of their names, each after its name."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of those of `PACKAGES` that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _told(ap: float | None, milliseconds: float) -> str:
    return f"{'' if ap is None else f', AP {ap:.3f}'}, {milliseconds:.1f} ms a picture"
