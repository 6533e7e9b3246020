"""One training run, from a recipe and a data set to a folder with weights and curves."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from gfocal.boxrep import BoxRepresentation
from gfocal.checkpoint import load_all_but_classes, load_state, read_weights
from gfocal.config import BackboneConfig, PicturesConfig, Recipe, ScheduleConfig
from gfocal.data.dataset import Dataset, open_dataset
from gfocal.devices import choose_device, choose_precision
from gfocal.errors import UserError
from gfocal.files import whole_or_absent
from gfocal.model import Model, build
from gfocal.quality import Quality
from gfocal.recipes import get_recipe
from gfocal.training.callbacks import SaveWeights, ShowProgress
from gfocal.training.datamodule import DetectionData
from gfocal.training.module import DetectorModule
from gfocal.weights import Weights, open_weights

logger = logging.getLogger(__name__)

STARTS = ("imagenet", "none")
"""What training starts from by name instead of by file."""

_LIGHTNING_PRECISION = {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}


def train(
    recipe: str | Path | Recipe,
    data: str | Path | Mapping[str, Dataset],
    out: str | Path,
    *,
    weights: str | Path | None = None,
    quality: Quality | None = None,
    box: BoxRepresentation | None = None,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    workers: int = 2,
    precision: str | None = None,
    device: str | None = None,
) -> Model:
    """Train a recipe on a data set and return the model with its best weights.

    recipe: name, YAML file or Recipe; its classes become the data set's. data: what --data takes, or open data sets
    by split; "train" is learnt, "val", where there is one, validated. out: the run's folder, made new: recipe.yaml,
    metrics.csv, tensorboard/, best.safetensors, last.safetensors. weights: "imagenet" or "none" instead of the
    recipe's, or what `gfocal.load` takes to go on from; where its classes are others, all but the class layers is
    kept. quality, box: replace the recipe's part by an instance from anywhere, made for the data set's classes. size:
    (short, long) in pixels, batch, and epochs or steps instead of the recipe's; the learning rate follows the batch in
    proportion. precision, device: None chooses. UserError for anything that does not fit,
    before the folder is made.
    """
    train_data = data["train"] if isinstance(data, Mapping) else open_dataset(data, "train")
    if not len(train_data):
        raise UserError(f"{data}: its train split holds no picture")
    resolved = _resolve(
        get_recipe(recipe),
        train_data.class_names,
        weights=weights,
        size=size,
        batch=batch,
        epochs=epochs,
        steps=steps,
    )
    val_data = _validation(data) if resolved.schedule.validations else None
    out = Path(out)
    if (out / "recipe.yaml").exists():
        raise UserError(f"{out}: holds a run already: name another --out, or delete it")
    where = choose_device(device)
    dtype = choose_precision(precision, where)
    lightning.seed_everything(seed, workers=True, verbose=False)
    start = None if weights in (None, *STARTS) else open_weights(weights)
    model = build(resolved, quality=quality, box=box, device=where, fetch_weights=start is None)
    if start is not None:
        _go_on_from(start, model)

    schedule = resolved.schedule
    loader = DetectionData(
        train_data,
        val_data,
        pictures=resolved.pictures,
        prepare=model.prepare(),
        batch=schedule.batch,
        workers=workers,
        pin_memory=where.type == "cuda",
    )
    per_epoch = max(len(train_data) // schedule.batch, 1)
    total = schedule.steps or schedule.epochs * per_epoch
    with whole_or_absent(out / "recipe.yaml") as scratch:
        scratch.write_text(model.recipe.to_yaml(), encoding="utf-8")
    # the model may have drawn any number of numbers: without a second seeding the order of the data would hang on it
    lightning.seed_everything(seed, workers=True, verbose=False)
    module = DetectorModule(model, val_data, schedule=schedule, total_steps=total)
    with _quiet():
        trainer = lightning.Trainer(
            accelerator=where.type,
            devices=1,
            precision=_LIGHTNING_PRECISION[dtype],  # type: ignore[arg-type]  its names are literals there
            max_steps=total,
            max_epochs=-1,
            val_check_interval=max(total // schedule.validations, 1) if val_data else None,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            gradient_clip_val=schedule.clip_norm,
            logger=[CSVLogger(out, name="", version=""), TensorBoardLogger(out, name="", version="tensorboard")],
            callbacks=[ShowProgress(total), SaveWeights(model, out)],
            log_every_n_steps=min(10, total),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=loader)
    best = out / "best.safetensors"
    if best.exists():
        load_state(model.detector, read_weights(best)[1], where=str(best))
    model.detector.to(where).eval()
    return model


def _go_on_from(start: Weights, model: Model) -> None:
    """Load weights that were learnt before, and say what of them the classes do not allow to keep."""
    if start.recipe.class_names == model.class_names:
        load_state(model.detector, start.state, where=str(start.path))
        logger.info("starting from all weights of %s", start.path)
        return
    fresh = load_all_but_classes(model.detector, start.state, where=str(start.path))
    logger.info("starting from %s; its classes are others, so these start anew: %s", start.path, ", ".join(fresh))


def _validation(data: str | Path | Mapping[str, Dataset]) -> Dataset | None:
    """Return the val split, or None where the data set names none; a val split that is broken is an error."""
    if isinstance(data, Mapping):
        return data.get("val")
    try:
        return open_dataset(data, "val")
    except UserError as error:
        if "unknown split" in str(error):
            return None
        raise


def _resolve(
    recipe: Recipe,
    class_names: tuple[str, ...],
    *,
    weights: str | Path | None,
    size: tuple[int, int] | None,
    batch: int | None,
    epochs: int | None,
    steps: int | None,
) -> Recipe:
    """Return the recipe of this very run."""
    backbone: BackboneConfig = recipe.backbone
    pictures: PicturesConfig = recipe.pictures
    schedule: ScheduleConfig = recipe.schedule
    changes: dict[str, object] = {}
    if batch is not None:
        changes |= {"batch": batch, "lr": schedule.lr * batch / schedule.batch}
    if epochs is not None:
        changes |= {"epochs": epochs, "steps": None}
    if steps is not None:
        changes |= {"steps": steps}
    values = recipe.model_dump(mode="json")
    values["class_names"] = class_names
    values["backbone"] = backbone.model_dump() | ({"weights": weights} if weights in STARTS else {})
    values["schedule"] = schedule.model_dump() | changes
    if size is not None:
        short, long = size
        if not 32 <= short <= long:
            raise UserError(f"--size {short} {long}: give the short side, at least 32, then the long one")
        values["pictures"] = pictures.model_dump() | {"short": short, "long": long, "train_short": (short, short)}
    return Recipe.from_values(values, where=f"recipe {recipe.name}")


@contextmanager
def _quiet() -> Generator[None]:
    """Keep Lightning's notes on hardware and its advice on workers off the screen while a run lasts."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)
