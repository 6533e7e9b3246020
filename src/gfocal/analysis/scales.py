"""How large a reproduction is: the papers' own scale, or one that two CPU cores run in minutes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gfocal.analysis.pretraining import STEPS, pretrain_backbone
from gfocal.config import BackboneConfig, Recipe
from gfocal.data.dataset import Dataset
from gfocal.data.opening import open_dataset
from gfocal.data.remembered import Remembered
from gfocal.data.scenes import Scenes
from gfocal.errors import UserError, unknown
from gfocal.progress import ProgressBar
from gfocal.recipes.shared import MINI_HEAD, MINI_PICTURES, MINI_SCHEDULE, RESNET50

SCENE_SIDE = 128
"""Pixels: at less, the smallest shapes would be a stride of the finest level."""
TRAIN_SCENES = 4000
TEST_SCENES = 1000
"""So many that chance in the choice of pictures moves the AP of one model by less than its seed does."""
TRAIN_SEED, TEST_SEED = 101, 102
"""Of the generator: no scene of training or of the data set `scenes` comes up in the test."""

UNJUDGED_SCHEDULE = MINI_SCHEDULE.model_copy(update={"validations": 0})
"""Without validations: the last weights are what a table compares."""
MINI_NOTE = (
    "Backbones are ResNet-18, or ResNet-34 for those deeper than ResNet-50, of half width (SSD's VGG-16 of an eighth), "
    "and schedules are the same: rows that differ in nothing else are one model, trained once."
)


@dataclass(frozen=True)
class Scale:
    """What a row of a table is trained as, on what, and in which precision (None: the device's own).

    shrink: from a recipe of the paper's size, and the folder in which weights of backbones lie. prepare: makes those
    that a shrunk recipe starts from, out of the training pictures, where they are missing. train, test: open the
    pictures of what the user named, or the scale's own where nothing was named. speed_size: height and width of the
    pictures that speed is measured on. name: how a figure calls the models. workers: processes that read pictures
    while a run trains. note: what a table of this scale must say
    of it.
    """

    shrink: Callable[[Recipe, Path], Recipe]
    prepare: Callable[[Recipe, Dataset], None]
    train: Callable[[str | Path | None], Dataset]
    test: Callable[[str | Path | None], Dataset]
    speed_size: tuple[int, int]
    name: str
    workers: int = 0
    precision: str | None = None
    note: str = ""


def mini_recipe(recipe: Recipe, folder: Path) -> Recipe:
    """Return a recipe small enough for two CPU cores, the three axes as they were.

    Backbones become ResNet-18 or, for those deeper than ResNet-50, ResNet-34 of half width, SSD's VGG-16 an eighth as
    wide; deformable stages stay. They start from weights in `folder`, which have seen the shapes but no detector, and
    are frozen as the papers' are. Pyramid, towers, pictures and schedule are the same for all rows; SSD's pictures
    keep their size, which its anchors are made for.
    """
    old = recipe.backbone
    pictures = MINI_PICTURES
    if old.name == "ssd_vgg16":
        name, width = old.name, 0.125
        pictures = recipe.pictures.model_copy(update={"std": MINI_PICTURES.std})
    else:
        name, width = "resnet18" if old.name == RESNET50.name else "resnet34", 0.5
    backbone = BackboneConfig(
        name=name,
        weights=str(folder / f"{name}.safetensors"),
        frozen_stages=old.frozen_stages,
        width=width,
        deformable=old.deformable,
        deformable_version=old.deformable_version,
    )
    changes = {
        "backbone": backbone,
        "head": MINI_HEAD,
        "pictures": pictures,
        "schedule": UNJUDGED_SCHEDULE,
        "expected": (),
    }
    return recipe.model_copy(update=changes)


def _pretrain(recipe: Recipe, dataset: Dataset) -> None:
    """Make the weights that a mini recipe's backbone starts from, unless they are there."""
    path = Path(recipe.backbone.weights)
    if path.exists():
        return
    pictures = recipe.pictures
    with ProgressBar(STEPS, f"backbone {recipe.backbone.name}") as bar:
        pretrain_backbone(
            recipe.backbone, dataset, path, mean=pictures.mean, std=pictures.std, steps=STEPS, progress=bar.update
        )


def _own_recipe(recipe: Recipe, folder: Path) -> Recipe:
    return recipe


def _no_preparation(recipe: Recipe, dataset: Dataset) -> None:
    return


def _mini_train(data: str | Path | None) -> Dataset:
    if data in (None, "scenes"):
        return Remembered(Scenes(TRAIN_SCENES, seed=TRAIN_SEED, size=(SCENE_SIDE, SCENE_SIDE)))
    return Remembered(open_dataset(data, "train"))  # type: ignore[arg-type]  None is dealt with


def _mini_test(data: str | Path | None) -> Dataset:
    if data in (None, "scenes"):
        return Remembered(Scenes(TEST_SCENES, seed=TEST_SEED, size=(SCENE_SIDE, SCENE_SIDE)))
    return Remembered(open_dataset(data, "val"))  # type: ignore[arg-type]  None is dealt with


def _coco(split: str) -> Callable[[str | Path | None], Dataset]:
    def opened(data: str | Path | None) -> Dataset:
        if data is None:
            raise UserError("scale 'paper' trains on COCO 2017: give its folder as data")
        return open_dataset(data, split)

    return opened


SCALES: Mapping[str, Scale] = {
    # in float32, so that runs of several machines can stand in one table
    "mini": Scale(
        mini_recipe,
        _pretrain,
        _mini_train,
        _mini_test,
        speed_size=(256, 256),
        name="ResNet-18 for R-50, ResNet-34 for the rest",
        precision="float32",
        note=MINI_NOTE,
    ),
    "paper": Scale(
        _own_recipe,
        _no_preparation,
        _coco("train"),
        _coco("val"),
        speed_size=(800, 1216),
        name="the paper's models",
        workers=4,
    ),
}


def get_scale(name: str) -> Scale:
    """Return a scale by its name; UserError names the nearest one where it is unknown."""
    if name not in SCALES:
        raise unknown("scale", name, SCALES)
    return SCALES[name]
