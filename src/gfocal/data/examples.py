"""Pictures of a data set as examples, for a loader: augmented for training, prepared for the test."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data

from gfocal.data.collate import Example, Prepared, learnable
from gfocal.data.dataset import Dataset
from gfocal.data.faults import Fault
from gfocal.data.mixing import Mix, Sample
from gfocal.errors import UserError


@dataclass(frozen=True)
class Draw:
    """What a training example is made from.

    index: of its picture. seed: of all chance in its augmentation. mixed: whether other pictures may join in.
    """

    index: int
    seed: int
    mixed: bool = True


@final
class TrainingExamples(data.Dataset[Example]):
    """A data set through augmentations, its `learnable` boxes, for a `torch.utils.data.DataLoader` of `Draw`s.

    transform: what is done to one picture. mix: what makes one picture of several, before that, or None. skip: whether
    the next picture stands in for one that cannot be read, with a fault in the example, instead of a UserError.
    Boxes under a pixel are faults of the example too.
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: Callable[[NDArray[np.uint8], Tensor, Tensor], Example],
        *,
        mix: Mix | None = None,
        skip: bool = False,
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.mix = mix
        self.skip = skip

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> Example:
        faults: list[Fault] = []
        index, sample = self._readable(draw.index, faults)
        truth = self.dataset.truth(index)
        try:
            with _chance_of(draw.seed):
                if self.mix is not None and draw.mixed:
                    sample = self.mix(sample, lambda: self._any(faults))
                example = self.transform(*sample)
        except UserError:
            raise
        except Exception as error:  # out of a worker comes only its message: it has to name the picture
            raise RuntimeError(f"picture {truth.name!r} (index {index}) cannot be transformed: {error}") from error
        return replace(example, index=index, image_id=truth.image_id, name=truth.name, faults=tuple(faults))

    def _any(self, faults: list[Fault]) -> Sample:
        return self._readable(int(torch.randint(len(self.dataset), ())), faults)[1]

    def _readable(self, index: int, faults: list[Fault]) -> tuple[int, Sample]:
        """Return the first picture from `index` on that can be read, with its index."""
        for ahead in range(len(self.dataset)):
            at = (index + ahead) % len(self.dataset)
            truth = self.dataset.truth(at)
            try:
                picture = self.dataset.picture(at)
            except UserError as error:
                if not self.skip:
                    raise
                faults.append(Fault("picture", truth.name, str(error)))
                continue
            boxes, labels = learnable(truth)
            if small := len(truth.boxes) - int(truth.crowd.sum()) - len(boxes):
                faults.append(Fault("small", truth.name, f"{small} of its boxes are narrower or lower than a pixel"))
            return at, (picture, boxes, labels)
        raise UserError(f"no picture of the data set can be read; the first: {faults[0]}")


@final
class EvaluationExamples(data.Dataset[Example]):
    """A data set through a test transform, its `learnable` boxes in pixels of the prepared picture.

    skip: whether a loader gets less than it asks for where pictures cannot be read, instead of a UserError.
    """

    def __init__(
        self, dataset: Dataset, prepare: Callable[[NDArray[np.uint8]], Prepared], *, skip: bool = False
    ) -> None:
        self.dataset = dataset
        self.prepare = prepare
        self.skip = skip

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Example:
        truth = self.dataset.truth(index)
        prepared = self.prepare(self.dataset.picture(index))
        boxes, labels = learnable(truth)
        boxes = boxes * torch.tensor(prepared.scale * 2, dtype=torch.float32)
        return Example(prepared.image, boxes, labels, index, truth.image_id, truth.name, prepared.scale)

    def __getitems__(self, indices: list[int]) -> list[Example]:
        """Return a batch, which is what a loader calls."""
        found: list[Example] = []
        for index in indices:
            try:
                found.append(self[index])
            except UserError:
                if not self.skip:
                    raise
        return found


@contextmanager
def _chance_of(seed: int) -> Generator[None]:
    """Let torch's generator of the CPU start from a seed meanwhile, and go on as before afterwards."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)
