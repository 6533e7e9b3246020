"""Timings have the parts they name, and a precision is compared by what it finds."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import gfocal
from commands import ran
from gfocal.analysis.answers import same_answers
from gfocal.analysis.benchmark import bare_convolutions
from gfocal.data.scenes import Scenes
from gfocal.errors import UserError
from gfocal.model import Model, load_model
from helpers import save_eager_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_eager_model(folder)
    return folder


def test_all_parts_are_timed_in_turns(run, tmp_path):
    done: list[int] = []
    found = gfocal.benchmark(
        [run, "gfl_r18_mini"], size=(64, 96), turns=3, device="cpu", progress=done.append, backends=("torch",)
    )
    assert done == [1, 2, 3]
    assert [one.work for one in found.timings] == [
        "bare convolutions",
        "reading and preparing",
        "network",
        "post-processing",
        f"{run}: find",
        f"{run}: predict from a JPEG",
        "gfl_r18_mini: find",
        "gfl_r18_mini: predict from a JPEG",
    ]
    for one in found.timings:
        assert 0 < one.quartiles[0] <= one.seconds <= one.quartiles[1]
        assert one.ratio_quartiles[0] <= one.ratio <= one.ratio_quartiles[1]
    assert (found.timings[0].ratio, *found.timings[0].ratio_quartiles) == (1, 1, 1)
    found.save(tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text())["size"] == [64, 96]
    assert "1 x 64x96, median of 3 turns" in found.text()


def test_a_batch_is_told_by_the_picture(run):
    found = gfocal.benchmark(run, size=(64, 64), turns=1, batch=4, device="cpu")
    assert found.batch == 4
    assert not [one for one in found.timings if "JPEG" in one.work]


def test_bare_convolutions_are_those_of_the_network_each_on_its_size(run, monkeypatch):
    model = load_model(run, device="cpu")
    model.detector.train()
    work = bare_convolutions(model, torch.zeros(1, 3, 64, 96))
    assert model.detector.training  # as the user left it
    sizes: list[tuple[int, ...]] = []

    def note(x: torch.Tensor, weight: torch.Tensor, *rest: object) -> None:
        sizes.append((*x.shape, weight.shape[0]))

    monkeypatch.setattr(torch, "conv2d", note)
    work()
    convs = [module for module in model.detector.backbone.modules() if isinstance(module, nn.Conv2d)]
    assert sizes[0] == (1, 3, 64, 96, convs[0].out_channels)
    # of trunk and output layers there is a call for each of five levels
    assert len(sizes) > len(convs) + 5


@pytest.mark.parametrize("size", [(64, 60), (0, 32), (33, 64)])
def test_sizes_the_network_does_not_take_are_refused(run, size):
    with pytest.raises(UserError, match="size must be multiples of 32"):
        gfocal.benchmark(run, size=size)


def test_a_precision_that_is_float32_finds_the_very_same(run):
    answers = same_answers(load_model(run, device="cpu"), Scenes(3), precision="float32")
    assert (answers.pictures, answers.matched, answers.box, answers.edge_std) == (3, 1.0, 0.0, 0.0)
    assert answers.ap == answers.ap_float32
    assert answers.detections == 300


def test_bfloat16_differs_a_little(run):
    model = load_model(run, device="cpu")
    assert isinstance(model, Model)
    answers = same_answers(model, Scenes(5), pictures=2, precision="bfloat16")
    assert answers.pictures == 2
    assert 0 < answers.box < 1
    assert 0 < answers.edge_std < 0.05


def test_the_command_times_and_checks(capsys, run, tmp_path):
    code, out, _ = ran(
        capsys, "benchmark", str(run), "--size", "64", "64", "--turns", "1", "--json", str(tmp_path / "b.json")
    )
    assert code == 0
    assert "bare convolutions" in out
    assert (tmp_path / "b.json").is_file()
    code, _, err = ran(capsys, "benchmark", str(run), "--check")
    assert code == 2
    assert "give --data" in err
    code, _, err = ran(capsys, "benchmark", str(run), "--check", "--data", "scenes", "--precision", "float32")
    assert (code, "float32 is what --check compares with" in err) == (2, True)
    code, _, err = ran(capsys, "benchmark", str(run), "--check", "--backend", "compile")
    assert (code, "leave the rest out" in err) == (2, True)
