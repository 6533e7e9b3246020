"""What anybody's head with edge distributions puts out, as arrays in a file: checked, decoded, suppressed."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard, final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gfocal.data.coco import read_coco
from gfocal.data.dataset import Dataset
from gfocal.data.opening import open_dataset
from gfocal.errors import UserError
from gfocal.ops.nms import SUPPRESSIONS
from gfocal.structures import Detections, EdgeDistributions, Truth

Size = tuple[int, int]

SHAPES: Mapping[str, str] = {
    "image_id": "(rows,) whole numbers",
    "scores": "(rows, classes) numbers in 0..1",
    "logits": "(rows, 4, bins) numbers, two bins or more",
    "points": "(rows, 2) numbers, x and y in the picture's pixels",
    "stride": "(rows,) numbers above 0, the picture's pixels a bin",
}
"""The arrays of a file, and what each must hold."""


@final
@dataclass(frozen=True)
class HeadOutputs:
    """What a head says at k locations of any number of pictures, before any decision.

    image_id: (k,) picture of each row. scores: (k, classes) in 0..1, in the order of the category ids. logits: (k, 4,
    bins) of left, top, right and bottom edge, bins 0, 1, ... points: (k, 2) x, y in the picture's own pixels. stride:
    (k,) the picture's pixels that one bin spans. An edge lies at point ∓ stride · Σ pᵢ i (paper V1, Eq. 5).

    >>> from gfocal.heads import HeadOutputs
    >>> heads = HeadOutputs(
    ...     image_id=torch.tensor([7]), scores=torch.tensor([[0.1, 0.9]]), logits=torch.zeros(1, 4, 5),
    ...     points=torch.tensor([[50.0, 40.0]]), stride=torch.tensor([8.0]),
    ... )
    >>> heads.detections(7, ("cat", "dog"), size=(100, 100)).boxes.tolist()
    [[34.0, 24.0, 66.0, 56.0], [34.0, 24.0, 66.0, 56.0]]
    """

    image_id: Int[Tensor, " k"]
    scores: Float[Tensor, "k c"]
    logits: Float[Tensor, "k 4 bins"]
    points: Float[Tensor, "k 2"]
    stride: Float[Tensor, " k"]

    @classmethod
    def from_npz(cls, path: str | Path) -> HeadOutputs:
        """Read the arrays of `SHAPES` from an npz file; UserError with file, array and what to do where one is wrong.

        >>> from gfocal.heads import HeadOutputs
        >>> HeadOutputs.from_npz("missing.npz")
        Traceback (most recent call last):
        gfocal.errors.UserError: missing.npz: there is no such file: give an npz file with the arrays image_id, ...
        """
        arrays = _read(Path(path))
        values = {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}
        return cls(**values | {"image_id": torch.from_numpy(arrays["image_id"].astype(np.int64))})

    def __len__(self) -> int:
        return len(self.image_id)

    def __getitem__(self, index: Tensor) -> HeadOutputs:
        """Return the rows at `index` (long or bool)."""
        return HeadOutputs(**{name: getattr(self, name)[index] for name in SHAPES})

    @property
    def num_classes(self) -> int:
        """Number of classes of the scores."""
        return self.scores.shape[1]

    def candidates(
        self,
        image_id: int,
        class_names: tuple[str, ...],
        *,
        size: Size | None = None,
        threshold: float = 0.05,
        strides: Float[Tensor, " levels"] | None = None,
    ) -> Detections:
        """Return the boxes of a picture before suppression: a row for each location and class above the threshold.

        size: (height, width) of the picture, to which boxes are clipped. strides: those of the picture's levels, the
        finest first, None for those among its rows. A location with two classes above the threshold has two rows;
        `locations` tells which row of these outputs each is of.
        """
        places = (self.image_id == image_id).nonzero()[:, 0]
        mine = self[places]
        row, label = (mine.scores > threshold).nonzero(as_tuple=True)
        edges = mine.edges()
        boxes = edges.mean
        if size is not None:
            boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([size[1], size[0], size[1], size[0]]))
        levels = _nearest(mine.stride, mine.stride.unique() if strides is None else strides)
        order = mine.scores[row, label].argsort(descending=True, stable=True)
        row, label = row[order], label[order]
        return Detections(
            boxes=boxes[row],
            scores=mine.scores[row, label],
            labels=label,
            class_names=class_names,
            edges=edges[row],
            levels=levels[row],
            locations=places[row],
        )

    def detections(
        self,
        image_id: int,
        class_names: tuple[str, ...],
        *,
        size: Size | None = None,
        threshold: float = 0.05,
        strides: Float[Tensor, " levels"] | None = None,
        nms: str = "nms",
        nms_threshold: float = 0.6,
        max_detections: int = 100,
    ) -> Detections:
        """Return the boxes found in a picture, best score first: `candidates` put through suppression.

        nms: a name of `gfocal.ops.nms.SUPPRESSIONS`. nms_threshold: IoU from where on boxes are in each other's way.
        max_detections: boxes kept.
        """
        found = self.candidates(image_id, class_names, size=size, threshold=threshold, strides=strides)
        return suppressed(found, nms=nms, nms_threshold=nms_threshold, max_detections=max_detections)

    def edges(self) -> EdgeDistributions:
        """Return the distributions of the edges of every row, in pixels of its picture."""
        steps = self.stride[:, None] * torch.arange(self.logits.shape[-1])
        x, y = self.points[:, :1], self.points[:, 1:]
        return EdgeDistributions(self.logits.softmax(-1), torch.stack([x - steps, y - steps, x + steps, y + steps], 1))


def suppressed(
    found: Detections, *, nms: str = "nms", nms_threshold: float = 0.6, max_detections: int = 100
) -> Detections:
    """Return what suppression leaves of candidates, best score first (arguments of `HeadOutputs.detections`).

    >>> from gfocal import Detections
    >>> from gfocal.heads import suppressed
    >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
    >>> found = Detections(boxes, torch.tensor([0.5, 0.9, 0.7]), torch.zeros(3, dtype=torch.long), ("cat",))
    >>> suppressed(found).boxes.tolist()
    [[0.0, 0.0, 10.0, 9.0], [20.0, 0.0, 30.0, 10.0]]
    """
    kept, scores = SUPPRESSIONS[nms](
        found.boxes, found.scores, found.labels, iou_threshold=nms_threshold, limit=max_detections
    )
    return replace(found[kept], scores=scores)


@final
@dataclass(frozen=True)
class OpenHeads:
    """The outputs of a head and the data set that they were made on: pairs of truth and detections, again and again.

    suppress: whether the detections went through suppression, or are all candidates. threshold: on the scores.
    """

    outputs: HeadOutputs
    dataset: Dataset
    threshold: float = 0.05
    suppress: bool = True

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""
        return self.dataset.class_names

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[tuple[Truth, Detections]]:
        """Yield what `gfocal.testing.detect` does for a model: every picture of the data set, with rows or without."""
        truths = [self.dataset.truth(index) for index in range(len(self.dataset))]
        strides = level_strides(self.outputs, {truth.image_id: truth.size for truth in truths})
        for truth in truths:
            found = self.outputs.candidates(
                truth.image_id,
                self.class_names,
                size=truth.size,
                threshold=self.threshold,
                strides=strides.get(truth.image_id),
            )
            yield truth, suppressed(found) if self.suppress else found


def is_heads(source: object) -> TypeGuard[str | Path]:
    """Return whether a source of detections is a file of a head's outputs, rather than a model.

    >>> is_heads("heads.npz"), is_heads("runs/mine")
    (True, False)
    """
    return isinstance(source, str | Path) and Path(source).suffix == ".npz"


def open_heads(
    path: str | Path,
    data: str | Path | Dataset,
    *,
    split: str = "val",
    threshold: float = 0.05,
    suppress: bool = True,
) -> OpenHeads:
    """Open the outputs of a head together with the annotations of their pictures.

    path: an npz file (`HeadOutputs.from_npz`). data: a COCO JSON, whose pictures need not be there; what --data takes;
    or an open data set. threshold, suppress: as of `OpenHeads`. UserError where the file is broken, its classes are
    not as many as the data set's, or it has rows of a picture that the data set lacks.

    >>> from gfocal.heads import open_heads
    >>> for truth, found in open_heads("heads.npz", "val.json"):  # doctest: +SKIP
    ...     print(truth.name, len(found))
    """
    outputs = HeadOutputs.from_npz(path)
    dataset = open_annotations(data, split)
    if outputs.num_classes != len(dataset.class_names):
        raise UserError(
            f"{path}: scores has {outputs.num_classes} classes, the data set {len(dataset.class_names)}: give the "
            "annotations that the head was trained for"
        )
    known = torch.tensor([dataset.truth(index).image_id for index in range(len(dataset))], dtype=torch.long)
    strange = outputs.image_id[~torch.isin(outputs.image_id, known)].unique()
    if len(strange):
        raise UserError(
            f"{path}: image_id holds {int(strange[0])}, and {len(strange) - 1} more such ids, that no picture of the "
            "data set has: give the annotations of the same pictures, or leave these rows out"
        )
    return OpenHeads(outputs, dataset, threshold, suppress)


def open_annotations(data: str | Path | Dataset, split: str = "val") -> Dataset:
    """Open what --data takes, or a COCO JSON by itself, of which only the annotations can be used."""
    if not isinstance(data, str | Path):
        return data
    path = Path(data)
    return read_coco(path, path.parent) if path.suffix == ".json" else open_dataset(data, split)


def level_strides(outputs: HeadOutputs, sizes: Mapping[int, Size]) -> dict[int, Float[Tensor, " levels"]]:
    """Return the strides of the levels of each picture that has rows, the finest first, in the picture's pixels.

    sizes: (height, width) of each picture. Pictures are resized for a network, so the strides differ from one to the
    next, and few rows may miss a level: what is missing is taken from the pictures with most levels, by the side of
    the picture (long, short or none) that their finest strides go with best.
    """
    ids, place = outputs.image_id.unique(return_inverse=True)
    own = {number: _distinct(outputs.stride[place == index]) for index, number in enumerate(ids.tolist())}
    most = max((len(strides) for strides in own.values()), default=0)
    whole = [number for number, strides in own.items() if len(strides) == most and number in sizes]
    if not whole:
        return own
    ladder = torch.stack([own[number] / own[number][0] for number in whole]).median(0).values
    sides = {number: torch.tensor([max(size), min(size), 1.0]) for number, size in sizes.items()}
    finest = torch.stack([own[number][0] / sides[number] for number in whole]).log()
    rule = int(finest.std(0, correction=0).argmin())
    unit = finest[:, rule].median().exp() * ladder
    lacking = [number for number, strides in own.items() if len(strides) < most and number in sizes]
    return own | {number: _filled(own[number], unit * sides[number][rule]) for number in lacking}


def _filled(own: Float[Tensor, " some"], expected: Float[Tensor, " levels"]) -> Float[Tensor, " levels"]:
    """Return the strides of all levels: `expected`, brought to the scale of those that the picture has."""
    level = _nearest(own, expected)
    return expected * (own / expected[level]).log().mean().exp()


def _distinct(strides: Float[Tensor, " k"]) -> Float[Tensor, " levels"]:
    """Return the different strides, the finest first; what differs by under 1 % is one, but for rounding."""
    ordered = strides.sort().values
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] > 1.01 * ordered[:-1]
    return ordered[first]


def _nearest(strides: Float[Tensor, " k"], levels: Float[Tensor, " levels"]) -> Int[Tensor, " k"]:
    """Return the place of the level whose stride is nearest by ratio."""
    if not len(levels):
        return torch.zeros(len(strides), dtype=torch.long)
    return (strides[:, None].log() - levels.log()).abs().argmin(1)


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a file, checked."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file: give an npz file with the arrays {', '.join(SHAPES)}")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            missing = [name for name in SHAPES if name not in file]
            if missing:
                held = ", ".join(file) or "nothing"
                name = missing[0]
                raise UserError(f"{path}: the array {name} is missing (there are: {held}): add it as {SHAPES[name]}")
            arrays: dict[str, npt.NDArray[Any]] = {name: file[name] for name in SHAPES}
    except UserError:
        raise
    except (OSError, EOFError, AttributeError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a whole npz file of plain arrays: save it again with numpy.savez") from error
    for name, array in arrays.items():
        _check(path, name, array)
    rows = {name: len(array) for name, array in arrays.items()}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise UserError(f"{path}: the arrays differ in their number of rows ({counts}): give each a row a location")
    return arrays


def _check(path: Path, name: str, array: npt.NDArray[Any]) -> None:
    """Raise UserError where an array is not what `SHAPES` says."""
    wanted = {"image_id": (1, None), "scores": (2, None), "logits": (3, 4), "points": (2, 2), "stride": (1, None)}
    dimensions, second = wanted[name]
    wrong = array.ndim != dimensions or (second is not None and array.shape[1] != second)
    if wrong or 0 in array.shape[1:] or (name == "logits" and array.shape[2] < 2):
        raise UserError(f"{path}: {name} has shape {array.shape}: it must be {SHAPES[name]}")
    if array.dtype.kind not in ("iu" if name == "image_id" else "fiu"):
        raise UserError(f"{path}: {name} holds {array.dtype}: it must be {SHAPES[name]}")
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise UserError(f"{path}: {name} is not finite in row {row}: mend or leave out such rows ({SHAPES[name]})")
    if name == "scores" and array.size and not 0 <= array.min() <= array.max() <= 1:
        raise UserError(f"{path}: scores leaves 0..1 ({array.min():g} to {array.max():g}): apply the sigmoid first")
    if name == "stride" and array.size and array.min() <= 0:
        raise UserError(f"{path}: stride holds {array.min():g}: it must be {SHAPES[name]}")
