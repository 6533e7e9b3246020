"""One training run, from a recipe and a data set to a folder with weights and curves."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException

from gfocal.analysis.doctor.clipping import MUCH, clipped_targets, has_bins
from gfocal.boxrep import BoxRepresentation
from gfocal.checkpoint import load_all_but_classes, load_state, read_weights
from gfocal.config import Recipe, read_recipe
from gfocal.data.dataset import Dataset
from gfocal.data.faults import Faults
from gfocal.data.opening import open_dataset, splits_of
from gfocal.devices import choose_device, choose_precision, described, settle
from gfocal.errors import UserError, first_line, shortened
from gfocal.files import forget_scratch, whole_or_absent
from gfocal.model import Model, build
from gfocal.quality import Quality
from gfocal.recipes import get_recipe
from gfocal.results import alone_in
from gfocal.training.course import Course, make_course
from gfocal.training.loaders import one_opencv_thread
from gfocal.training.logs import check_loggers
from gfocal.training.loop import follow
from gfocal.training.settings import STARTS, Settings, batch_for, read_settings, resolve
from gfocal.training.state import NAME as STATE
from gfocal.training.state import load_state_of
from gfocal.weights import Weights, open_weights

logger = logging.getLogger(__name__)

CLIPPING_SAMPLE = 200
"""Pictures whose boxes are held against the bins before a run."""
KEPT = ("best.safetensors", "last.safetensors")
"""Files of the weights that a run leaves; the first that there is becomes the model's."""


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
    accumulate: int = 1,
    epochs: int | None = None,
    steps: int | None = None,
    freeze: Sequence[str] | None = None,
    average: float | None = None,
    patience: int | None = None,
    on_bad_data: str = "error",
    save_every: int = 200,
    compile: bool = False,
    loggers: Sequence[str] = (),
    resume: bool = False,
    seed: int = 0,
    workers: int = 2,
    precision: str | None = None,
    device: str | None = None,
    devices: int = 1,
    nodes: int = 1,
) -> Model:
    """Train a recipe on a data set and return the model with its best weights, or its last where nothing is validated.

    recipe: name, YAML file or Recipe; its classes become the data set's. data: what --data takes, or open data sets by
    split; "train" is learnt, "val", where there is one, validated. out: the run's folder, made new: recipe.yaml,
    run.json, metrics.csv, tensorboard/, best.safetensors, last.safetensors; while it lasts, state.pt. weights:
    "imagenet" or "none" instead of the recipe's, or what `gfocal.load` takes to go on from; where its classes are
    others, all but the class layers is kept. quality, box: replace the recipe's part by an instance from anywhere, made
    for the data set's classes. size: (short, long) in pixels; the recipe's range of sizes in training is scaled with
    it. batch: pictures of one process at a time; accumulate: such batches to a step. The learning rate follows the
    pictures of a step, batch × accumulate × devices × nodes, in proportion; without `batch` they are as many as the
    recipe's. epochs, steps, freeze, average, patience: instead of the schedule's. on_bad_data: "skip" leaves out,
    counts and lists what of the data cannot be used. save_every: steps between saved states. compile: have PyTorch
    compile the detector, minutes before the first step that pay in long runs; where it cannot, the run does without.
    loggers: "wandb", "mlflow". resume: go on with the run that `out` holds, to the same weights as if it had never
    stopped. precision, device: None chooses. devices, nodes: processes on each machine, machines. UserError for
    anything that does not fit, before anything is written, and where another run is at work in the folder.
    """
    out = Path(out)
    original = get_recipe(recipe)
    if batch is None:
        batch = batch_for(original, processes=devices * nodes, accumulate=accumulate)
    settings = Settings(
        data=None if isinstance(data, Mapping) else str(data),
        seed=seed,
        batch=batch,
        accumulate=accumulate,
        workers=workers,
        precision=precision,
        device=device,
        devices=devices,
        nodes=nodes,
        on_bad_data=on_bad_data,
        save_every=save_every,
        compile=compile,
        loggers=tuple(loggers),
    )
    check_loggers(settings.loggers)
    splits = _open(data, Faults(stop=on_bad_data == "error"))
    resolved = resolve(
        original,
        splits.train.class_names,
        settings,
        weights=weights,
        size=size,
        epochs=epochs,
        steps=steps,
        changes={"freeze": freeze, "average": average, "patience": patience},
    )
    where = choose_device(device)
    dtype = choose_precision(precision, where)
    start = None if resume or weights in (None, *STARTS) else open_weights(weights)
    with _quiet(), one_opencv_thread():
        fabric = _fabric(where, settings)
        with alone_in(out) if fabric.is_global_zero else nullcontext():
            state = _former_state(out, resume=resume, writes=fabric.is_global_zero)
            torch.manual_seed(seed)
            fetch = start is None and state is None
            model = build(resolved, quality=quality, box=box, device="cpu", fetch_weights=fetch)
            _refuse_other_recipe(model.recipe, state, out)
            _go_on_from(start, model)
            fabric.launch()
            course = _begin(fabric, model, settings, splits, out=out, where=where, dtype=dtype, state=state)
            finished = follow(course)
            fabric.barrier()
            _end(course, finished=finished)
    return course.model


