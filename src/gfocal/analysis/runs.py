"""Trained and scored models of recipes and seeds, each in a folder of its own: what is there is not done again."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from queue import Empty
from typing import Any, TypeAlias

import torch
from filelock import FileLock

from gfocal.analysis.comparison import Matches, MatchRecorder
from gfocal.analysis.positives import pearson, positives
from gfocal.analysis.scales import get_scale
from gfocal.config import Recipe, read_recipe
from gfocal.data.dataset import Dataset
from gfocal.devices import threads_each
from gfocal.errors import UserError
from gfocal.evaluation import CocoEvaluator
from gfocal.files import whole_or_absent
from gfocal.model import load_model
from gfocal.progress import ProgressBar
from gfocal.recipes.tables import TABLES, get_table
from gfocal.testing import detect
from gfocal.training.run import train
from gfocal.training.state import NAME as STATE

EVALUATION_BATCH = 16


@dataclass(frozen=True)
class Plan:
    """How the recipes of a reproduction are trained: on what, how long, where."""

    scale: str
    data: str | None
    folder: Path
    steps: int | None = None
    device: str | None = None

    @property
    def home(self) -> Path:
        """Where all of this scale lies: runs, backbones, tables and figures; one name for it from everywhere."""
        return self.folder.resolve() / self.scale


@dataclass(frozen=True)
class Run:
    """One recipe, of the paper's scale, trained from one seed."""

    recipe: Recipe
    seed: int

    @property
    def name(self) -> str:
        """What the user is told of it."""
        return f"{self.recipe.name}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What a finished run came to.

    metrics: as `Metrics.to_dict`. pcc: Pearson correlation of score and IoU at the positives. seconds: of training,
    since it last began, and of evaluation. steps: of training.
    """

    metrics: dict[str, Any]
    pcc: float | None
    seconds: dict[str, float]
    steps: int


Message: TypeAlias = "tuple[Run, str | None]"
"""A run that ended, and the error it ended with."""

STOPPED = "asked to stop: repeat the command to go on"
"""The error of a run that was, and so does what does the runs."""


def folder_of(run: Run, plan: Plan) -> Path:
    """Return where a run lies; rows of the papers that are one model at the plan's scale share it."""
    return plan.home / _name_at(run.recipe, plan.scale) / f"seed{run.seed}"


def _name_at(recipe: Recipe, scale: str) -> str:
    """Return what a recipe is called at a scale: as the first row of the papers that is the same model there."""
    return _first_names(scale).get(_content(recipe, scale), recipe.name)


@cache
def _first_names(scale: str) -> Mapping[str, str]:
    """Return what the first row of the papers' tables that becomes a model is called, by that model."""
    rows = [row for name in TABLES for row in get_table(name).rows]
    found: dict[str, str] = {}
    for recipe in (row.recipe for row in rows if row.recipe is not None):
        found.setdefault(_content(recipe, scale), recipe.name)
    return found


def _content(recipe: Recipe, scale: str) -> str:
    """Return a recipe at a scale without what it is called and who published what of it."""
    shrunk = get_scale(scale).shrink(recipe, Path())
    return shrunk.model_copy(update={"name": "", "expected": ()}).model_dump_json()


def outcome_of(run: Run, plan: Plan) -> Outcome | None:
    """Return what a run came to, None where it is not done; UserError where the folder holds another run."""
    folder = folder_of(run, plan)
    file = folder / "outcome.json"
    if not file.exists():
        return None
    there = read_recipe(folder / "recipe.yaml")
    if not _alike(there, recipe_at_scale(run.recipe, plan, class_names=there.class_names)):
        raise UserError(f"{folder}: holds a run of other settings: name another folder, or delete it")
    return Outcome(**json.loads(file.read_text(encoding="utf-8")))


def matches_of(run: Run, plan: Plan) -> Matches:
    """Return what a finished run hit in the test pictures."""
    return Matches.load(folder_of(run, plan) / "matches.npz")


