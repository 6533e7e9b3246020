"""A compiled run comes to what a plain one does, and one without a compiler is a plain one."""

from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import gfocal
from common import unchecked
from gfocal.config import ScheduleConfig
from gfocal.structures import Raw

OPTIONS = {"workers": 0, "device": "cpu", "precision": "float32"}


def test_without_a_compiler_a_run_goes_on(recipe, data, tmp_path, monkeypatch, caplog) -> None:
    def no_compiler(forward: object) -> object:
        def call(images: Tensor) -> Raw:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

        return call

    gfocal.train(recipe, data, tmp_path / "plain", **OPTIONS)
    monkeypatch.setattr(torch, "compile", no_compiler)
    with caplog.at_level(logging.WARNING, "gfocal.training"):
        gfocal.train(recipe, data, tmp_path / "compiled", compile=True, **OPTIONS)
    assert [record.message for record in caplog.records] == [
        "PyTorch cannot compile here (InvalidCxxCompiler: No working C++ compiler found): going on without"
    ]
    plain, compiled = (load_file(tmp_path / name / "last.safetensors") for name in ("plain", "compiled"))
    assert all(torch.equal(plain[name], compiled[name]) for name in plain)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # PyTorch warns itself while it compiles
def test_a_compiled_run_learns_the_same(recipe, data, tmp_path, caplog) -> None:
    # AdamW would make a whole step of a gradient that is nothing but rounding
    schedule = ScheduleConfig(optimizer="sgd", lr=0.01, batch=4, steps=3, warmup=1, validations=1)
    recipe = recipe.model_copy(update={"schedule": schedule})
    with unchecked(), caplog.at_level(logging.WARNING, "gfocal.training"):
        for name in ("plain", "compiled"):
            gfocal.train(recipe, data, tmp_path / name, compile=name == "compiled", **OPTIONS)
    assert not [record for record in caplog.records if record.name.startswith("gfocal")]  # as of going on without
    plain, compiled = (load_file(tmp_path / name / "last.safetensors") for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    for name in plain:
        torch.testing.assert_close(plain[name], compiled[name], rtol=1e-2, atol=1e-3)