def resume(out: str | Path) -> Model:
    """Go on with the run in a folder, as it was told, to the weights it would have come to without a stop.

    UserError where the folder holds no run, the run is finished, or its data was handed over as open data sets.
    """
    out = Path(out)
    settings = read_settings(out)
    if settings["data"] is None:
        raise UserError(f"{out}: its data was not a path: call gfocal.train with the same arguments and resume=True")
    return train(read_recipe(out / "recipe.yaml"), settings.pop("data"), out, resume=True, **settings)


def _fabric(where: torch.device, settings: Settings) -> Fabric:
    many = settings.processes > 1
    one_device = ":" in str(where)
    try:
        return Fabric(
            accelerator=where.type,
            devices=[where.index] if one_device and not many else settings.devices,
            num_nodes=settings.nodes,
            strategy="ddp" if many else "auto",
        )
    except MisconfigurationException as error:
        raise UserError(f"--devices {settings.devices}: {first_line(error)}") from error


def _warn_of_clipping(dataset: Dataset, recipe: Recipe) -> None:
    """Say so where the boxes of a sample of the pictures are too large for the recipe's bins."""
    if not has_bins(recipe):
        return
    clipping = clipped_targets(dataset, recipe, pictures=CLIPPING_SAMPLE)
    if clipping.share > MUCH:
        logger.warning(
            "%.1f %% of the distances to be learnt lie beyond the bins of this recipe (n = %d, delta = %g): such boxes "
            "stay too small; n = %d or delta = %.2g would hold nearly all (`gfocal doctor` tells more)",
            100 * clipping.share,
            clipping.n,
            clipping.delta,
            clipping.smallest_n,
            clipping.smallest_delta,
        )


def _former_state(out: Path, *, resume: bool, writes: bool) -> dict[str, Any] | None:
    """Return what a run to be resumed left, None for a new one; UserError where its folder is taken already."""
    if resume:
        return load_state_of(out)
    if writes and (out / "recipe.yaml").exists():
        raise UserError(f"{out}: holds a run already: name another --out, delete it, or --resume it")
    return None