def perform(runs: Sequence[Run], plan: Plan, *, jobs: int = 1) -> list[str]:
    """Train and score the runs that are not done, `jobs` of them at a time, and return what went wrong with which.

    Each has its share of the threads. One that was interrupted goes on where its state was last saved. UserError where
    the plan's folder holds runs on other data, or the work was asked to stop.
    """
    _refuse_other_data(plan)
    once = {folder_of(run, plan): run for run in runs}
    todo = [run for run in once.values() if outcome_of(run, plan) is None]
    failed: list[str] = []
    if todo:
        _prepare(todo, plan)
        _write_json(plan.home / "data.json", {"data": _data_of(plan)})
    with ProgressBar(len(todo), "runs") as bar:
        for done, (run, error) in enumerate(_messages(todo, plan, jobs=min(jobs, len(todo))), start=1):
            bar.update(done, run.name)
            if error == STOPPED:
                raise UserError(f"{run.name}: {STOPPED}")
            failed += [] if error is None else [f"{run.name}: {error}"]
    return failed


def refuse_failed(failed: Sequence[str]) -> None:
    """Raise UserError for what `perform` returns, where that is anything."""
    if failed:
        raise UserError(f"{len(failed)} {'run' if len(failed) == 1 else 'runs'} failed: {'; '.join(failed)}")


def _refuse_other_data(plan: Plan) -> None:
    """Raise UserError where the plan's folder holds runs on other data."""
    note = plan.home / "data.json"
    there = json.loads(note.read_text(encoding="utf-8"))["data"] if note.exists() else _data_of(plan)
    if there != _data_of(plan):
        named = "the scale's own data" if there is None else there
        raise UserError(f"{plan.home}: holds runs on {named}: name another folder, or the same data")


def _data_of(plan: Plan) -> str | None:
    """Return what a plan's runs are on, None for the scale's own."""
    return None if plan.data in (None, "scenes") else str(Path(str(plan.data)).resolve())


def _prepare(todo: Sequence[Run], plan: Plan) -> None:
    """Make the weights that the runs start from; UserError where the data has no pictures to train or to test on."""
    scale = get_scale(plan.scale)
    dataset = scale.train(plan.data)
    scale.test(plan.data)
    for run in todo:
        scale.prepare(recipe_at_scale(run.recipe, plan, class_names=dataset.class_names), dataset)


def _messages(todo: Sequence[Run], plan: Plan, *, jobs: int) -> Iterator[Message]:
    """Yield the runs as they end; where this process is asked to stop, those that train save what they have."""
    if jobs <= 1:
        yield from _work(iter(todo), plan)
        return
    context = multiprocessing.get_context("spawn")
    queue, ended = context.Queue(), context.Queue()
    for run in [*todo, *[None] * jobs]:
        queue.put(run)
    arguments = (queue, ended, plan, threads_each(jobs))
    workers = [context.Process(target=_worker, args=arguments, daemon=True) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    try:
        for _ in todo:
            yield _next_ended(ended, workers)
    except BaseException:
        for worker in workers:
            worker.terminate()
        raise
    finally:
        for worker in workers:
            worker.join()


def _next_ended(ended: Any, workers: Sequence[Any]) -> Message:
    """Wait for the next run to end; UserError where a worker died."""
    while True:
        try:
            return ended.get(timeout=1)
        except Empty:
            codes = [worker.exitcode for worker in workers if worker.exitcode]
            if codes:
                raise UserError(
                    f"a process that trained ended with {codes[0]}, as when memory runs out: fewer jobs need less; "
                    "what is done stays, so repeat the command"
                ) from None


def _worker(queue: Any, ended: Any, plan: Plan, threads: int) -> None:
    """Do runs from a queue until it hands out None."""
    torch.set_num_threads(threads)
    for message in _work(iter(queue.get, None), plan):
        ended.put(message)


def _work(runs: Iterator[Run], plan: Plan) -> Iterator[Message]:
    """Do one run after the other; the pictures are opened once for all."""
    scale = get_scale(plan.scale)
    train_data, test_data = scale.train(plan.data), scale.test(plan.data)
    for run in runs:
        log = folder_of(run, plan).with_suffix(".log")
        try:
            finished = _done_alone(run, plan, train_data, test_data, log)
        except Exception as error:  # one run that fails must not stop the others; its log says where
            yield run, f"{error} (see {log})"
            continue
        yield run, None if finished else STOPPED
        if not finished:
            return


def _done_alone(run: Run, plan: Plan, train_data: Dataset, test_data: Dataset, log: Path) -> bool:
    """Do a run that no other command is at, if it is not done by then, and return what `_do` does."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(log.with_suffix(".lock")):
        if outcome_of(run, plan) is not None:
            return True
        with log.open("w", encoding="utf-8") as file, contextlib.redirect_stderr(file):
            try:
                return _do(run, plan, train_data, test_data)
            except Exception:
                traceback.print_exc(file=file)
                raise


def recipe_at_scale(recipe: Recipe, plan: Plan, *, class_names: tuple[str, ...]) -> Recipe:
    """Return what a recipe of the paper's scale is trained as."""
    shrunk = get_scale(plan.scale).shrink(recipe, plan.home / "backbones")
    recipe = shrunk.model_copy(update={"class_names": class_names, "name": _name_at(recipe, plan.scale)})
    if plan.steps is None:
        return recipe
    return recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"steps": plan.steps})})


