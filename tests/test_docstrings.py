"""Every example in a docstring says what happens, and what users call has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import gfocal
from gfocal import boxrep, edges, finding, labelling, structures
from gfocal.ops import voting

SOURCE = Path(gfocal.__file__).parent
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def with_examples() -> list[str]:
    """Return the modules that have an example, found without importing any."""
    files = [path for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
    names = [path.relative_to(SOURCE.parent).with_suffix("").as_posix().replace("/", ".") for path in files]
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.parametrize("name", with_examples())
def test_the_examples_of_a_module_hold(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert result.attempted > 0
    assert result.failed == 0


CALLED = [
    *(f"edges.EdgeDistributions.{name}" for name in dir(edges.EdgeDistributions)),
    *(f"structures.Detections.{name}" for name in ("measurement_covariance", "to_coco", "to_dict", "to_supervision")),
    *(f"labelling.{name}" for name in dir(labelling) if name.startswith(("to_", "write_", "label_"))),
    *("voting.vote", "voting.mixtures", "finding.to_json"),
    *(f"boxrep.{kind}.distribution" for kind in ("Gaussian", "General")),
]
HOMES = {
    "edges": edges,
    "finding": finding,
    "structures": structures,
    "labelling": labelling,
    "voting": voting,
    "boxrep": boxrep,
}


@pytest.mark.parametrize("path", CALLED)
def test_what_is_called_has_an_example(path: str) -> None:
    home, *names = path.split(".")
    value: object = HOMES[home]
    for name in names:
        value = getattr(value, name)
    if names[-1].startswith("_") or not inspect.isfunction(value):
        return
    assert ">>> " in (inspect.getdoc(value) or ""), path


@pytest.mark.parametrize("name", ["calibrate", "rescore", "audit", "explain"])
def test_what_this_package_adds_to_a_detector_has_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(getattr(gfocal, name)) or "")
