"""What a run writes down is there once, however often the run was interrupted."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from gfocal.data.faults import Fault
from gfocal.training.journal import Journal
from gfocal.training.left_out import LeftOut


def steps(out: Path, first: int, last: int) -> None:
    with Journal(out, [], total_steps=60, start=first, writes=True) as journal:
        for step in range(first + 1, last + 1):
            journal.step(step, {"cls": torch.tensor(float(step))}, lr=0.1, waited=0.1, worked=0.9)


def test_rows_after_the_saved_state_are_written_anew(tmp_path: Path) -> None:
    steps(tmp_path, 0, 50)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("60,1")  # killed within a line
    steps(tmp_path, 20, 60)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [10, 20, 30, 40, 50, 60]
    assert [float(row["train/cls"]) for row in rows] == [5.5, 15.5, 25.5, 35.5, 45.5, 55.5]


def test_what_is_left_out_is_listed_once_for_each_process(tmp_path: Path) -> None:
    faults = [Fault("small", "a.png", "1 box"), Fault("small", "b.png", "2 boxes")]
    LeftOut(tmp_path).note(faults[:1])
    again = LeftOut(tmp_path, goes_on=True)
    again.note([*faults, *faults])
    LeftOut(tmp_path / "other machine", rank=1).note(faults)
    for file in (tmp_path / "left_out.csv", tmp_path / "other machine" / "left_out-1.csv"):
        assert file.read_text().splitlines() == ["kind,where,what", "small,a.png,1 box", "small,b.png,2 boxes"]
    assert "2 small" in again.summary()
