"""Examples of any size share one zero-padded batch, and a loader's workers give the same ones for the same seed."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from gfocal.data.collate import Batch, Example, collate, pad_size
from gfocal.data.dataset import FolderDataset, Record
from gfocal.data.examples import Draw, EvaluationExamples, TrainingExamples
from gfocal.data.preparing import Prepare
from gfocal.data.transforms import TrainTransform
from gfocal.structures import Truth

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
TRANSFORM = TrainTransform((20, 60), 90, MEAN, STD, jitter=(0.8, 1.2), color=0.3)


def example(height: int, width: int, count: int = 2) -> Example:
    return Example(
        torch.rand(3, height, width) + 1,
        torch.rand(count, 4),
        torch.arange(count),
        7,
        height,
        f"{width}.png",
        (2.0, 0.5),
    )


def folder_dataset(folder: Path, *, count: int = 4) -> FolderDataset:
    records = []
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (30, 40 + index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        boxes = torch.tensor([[2.0, 3.0, 20.0, 25.0], [5.0, 5.0, 30.0, 28.0], [10.0, 1.0, 39.0, 9.0]])
        crowd = torch.tensor([False, True, False])
        truth = Truth(100 + index, f"{index}.png", (30, 40 + index), boxes, torch.tensor([0, 1, 2]), crowd)
        records.append(Record(folder / f"{index}.png", truth))
    return FolderDataset(("a", "b", "c"), tuple(records))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(0, 3)), min_size=1, max_size=4),
    st.sampled_from([1, 16, 32]),
)
def test_every_example_lies_in_its_corner(shapes: list[tuple[int, int, int]], multiple: int) -> None:
    examples = [example(*shape) for shape in shapes]
    batch = collate(examples, multiple=multiple)
    height, width = batch.images.shape[2:]
    assert batch.images.shape[:2] == (len(shapes), 3)
    assert len(batch) == len(shapes)
    for side, longest in ((height, max(h for h, _, _ in shapes)), (width, max(w for _, w, _ in shapes))):
        assert side % multiple == 0
        assert 0 <= side - longest < multiple
    for row, (ours, (h, w, count)) in enumerate(zip(examples, shapes, strict=True)):
        assert torch.equal(batch.images[row, :, :h, :w], ours.image)
        assert batch.images[row].sum() == pytest.approx(ours.image.sum().item(), rel=1e-4)  # zeros elsewhere
        assert batch.sizes[row] == (h, w)
        truth = batch.truths[row]
        assert truth["boxes"] is ours.boxes
        assert truth["labels"].shape == (count,)
        for padded, side in zip(truth["size"], (h, w), strict=True):
            assert padded % multiple == 0
            assert 0 <= padded - side < multiple
    assert batch.image_ids == [h for h, _, _ in shapes]
    assert batch.names == [f"{w}.png" for _, w, _ in shapes]
    assert (batch.indices, batch.scales) == ([7] * len(shapes), [(2.0, 0.5)] * len(shapes))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([1, 8, 32, 64]))
def test_pad_size_is_the_next_multiple(height: int, width: int, multiple: int) -> None:
    for old, new in zip((height, width), pad_size((height, width), multiple=multiple), strict=True):
        assert new % multiple == 0
        assert 0 <= new - old < multiple


def test_default_multiple_is_32() -> None:
    batch = collate([example(33, 64), example(20, 70)])
    assert batch.images.shape == (2, 3, 64, 96)
    assert [truth["size"] for truth in batch.truths] == [(64, 64), (32, 96)]
    assert all(type(side) is int for truth in batch.truths for side in truth["size"])


def test_to_returns_a_moved_copy() -> None:
    batch = collate([example(20, 30), example(10, 10, 0)])
    moved = batch.to("meta", non_blocking=True)
    assert moved.images.device.type == "meta"
    assert all(truth[key].device.type == "meta" for truth in moved.truths for key in ("boxes", "labels"))
    assert moved.images.shape == batch.images.shape
    assert [truth["size"] for truth in moved.truths] == [(32, 32), (32, 32)]
    assert (moved.sizes, moved.indices, moved.names) == (batch.sizes, batch.indices, batch.names)
    assert batch.images.device.type == batch.truths[0]["boxes"].device.type == "cpu"
    assert torch.equal(batch.to(torch.device("cpu")).images, batch.images)


@pytest.mark.gpu
def test_pinned_by_a_loader() -> None:
    loader = DataLoader([example(20, 30), example(10, 10, 0)], batch_size=2, collate_fn=collate, pin_memory=True)
    batch = next(iter(loader))
    assert batch.images.is_pinned()
    assert all(truth["boxes"].is_pinned() for truth in batch.truths if len(truth["boxes"]))
    assert batch.to("cuda", non_blocking=True).images.is_cuda


def test_training_examples_leave_crowds_out_and_name_the_picture(tmp_path: Path) -> None:
    dataset = folder_dataset(tmp_path)
    plain = TrainTransform((30, 30), 90, MEAN, STD, flip=0.0)
    examples = TrainingExamples(dataset, plain)
    assert len(examples) == 4
    ours = examples[Draw(2, 0)]
    assert (ours.image_id, ours.name) == (102, "2.png")
    assert ours.labels.tolist() == [0, 2]
    assert torch.allclose(ours.boxes, dataset.truth(2).boxes[[0, 2]])
    assert ours.image.shape == (3, 30, 42)
    assert len(dataset.truth(2).boxes) == 3


def test_examples_survive_pickling_for_a_started_worker(tmp_path: Path) -> None:
    examples = TrainingExamples(folder_dataset(tmp_path), TRANSFORM)
    first = examples[Draw(3, 7)]  # the steps of the transform are built by now
    again = pickle.loads(pickle.dumps(examples))[Draw(3, 7)]
    assert torch.equal(again.image, first.image)
    assert torch.equal(again.boxes, first.boxes)


def test_the_chance_of_an_example_hangs_on_its_draw_alone(tmp_path: Path) -> None:
    examples = TrainingExamples(folder_dataset(tmp_path), TRANSFORM)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = examples[Draw(3, 7)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    examples[Draw(1, 3)]
    again = examples[Draw(3, 7)]
    assert torch.equal(again.image, first.image)
    assert any(not torch.equal(examples[Draw(3, seed)].image, first.image) for seed in range(8, 12))


def test_evaluation_examples_hold_scaled_boxes(tmp_path: Path) -> None:
    dataset = folder_dataset(tmp_path)
    prepare = Prepare(45, 100, MEAN, STD)
    ours = EvaluationExamples(dataset, prepare)[1]
    assert len(EvaluationExamples(dataset, prepare)) == 4
    assert torch.equal(ours.image, prepare(dataset.picture(1)).image)
    height, width = ours.image.shape[1:]
    assert (height, width) == (45, 62)
    wanted = dataset.truth(1).boxes[[0, 2]] * torch.tensor([62 / 41, 1.5, 62 / 41, 1.5])
    assert torch.allclose(ours.boxes, wanted)
    assert (ours.labels.tolist(), ours.image_id, ours.name) == ([0, 2], 101, "1.png")


def loaded(dataset: FolderDataset, *, workers: int) -> list[Batch]:
    draws = [[Draw(0, 1), Draw(1, 2)], [Draw(2, 3), Draw(3, 4)], [Draw(0, 5), Draw(1, 6)]]
    examples = TrainingExamples(dataset, TRANSFORM)
    return list(DataLoader(examples, batch_sampler=draws, collate_fn=collate, num_workers=workers))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_any_number_of_workers_gives_the_same_batches(tmp_path: Path) -> None:
    dataset = folder_dataset(tmp_path)
    alone, several = loaded(dataset, workers=0), loaded(dataset, workers=2)
    assert [batch.names for batch in several] == [["0.png", "1.png"], ["2.png", "3.png"], ["0.png", "1.png"]]
    for ours, theirs in zip(alone, several, strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(ours.truths, theirs.truths, strict=True))


def failure(examples: TrainingExamples, *, workers: int) -> str:
    """Return the kind and text of the error that loading all examples ends with."""
    draws = [[Draw(0, 0), Draw(1, 0)], [Draw(2, 0), Draw(3, 0)]]
    batches = iter(DataLoader(examples, batch_sampler=draws, collate_fn=collate, num_workers=workers))
    try:
        for _ in batches:
            pass
    except Exception as error:
        # Without its traceback, which would keep the worker alive until the garbage is collected.
        return f"{type(error.with_traceback(None)).__name__}: {error}"
    return "none"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_picture_is_named(tmp_path: Path, workers: int) -> None:
    dataset = folder_dataset(tmp_path)
    (tmp_path / "1.png").write_text("no picture")
    text = failure(TrainingExamples(dataset, TRANSFORM), workers=workers)
    assert text.startswith("UserError: ")
    assert f"{tmp_path / '1.png'}: not a picture" in text.splitlines()[-1]


def failing(picture: NDArray[np.uint8], boxes: Tensor, labels: Tensor) -> Example:
    if picture.shape[1] == 42:
        raise ZeroDivisionError("no such luck")
    return TRANSFORM(picture, boxes, labels)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_transformed_is_named(tmp_path: Path, workers: int) -> None:
    text = failure(TrainingExamples(folder_dataset(tmp_path), failing), workers=workers)
    assert text.startswith("RuntimeError: ")
    assert "picture '2.png' (index 2) cannot be transformed: no such luck" in text.splitlines()[-1]


def test_examples_of_a_changed_picture_are_independent() -> None:
    ours = example(20, 30)
    batch = collate([ours, replace(ours, name="twin")])
    batch.images[0] = 0
    assert batch.images[1].sum() > 0
    assert ours.image.min() >= 1
