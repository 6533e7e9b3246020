"""A data set of files reads each when it is asked for, and survives pickling."""

from __future__ import annotations

import os
import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gfocal.data.dataset import Annotated, FolderDataset, Record, records_of
from gfocal.structures import Truth


def test_category_ids_default_to_the_labels() -> None:
    assert FolderDataset(("a", "b", "c"), ()).category_ids == (0, 1, 2)
    assert FolderDataset(("a", "b"), (), (5, 9)).category_ids == (5, 9)


def test_records_keep_what_a_reader_found_and_share_no_memory() -> None:
    first = Annotated(Path("a.png"), 1, "a.png", (3, 4), [(0, 0.5, 1, 2), (1, 1, 1, 1)], [2, 0], [False, True], [7, 9])
    found = records_of([first, Annotated(Path("b.png"), 2, "b.png", (5, 6), [], [], [], []), first])
    assert [record.truth.boxes.tolist() for record in found] == [
        [[0, 0.5, 1, 2], [1, 1, 1, 1]],
        [],
        found[0].truth.boxes.tolist(),
    ]
    assert [record.truth.labels.tolist() for record in found] == [[2, 0], [], [2, 0]]
    assert [record.truth.crowd.tolist() for record in found] == [[False, True], [], [False, True]]
    assert [flat(record.truth.ids) for record in found] == [[7, 9], [], [7, 9]]
    assert [(record.truth.image_id, record.truth.name, record.truth.size) for record in found[:2]] == [
        (1, "a.png", (3, 4)),
        (2, "b.png", (5, 6)),
    ]
    assert found[1].truth.boxes.shape == (0, 4)
    assert (found[0].truth.boxes.dtype, found[0].truth.labels.dtype, found[0].truth.crowd.dtype) == (
        torch.float32,
        torch.int64,
        torch.bool,
    )
    assert found[0].truth.boxes.untyped_storage().nbytes() == 2 * 4 * 4
    assert records_of([]) == ()


def records(counts: list[int]) -> tuple[Record, ...]:
    return tuple(
        Record(
            Path(f"/data/{index}.png"),
            Truth(
                index,
                f"{index}.png",
                (12, 16),
                torch.rand(count, 4),
                torch.arange(count),
                torch.rand(count) > 0.5,
                torch.rand(count, 4) if index % 2 else None,
                ids=torch.arange(count) + 5 if index % 3 else None,
            ),
        )
        for index, count in enumerate(counts)
    )


def flat(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("counts", [[], [0], [2, 0, 3, 1]])
def test_pickling_keeps_everything(counts: list[int]) -> None:
    dataset = FolderDataset(("a", "b", "c"), records(counts), (4, 6, 8))
    copied = pickle.loads(pickle.dumps(dataset))
    assert (copied.class_names, copied.category_ids, len(copied)) == (("a", "b", "c"), (4, 6, 8), len(counts))
    for ours, theirs in zip(copied.records, dataset.records, strict=True):
        assert ours.path == theirs.path
        assert {k: flat(v) for k, v in vars(ours.truth).items()} == {k: flat(v) for k, v in vars(theirs.truth).items()}
        assert ours.truth.boxes.dtype == torch.float32


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_sending_to_a_worker_and_reading_hold_no_open_file(tmp_path: Path) -> None:
    pixels = np.zeros((12, 16, 3), dtype=np.uint8)
    for index in range(3):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    paths = [(tmp_path / f"{index}.png", index, f"{index}.png") for index in range(3)]
    dataset = FolderDataset(("a",), records_of([Annotated(*path, (12, 16), [], [], [], []) for path in paths]))
    before = len(os.listdir("/proc/self/fd"))
    sent = [ForkingPickler.dumps(FolderDataset(("a",), records([1] * 300)))]
    for index in range(3):
        dataset.picture(index)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(bytes(sent[0])) < 300 * 400