def _begin(
    fabric: Fabric,
    model: Model,
    settings: Settings,
    splits: _Splits,
    *,
    out: Path,
    where: torch.device,
    dtype: torch.dtype,
    state: dict[str, Any] | None,
) -> Course:
    """Return the run at its first step, its folder made, or as a state left it."""
    settle(where)
    model = Model(model.recipe, model.parts, fabric.device)
    if fabric.is_global_zero:
        logger.info("computing %s", described("PyTorch", where, dtype))
        if state is None:
            _warn_of_clipping(splits.train, model.recipe)
            _make_folder(out, model.recipe, settings)
        for name in (STATE, *KEPT):
            forget_scratch(out / name)
    fabric.barrier()
    course = make_course(
        fabric,
        model,
        settings,
        train_data=splits.train,
        val_data=splits.val,
        out=out,
        dtype=dtype,
        step=0 if state is None else int(state["step"]),
    )
    if state is not None:
        course.load_state(state)
    if fabric.is_global_zero:
        course.left_out.note(splits.faults.found)
    return course


def _make_folder(out: Path, recipe: Recipe, settings: Settings) -> None:
    """Make the run's folder."""
    with whole_or_absent(out / "recipe.yaml") as scratch:
        scratch.write_text(recipe.to_yaml(), encoding="utf-8")
    settings.write(out)


def _end(course: Course, *, finished: bool) -> None:
    """Tell what was left out, and give the model the weights that the run, if it is finished, judged the best."""
    out, detector = course.out, course.model.detector
    if course.fabric.is_global_zero and (summary := course.left_out.summary()):
        logger.warning(summary)
    if finished and course.fabric.is_global_zero:
        (out / STATE).unlink(missing_ok=True)
    if finished:
        files = [out / name for name in KEPT if (out / name).exists()]
        for path in files[:1]:  # none on another machine than the one that writes
            load_state(detector, read_weights(path)[1], where=str(path))
    detector.to(course.fabric.device).eval()


def _refuse_other_recipe(recipe: Recipe, state: dict[str, Any] | None, out: Path) -> None:
    """Raise UserError where a run is to go on with another recipe than it began with."""
    if state is None:
        return
    before = Recipe.from_yaml(state["recipe"], where=str(out / STATE)).model_dump()
    other = [name for name, value in recipe.model_dump().items() if value != before[name]]
    if other:
        raise UserError(f"{out}: the run began with another {other[0]}: resume it with the settings it began with")


def _go_on_from(start: Weights | None, model: Model) -> None:
    """Load weights that were learnt before, if any, and say what of them the classes do not allow to keep."""
    if start is None:
        return
    if start.recipe.class_names == model.class_names:
        load_state(model.detector, start.state, where=str(start.path))
        logger.info("starting from all weights of %s", start.path)
        return
    fresh = load_all_but_classes(model.detector, start.state, where=str(start.path))
    logger.info("starting from %s; its classes are others, so these start anew: %s", start.path, ", ".join(fresh))


class _Splits(NamedTuple):
    """The data of a run: what is learnt, what is validated, if anything, and what of them cannot be used."""

    train: Dataset
    val: Dataset | None
    faults: Faults


def _open(data: str | Path | Mapping[str, Dataset], faults: Faults) -> _Splits:
    """Return the train split, which must hold a picture, and the val split, or None where there is none."""
    if isinstance(data, Mapping):
        if "train" not in data:
            has = ", ".join(data) or "nothing"
            raise UserError(f"data: holds {has}, but no 'train': give that split to learn, and 'val' to validate on")
        where, learnt, validated = "data", data["train"], data.get("val")
    else:
        where, learnt = str(data), open_dataset(data, "train", faults=faults)
        validated = open_dataset(data, "val", faults=faults) if "val" in splits_of(data) else None
    if not len(learnt):
        raise UserError(f"{where}: its train split holds no picture")
    if validated is not None and validated.class_names != learnt.class_names:
        raise UserError(
            f"{where}: its splits must have the same classes in the same order, but train has "
            f"{shortened(', '.join(learnt.class_names))}, and val has {shortened(', '.join(validated.class_names))}"
        )
    return _Splits(learnt, validated, faults)


@contextmanager
def _quiet() -> Generator[None]:
    """Keep Lightning's notes on hardware and its advice on workers off the screen while a run lasts."""
    names = ("lightning.fabric", "lightning.pytorch")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
