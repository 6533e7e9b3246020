"""Shapes are checked at run time in tests only; the fixtures are a model small enough to train in a test."""

from __future__ import annotations

import copy
import importlib
import os
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

from beartype import BeartypeConf, beartype
from hypothesis import settings
from jaxtyping import config, install_import_hook

# Shapes and types are checked, a whole number counting as a float. The hook wants the name of an importable checker.
checker = types.ModuleType("gfocal_checker")
checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))
sys.modules[checker.__name__] = checker
# the hook does not read what Python has compiled of the modules that gfocal imports: the large ones come before it
for name in ("torch._dynamo", "timm", "lightning.pytorch"):
    importlib.import_module(name)
# before anything imports gfocal: modules that are loaded already stay unchecked
install_import_hook("gfocal", "gfocal_checker.check")

import pytest  # noqa: E402
import torch  # noqa: E402

from gfocal.builder import Parts, build_parts  # noqa: E402
from gfocal.config import BackboneConfig, HeadConfig, Recipe  # noqa: E402
from gfocal.recipes import get_recipe  # noqa: E402

settings.register_profile("default", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
torch.set_num_threads(1)
# what a shell starts in the background ignores Ctrl-C, and so would all that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@contextmanager
def unchecked() -> Iterator[None]:
    """Leave out the checks of shapes that tests have, which would become a part of what is traced meanwhile."""
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Leave shapes unchecked, as they are outside of tests, to see what the code itself says of a wrong one."""
    with unchecked():
        yield


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """GFL V2 with three classes, a fraction of the mini recipe's channels and one convolution a tower."""
    return get_recipe("gflv2_r18_mini").model_copy(
        update={
            "name": "tiny",
            "class_names": ("circle", "square", "star"),
            "backbone": BackboneConfig(name="resnet18", weights="none", width=0.25),
            "head": HeadConfig(channels=64, depth=1),
        }
    )


@pytest.fixture(scope="session")
def tiny_recipe_v1(tiny_recipe: Recipe) -> Recipe:
    return tiny_recipe.model_copy(update={"name": "tiny_v1", "quality": {"name": "joint"}})


@pytest.fixture(scope="session")
def _built_parts(tiny_recipe: Recipe) -> Parts:
    torch.manual_seed(0)
    return build_parts(tiny_recipe)


@pytest.fixture
def tiny_parts(_built_parts: Parts) -> Parts:
    """Fresh parts of the tiny recipe, with the same weights in every test."""
    return copy.deepcopy(_built_parts)