def _alike(one: Recipe, other: Recipe) -> bool:
    """Return whether two recipes are one model, wherever the weights of its backbone lie and whoever published it."""

    def content(recipe: Recipe) -> Recipe:
        backbone = recipe.backbone.model_copy(update={"weights": Path(recipe.backbone.weights).name})
        return recipe.model_copy(update={"expected": (), "backbone": backbone})

    return content(one) == content(other)


def _do(run: Run, plan: Plan, train_data: Dataset, test_data: Dataset) -> bool:
    """Train, unless only the scoring was missing, and score; return whether it was not asked to stop before."""
    folder = folder_of(run, plan)
    recipe = recipe_at_scale(run.recipe, plan, class_names=train_data.class_names)
    start = time.monotonic()
    if not (folder / "trained.json").exists():
        goes_on = (folder / STATE).exists() and read_recipe(folder / "recipe.yaml") == recipe
        if not goes_on:
            shutil.rmtree(folder, ignore_errors=True)
        train(
            recipe,
            {"train": train_data},
            folder,
            seed=run.seed,
            workers=get_scale(plan.scale).workers,
            precision=get_scale(plan.scale).precision,
            device=plan.device,
            resume=goes_on,
        )
        if (folder / STATE).exists():
            return False
        _write_json(folder / "trained.json", {"seconds": time.monotonic() - start})
    training = json.loads((folder / "trained.json").read_text(encoding="utf-8"))["seconds"]

    start = time.monotonic()
    model = load_model(folder / "last.safetensors", device=plan.device)
    evaluator, recorder = CocoEvaluator(model.class_names), MatchRecorder(model.class_names)
    precision = get_scale(plan.scale).precision
    for truth, found in detect(model, test_data, batch=EVALUATION_BATCH, precision=precision):
        evaluator.add(truth, found.cpu())
        recorder.add(truth, found)
    recorder.matches().save(folder / "matches.npz")
    samples = positives(model, test_data, batch=EVALUATION_BATCH, precision=precision)
    correlation = pearson(samples.scores, samples.iou)
    outcome = Outcome(
        metrics=evaluator.metrics().to_dict(),
        pcc=correlation if correlation == correlation else None,  # noqa: PLR0124  NaN differs from itself
        seconds={"training": training, "evaluation": time.monotonic() - start},
        steps=recipe.schedule.steps or 0,
    )
    _write_json(folder / "outcome.json", asdict(outcome))
    return True


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with whole_or_absent(path) as scratch:
        scratch.write_text(json.dumps(value), encoding="utf-8")
