from __future__ import annotations

import csv
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from filelock import FileLock
from numpy.typing import NDArray

from gfocal.analysis import pretraining, scales
from gfocal.analysis.reproduction import reproduce_table
from gfocal.analysis.runs import Plan, Run, _next_ended, folder_of, matches_of, outcome_of, perform, recipe_at_scale
from gfocal.analysis.scales import get_scale
from gfocal.cli.__main__ import main
from gfocal.config import read_recipe
from gfocal.data.scenes import CLASS_NAMES, Scenes
from gfocal.errors import UserError
from gfocal.model import load_model
from gfocal.recipes import get_recipe
from gfocal.recipes.tables import get_table
from gfocal.structures import Truth
from gfocal.training.state import load_state_of


@pytest.fixture(autouse=True, scope="module")
def _short() -> Iterator[None]:
    """Let backbones learn from a few crops only, and scenes be few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scales, "STEPS", 2)
        patch.setattr(pretraining, "CROPS", 16)
        patch.setattr(scales, "TRAIN_SCENES", 16)
        patch.setattr(scales, "TEST_SCENES", 4)
        yield


@pytest.fixture(scope="module")
def performed(_short: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, list[Run]]:
    """GFL and GFL V2 of one seed, trained for one step and scored."""
    plan = Plan("mini", None, tmp_path_factory.mktemp("runs"), steps=1)
    runs = [Run(get_recipe(name), 3) for name in ("gfl_r50_fpn_1x", "gflv2_r50_fpn_1x")]
    perform(runs, plan)
    return plan, runs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set on disk, which other processes can open: eight scenes to learn, three to score."""
    folder = tmp_path_factory.mktemp("data")
    lines = []
    for split, scenes in {"train": Scenes(8, size=(64, 64)), "val": Scenes(3, seed=1, size=(64, 64))}.items():
        content: dict[str, list[dict[str, object]]] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": label, "name": name} for label, name in enumerate(CLASS_NAMES)],
        }
        for index in range(len(scenes)):
            name = f"{split}{index}.png"
            cv2.imwrite(str(folder / name), scenes.picture(index)[..., ::-1])
            content["images"].append({"id": index, "file_name": name, "height": 64, "width": 64})
            truth = scenes.truth(index)
            for box, label in zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True):
                sides = [box[2] - box[0], box[3] - box[1]]
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": index,
                        "category_id": label,
                        "bbox": [*box[:2], *sides],
                        "area": sides[0] * sides[1],
                        "iscrowd": 0,
                    }
                )
        (folder / f"{split}.json").write_text(json.dumps(content))
        lines.append(f"{split}: {{images: ., annotations: {split}.json}}")
    (folder / "data.yaml").write_text("\n".join(lines))
    return str(folder / "data.yaml")


def test_every_row_of_every_table_has_a_mini_recipe_of_the_same_axes() -> None:
    for name in ("v1-table1a", "v1-table4", "v2-table5"):
        for row in get_table(name).rows:
            if row.recipe is None:
                continue
            small = get_scale("mini").shrink(row.recipe, Path("backbones"))
            assert (small.family, small.quality, small.box) == (row.recipe.family, row.recipe.quality, row.recipe.box)
            assert small.backbone.deformable == row.recipe.backbone.deformable
            assert small.backbone.weights.startswith("backbones/")
    assert get_scale("paper").shrink(get_recipe("gfl_r50_fpn_1x"), Path()) == get_recipe("gfl_r50_fpn_1x")


def test_the_paper_scale_asks_for_coco_and_unknown_scales_are_refused() -> None:
    with pytest.raises(UserError, match="give its folder as data"):
        get_scale("paper").train(None)
    with pytest.raises(UserError, match="did you mean 'mini'"):
        get_scale("minni")


def test_a_table_is_trained_once_and_written_with_its_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def table() -> list[object]:
        return list(reproduce_table("v1-table3", Plan("mini", None, tmp_path, steps=1), seeds=(0, 1), rows=["QFL"]))

    baseline, joint, *others = table()
    assert [(one.outcomes, one.comparison) for one in others] == [((), None)] * 2
    assert baseline.comparison is None
    assert joint.comparison is not None
    assert joint.comparison.seeds == 2
    assert joint.comparison.pictures == 4
    assert joint.verdict in ("reproduced", "refuted", "undecided")
    assert joint.speed is not None
    assert len(joint.outcomes) == 2
    text = (tmp_path / "mini" / "v1-table3.md").read_text()
    assert "V1 Table 3" in text
    assert "39.9" in text
    with (tmp_path / "mini" / "v1-table3.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["recipe"] for row in rows][:2] == ["atss_r50_fpn_1x", "atss_r50_fpn_1x_joint"]
    assert [row["AP"] != "" for row in rows] == [True, True, False, False]
    assert rows[1]["paper difference"] == "+0.7"

    weights = sorted(tmp_path.rglob("last.safetensors"))
    assert len(weights) == 4
    times = [path.stat().st_mtime_ns for path in weights]
    capsys.readouterr()
    options = ["--out", str(tmp_path), "--steps", "1", "--seeds", "2", "--row", "QFL"]
    main(["reproduce", "v1-table3", *options])
    said = capsys.readouterr()
    assert said.out.strip() == (tmp_path / "mini" / "v1-table3.md").read_text().strip()
    assert [path.stat().st_mtime_ns for path in weights] == times
    assert "training" not in said.err


def test_runs_of_one_seed_share_what_they_have_in_common(performed: tuple[Plan, list[Run]]) -> None:
    plan, runs = performed
    frozen = "backbone.conv1.0.weight"
    first, second = (load_model(folder_of(run, plan)).detector.state_dict() for run in runs)
    assert first[frozen].equal(second[frozen])
    for run in runs:
        outcome = outcome_of(run, plan)
        assert outcome is not None
        assert outcome.steps == 1
        assert matches_of(run, plan).truths.shape == (4, len(CLASS_NAMES))


def test_a_run_that_was_cut_off_before_its_score_is_scored_without_training(performed: tuple[Plan, list[Run]]) -> None:
    plan, (run, _) = performed
    folder = folder_of(run, plan)
    before = (folder / "last.safetensors").stat().st_mtime_ns
    (folder / "outcome.json").unlink()
    perform([run], plan)
    assert outcome_of(run, plan) is not None
    assert (folder / "last.safetensors").stat().st_mtime_ns == before
    (folder / "outcome.json").unlink()
    (folder / "trained.json").unlink()
    perform([run], plan)
    assert (folder / "last.safetensors").stat().st_mtime_ns > before


def test_a_run_that_was_asked_to_stop_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopping(Scenes):
        def picture(self, index: int) -> NDArray[np.uint8]:
            signal.raise_signal(signal.SIGTERM)
            return super().picture(index)

    whole, plan = Plan("mini", None, tmp_path / "whole", steps=3), Plan("mini", None, tmp_path / "parts", steps=3)
    run = Run(get_recipe("gfl_r50_fpn_1x"), 0)
    perform([run], whole)
    shutil.copytree(whole.home / "backbones", plan.home / "backbones")
    with monkeypatch.context() as patch:
        patch.setattr(scales, "Scenes", Stopping)
        with pytest.raises(UserError, match="asked to stop: repeat the command"):
            perform([run, later := Run(run.recipe, 1)], plan)
        assert not folder_of(later, plan).exists()
    assert not (folder_of(run, plan) / "trained.json").exists()
    assert load_state_of(folder_of(run, plan))["step"] < 3
    perform([run], plan)
    ours, theirs = (load_model(folder_of(run, one)).detector.state_dict() for one in (plan, whole))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_runs_on_other_data_are_refused(performed: tuple[Plan, list[Run]], data: str) -> None:
    plan, runs = performed
    perform(runs, replace(plan, data="scenes"))
    with pytest.raises(UserError, match="holds runs on the scale's own data: name another folder"):
        perform(runs, replace(plan, data=data))


def test_data_that_cannot_be_opened_lays_no_claim_to_the_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give its folder as data"):
        perform([Run(get_recipe("gfl_r50_fpn_1x"), 0)], Plan("paper", None, tmp_path))
    assert not list(tmp_path.rglob("*.json"))


def test_rows_that_are_one_model_at_a_scale_share_their_run(tmp_path: Path) -> None:
    runs = [Run(get_recipe(name), 0) for name in ("gfl_r50_fpn_1x", "gfl_r50_fpn_ms2x", "gfl_r101_fpn_ms2x")]
    at_mini, at_paper = ([folder_of(run, Plan(scale, None, tmp_path)) for run in runs] for scale in ("mini", "paper"))
    assert at_mini[0] == at_mini[1] != at_mini[2]
    assert len(set(at_paper)) == 3


def test_a_folder_is_one_wherever_it_is_named_from(
    performed: tuple[Plan, list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, runs = performed
    monkeypatch.chdir(plan.folder)
    assert outcome_of(runs[0], replace(plan, folder=Path())) == outcome_of(runs[0], plan) is not None


def test_a_command_that_is_asked_to_stop_takes_its_processes_along(
    performed: tuple[Plan, list[Run]], tmp_path: Path, data: str
) -> None:
    shutil.copytree(performed[0].home / "backbones", tmp_path / "mini" / "backbones")
    options = ["--data", data, "--out", str(tmp_path), "--jobs", "2", "--steps", "5000", "--row", "QFL"]
    code = f"from gfocal.cli.__main__ import main\nmain(['reproduce', 'v1-table3', *{options}])"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    while len(list(tmp_path.rglob("metrics.csv"))) < 2:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.1)
    asked = ["pgrep", "-P", str(process.pid), "-f", "spawn_main"]
    workers = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    assert len(workers) == 2
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not any(Path("/proc", number).exists() for number in workers)
    assert len(list(tmp_path.rglob("state.pt"))) == 2


def test_a_run_that_another_command_did_meanwhile_is_not_done_again(tmp_path: Path) -> None:
    plan, run = Plan("mini", None, tmp_path, steps=1), Run(get_recipe("gfl_r50_fpn_1x"), 0)
    folder_of(run, plan).parent.mkdir(parents=True)
    with ThreadPoolExecutor(1) as other, FileLock(folder_of(run, plan).with_suffix(".lock")):
        waiting = other.submit(perform, [run], plan)
        time.sleep(0.5)
        assert not waiting.done()
        assert not folder_of(run, plan).exists()
        other_plan = replace(plan, folder=tmp_path / "elsewhere")
        perform([run], other_plan)
        shutil.copytree(folder_of(run, other_plan), folder_of(run, plan))
        written = (folder_of(run, plan) / "last.safetensors").stat().st_mtime_ns
    waiting.result()
    assert (folder_of(run, plan) / "last.safetensors").stat().st_mtime_ns == written


def test_rows_that_came_to_something_are_written_where_others_fail(tmp_path: Path) -> None:
    plan = Plan("mini", None, tmp_path, steps=1)
    broken = folder_of(Run(get_recipe("atss_r50_fpn_1x_joint"), 0), plan)
    broken.parent.mkdir(parents=True)
    broken.write_text("a file stands where the run's folder should")
    with pytest.raises(UserError, match="1 run failed: atss_r50_fpn_1x_joint, seed 0"):
        reproduce_table("v1-table3", plan, rows=["QFL"])
    with (tmp_path / "mini" / "v1-table3.csv").open() as file:
        assert [row["AP"] != "" for row in csv.DictReader(file)] == [True, False, False, False]


def test_correlations_of_any_model_and_options_that_do_not_apply(
    performed: tuple[Plan, list[Run]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plan, runs = performed
    model = str(folder_of(runs[1], plan) / "last.safetensors")
    main(["reproduce", "v2-table6", "--model", model, "--out", str(tmp_path)])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "| model | positives | PCC |"
    outcome = outcome_of(runs[1], plan)
    assert outcome is not None
    assert said[2].split(" | ")[2].rstrip(" |") == ("nan" if outcome.pcc is None else f"{outcome.pcc:.3f}")
    for options in (["v1-table3", "--model", model], ["v1-fig5a", "--row", "QFL"], ["v1-fig5a", "--seeds", "2"]):
        with pytest.raises(SystemExit):
            main(["reproduce", *options, "--out", str(tmp_path)])
        assert "--" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_data_set_without_pictures_to_test_on_is_refused_before_training(tmp_path: Path, data: str) -> None:
    only = tmp_path / "data.yaml"
    only.write_text(f"train: {{images: {Path(data).parent}, annotations: {Path(data).parent / 'train.json'}}}")
    with pytest.raises(UserError, match="val"):
        perform([Run(get_recipe("gfl_r50_fpn_1x"), 0)], Plan("mini", str(only), tmp_path / "out", steps=1), jobs=2)


def test_a_process_that_dies_is_no_reason_to_wait() -> None:
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=os._exit, args=(9,))
    worker.start()
    with pytest.raises(UserError, match="ended with 9"):
        _next_ended(context.Queue(), [worker])


def test_a_backbone_has_nothing_to_learn_from_pictures_without_boxes(tmp_path: Path) -> None:
    class Empty(Scenes):
        def truth(self, index: int) -> Truth:
            truth = super().truth(index)
            return Truth(truth.image_id, truth.name, truth.size, truth.boxes[:0], truth.labels[:0], truth.crowd[:0])

    config = get_scale("mini").shrink(get_recipe("gfl_r50_fpn_1x"), tmp_path).backbone
    with pytest.raises(UserError, match="no box in its training pictures"):
        pretraining.pretrain_backbone(config, Empty(2), tmp_path / "weights", mean=(0, 0, 0), std=(1, 1, 1), steps=1)


def test_a_folder_with_runs_of_other_settings_is_refused(performed: tuple[Plan, list[Run]]) -> None:
    plan, runs = performed
    with pytest.raises(UserError, match="other settings"):
        outcome_of(runs[0], replace(plan, steps=2))


def test_runs_go_on_in_several_processes_and_a_failure_names_its_log(tmp_path: Path, data: str) -> None:
    plan = Plan("mini", data, tmp_path, steps=1)
    sound = [Run(get_recipe("gfl_r50_fpn_1x"), seed) for seed in (0, 1)]
    broken = Run(get_recipe("gflv2_r50_fpn_1x"), 0)
    folder_of(broken, plan).parent.mkdir(parents=True)
    folder_of(broken, plan).write_text("a file stands where the run's folder should")
    (failed,) = perform([broken, *sound], plan, jobs=2)
    assert re.search(r"gflv2_r50_fpn_1x, seed 0.*seed0\.log", failed)
    assert all(outcome_of(run, plan) is not None for run in sound)
    recipe = read_recipe(folder_of(sound[0], plan) / "recipe.yaml")
    assert recipe == recipe_at_scale(sound[0].recipe, plan, class_names=CLASS_NAMES)


def test_an_unknown_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'ATSS'"):
        reproduce_table("v1-table1a", Plan("mini", None, tmp_path), rows=["ATS"])
