"""Figures drawn from models: their tables hold what the models say, and models that do not fit are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import gfocal
from analysis.test_figures import column, drawn
from gfocal.analysis import scales
from gfocal.analysis.figures import labels, representations, statistics, suppression, targets, unreliable
from gfocal.analysis.figures.base import Material
from gfocal.analysis.figures.samples import locations, seen, some_of
from gfocal.analysis.positives import pearson, positives
from gfocal.analysis.runs import Plan
from gfocal.analysis.scales import get_scale
from gfocal.boxrep import Gaussian
from gfocal.config import Recipe
from gfocal.data.scenes import CLASS_NAMES
from gfocal.errors import UserError
from gfocal.model import Model
from gfocal.nn.backbone import create_backbone
from gfocal.ops.boxes import box_iou_pairwise
from gfocal.quality.joint import Statistics
from gfocal.testing import evaluate

PICTURES = 4
AXES = {
    "v1": ({"name": "atss"}, {"name": "joint"}, {"name": "general"}),
    "v2": ({"name": "atss"}, {"name": "dgqp"}, {"name": "general"}),
    "iou": ({"name": "atss", "coding": "deltas"}, {"name": "branch", "label": "iou"}, {"name": "dirac"}),
    "joint": ({"name": "atss", "coding": "deltas"}, {"name": "joint"}, {"name": "dirac"}),
    "gaussian": ({"name": "atss"}, {"name": "branch"}, {"name": "gaussian"}),
    "general": ({"name": "atss"}, {"name": "branch"}, {"name": "general"}),
}
"""Family, quality and box of the models that the figures are drawn from here."""


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scales, "TRAIN_SCENES", 8)
    monkeypatch.setattr(scales, "TEST_SCENES", PICTURES)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Recipe) -> Callable[[str], str]:
    """Return the file of a tiny model with random weights, of boxes about as large as the objects."""
    folder = tmp_path_factory.mktemp("models")

    def made(name: str) -> str:
        path = folder / f"{name}.safetensors"
        if not path.exists():
            family, quality, box = AXES[name]
            axes = {"name": name, "class_names": CLASS_NAMES, "family": family, "quality": quality, "box": box}
            torch.manual_seed(1)
            _loud(gfocal.build(tiny_recipe.model_copy(update=axes), device="cpu")).save(path)
        return str(path)

    return made


def _loud(model: Model) -> Model:
    with torch.no_grad():
        outputs = model.detector.outputs_of(0)
        outputs.quality.cls.bias.fill_(-1.0)
        outputs.quality.cls.weight.mul_(10)
        outputs.box_conv.weight.mul_(10)
        bias = outputs.box_conv.bias.view(4, -1)
        if model.criterion.box.bins is not None:
            bias[:, 2:5] = 3.0
        elif model.criterion.family.coding.spreads:
            bias[:, 0] = 3.0
    return model


def material(*sources: str, data: bool = True) -> Material:
    dataset = get_scale("mini").test(None) if data else None
    return Material(tuple(map(Path, sources)), (), dataset, Plan("mini", None, Path(), None, "cpu"), 0)


def test_background_lies_in_no_object_and_on_none() -> None:
    objects = torch.tensor([[10.0, 10, 30, 30]])
    boxes = torch.tensor([[40.0, 40, 60, 60], [12, 12, 28, 28], [0, 0, 100, 100], [25, 25, 45, 45], [0, 0, 100, 100]])
    points = torch.tensor([[50.0, 50], [5, 5], [50, 50], [35, 35], [20, 20]])
    # alone; in an object; a large box about a small object; 6 % on it; as the third, seen from the object
    assert unreliable.background(boxes, points, objects).tolist() == [True, False, True, True, False]
    assert unreliable.background(boxes, points, objects[:0]).all()


def test_background_patches_are_the_best_of_their_pictures(tmp_path: Path, source: Callable[[str], str]) -> None:
    rows = drawn("v1-fig2a", tmp_path, models=[source("iou")])
    assert 1 <= len(rows) <= PICTURES
    assert len({row["picture"] for row in rows}) == len(rows)
    quality = column(rows, "predicted_iou")
    assert (np.diff(quality) <= 0).all()
    one = material(source("iou"))
    views = list(seen(one.model(0), one))
    for row in rows:
        box = torch.tensor([[float(row[side]) for side in ("left", "top", "right", "bottom")]])
        truth = one.pictures.truth(int(row["index"]))
        assert (box_iou_pairwise(box.expand_as(truth.boxes), truth.boxes) < 0.1).all()
        view = next(view for view in views if int(row["index"]) in view.batch.indices)
        assert view.raw.quality_logits is not None
        assert float(row["predicted_iou"]) <= float(view.raw.quality_logits.sigmoid().max()) + 1e-6


def test_the_joint_score_is_class_and_quality_at_once(tmp_path: Path, source: Callable[[str], str]) -> None:
    rows = drawn("v1-fig2b", tmp_path, models=[source("iou"), source("joint")])
    for name, joint in (("IoU-branch", False), ("joint (QFL)", True)):
        mine = [row for row in rows if row["model"] == name]
        x, y = column(mine, "class_score"), column(mine, "predicted_iou")
        assert (x == y).all() == joint
        expected = 1.0 if joint else np.corrcoef(x, y)[0, 1]
        assert float(mine[0]["pearson_of_all"]) == pytest.approx(expected, abs=1e-4)
        kinds = [row["location"] for row in mine]
        assert kinds.count("positive") == kinds.count("negative") > 10


def test_locations_are_drawn_from_the_seed(source: Callable[[str], str]) -> None:
    one = material(source("iou"))
    first, again = (locations(one.model(0), one, most=20) for _ in range(2))
    assert len(first.quality) == 20
    assert torch.equal(first.quality, again.quality)
    assert some_of(3, most=5).tolist() == [0, 1, 2]
    assert len(set(some_of(100, most=30, seed=4).tolist())) == 30


def test_targets_are_those_that_a_model_learns(tmp_path: Path, source: Callable[[str], str]) -> None:
    one = material(source("v1"))
    learnt = positives(one.model(0), one.pictures).ltrb
    torch.testing.assert_close(targets.targets(one).flatten().sort().values, learnt.flatten().sort().values)
    rows = drawn("v1-fig5c", tmp_path)
    assert column(rows, "edges").sum() == learnt.numel()
    assert column(rows, "share").sum() == pytest.approx(1, abs=1e-5)
    assert float(rows[0]["share_beyond_16"]) == pytest.approx(float((learnt > 16).double().mean()), abs=1e-6)


def test_a_gaussian_in_bins_has_its_mean_and_variance() -> None:
    gaussian = Gaussian()
    box = representations.GaussianInBins(gaussian)
    code = torch.stack([torch.tensor([2.0, 5.5, 9.0, 0.3]), torch.tensor([0.0, 1.0, -1.0, -2.0])], dim=-1)
    masses, bins = box.probabilities(code), torch.tensor(box.bins)
    torch.testing.assert_close(masses.sum(-1), torch.ones(4))
    means = (masses * bins).sum(-1)
    torch.testing.assert_close(means, box.values(code), atol=1e-3, rtol=0)
    spread = (masses * (bins - means[:, None]).square()).sum(-1)
    # the variance of a bin's own width comes on top (Sheppard)
    torch.testing.assert_close(spread, gaussian.variances(code) + 0.125**2 / 12, atol=2e-3, rtol=0)


def test_three_representations_say_how_far_each_edge_spreads(tmp_path: Path, source: Callable[[str], str]) -> None:
    rows = drawn("v1-fig7", tmp_path, models=[source("joint"), source("gaussian"), source("general")])
    assert [name for name in representations.TITLES if any(row["model"] == name for row in rows)] == list(
        representations.TITLES
    )
    for row in rows:
        spread = [float(row[f"std_{side}_pixels"]) for side in ("left", "top", "right", "bottom")]
        assert np.isnan(spread).all() == (row["model"] == "Dirac delta")
        assert row["model"] == "Dirac delta" or min(spread) > 0
        assert 0 <= float(row["iou_with_truth"]) <= 1
    with pytest.raises(UserError, match="must have box 'gaussian'"):
        drawn("v1-fig7", tmp_path, models=[source("joint"), source("v1"), source("general")])


def test_speed_and_accuracy_of_models_and_of_the_paper(tmp_path: Path, source: Callable[[str], str]) -> None:
    rows = drawn("v1-fig8", tmp_path, models=[source("v1")] * 5)
    here = [row for row in rows if row["where"] == "here"]
    assert [(row["method"], row["backbone"]) for row in here] == [("GFL", source("v1"))] * 5
    one = material(source("v1"))
    expected = evaluate(one.model(0), one.pictures, batch=4).ap
    np.testing.assert_allclose(column(here, "ap"), 100 * expected, atol=1e-6)
    assert (column(here, "milliseconds") > 0).all()
    paper = {(row["method"], row["backbone"]): row for row in rows if row["where"] == "paper"}
    assert float(paper["GFL", "R-50"]["milliseconds"]) == pytest.approx(1000 / 19.4)
    assert float(paper["GFL", "R-101"]["ap"]) == 45.0
    assert ("CentripetalNet", "HG-104") not in paper  # the paper has no speed of it


def test_objects_of_small_centerness_carry_the_labels_of_their_positives(
    tmp_path: Path, source: Callable[[str], str]
) -> None:
    rows = drawn("v1-fig11", tmp_path, models=[source("v1")])
    box = np.stack([column(rows, side) for side in ("left", "top", "right", "bottom")], axis=1)
    point = np.stack([column(rows, side) for side in ("x", "y")], axis=1)
    low, high = point - box[:, :2], box[:, 2:] - point
    expected = np.sqrt((np.minimum(low, high) / np.maximum(low, high)).prod(1))
    np.testing.assert_allclose(column(rows, "centerness"), expected, atol=1e-4)
    one = material(source("v1"))
    best = sorted(found.best_centerness for view in seen(one.model(0), one) for found in labels.objects_of(view))
    shown = {
        tuple(row): max(column([r for r, b in zip(rows, box, strict=True) if (b == row).all()], "centerness"))
        for row in box
    }
    np.testing.assert_allclose(sorted(shown.values()), best[:4], atol=1e-5)


def test_histograms_of_labels_count_all_positives(tmp_path: Path, source: Callable[[str], str]) -> None:
    rows = drawn("v1-fig12", tmp_path, models=[source("v1")])
    one = material(source("v1"))
    found = positives(one.model(0), one.pictures)
    for name, values in (("IoU", found.iou), ("centerness", found.centerness)):
        mine = [row for row in rows if row["label"] == name]
        expected = np.histogram(values.numpy(), bins=20, range=(0, 1))[0]
        assert column(mine, "positives").tolist() == expected.tolist()
        np.testing.assert_allclose(column(mine, "share"), expected / len(values), rtol=1e-5)


@pytest.mark.parametrize(("figure", "name", "quality"), [("v2-fig1b", "v1", "iou"), ("v2-fig9", "v2", "quality")])
def test_sharpness_against_quality_over_all_positives(
    tmp_path: Path, source: Callable[[str], str], figure: str, name: str, quality: str
) -> None:
    rows = drawn(figure, tmp_path, models=[source(name)])
    one = material(source(name))
    found = positives(one.model(0), one.pictures)
    top, values = found.top.mean(1), getattr(found, quality)
    np.testing.assert_allclose(column(rows, "mean_top1"), top.numpy(), rtol=1e-5)
    np.testing.assert_allclose(column(rows, "real_iou" if quality == "iou" else "predicted_iou"), values, rtol=1e-5)
    assert float(rows[0]["pearson_of_all"]) == pytest.approx(pearson(top, values), abs=1e-5)
    assert {row["positives"] for row in rows} == {str(len(top))}


def test_topkm_is_what_dgqp_reads() -> None:
    logits = torch.randn(1, 4 * 17, 1, 1)
    read = Statistics(4, ("top", "mean"))(logits).flatten()
    found = statistics.topkm(logits.view(4, 17).softmax(-1))
    torch.testing.assert_close(found.flatten().sort().values, read.sort().values)
    torch.testing.assert_close(found[:, 4], found[:, :4].mean(1))


def test_topkm_stays_under_a_shift(tmp_path: Path, source: Callable[[str], str]) -> None:
    rows = drawn("v2-fig4", tmp_path, models=[source("v2")])
    shifted = [[float(r["value"]) for r in rows if r["of"] == f"shifted by {n}"] for n in statistics.SHIFTS[1:]]
    assert shifted[0] == shifted[1] == [float(r["value"]) for r in rows if r["of"] == "as it is"]
    one = material(source("v2"))
    found = positives(one.model(0), one.pictures)
    finest = [row for row in rows if row["of"] == "level of stride 8"]
    assert float(finest[0]["value"]) == pytest.approx(float(found.top[found.levels == 0].mean()), abs=1e-5)
    assert int(finest[0]["distributions"]) == 4 * int((found.levels == 0).sum())
    objects = [row for row in rows if row["of"].startswith("objects") and row["statistic"] == "top-1"]
    counts = column(objects, "distributions")
    assert counts.sum() == 4 * len(found)
    assert column(objects, "value") @ counts / counts.sum() == pytest.approx(float(found.top.mean()), abs=1e-5)


def test_what_suppression_leaves_of_an_object(tmp_path: Path, source: Callable[[str], str]) -> None:
    one = material(source("v1"))
    found = suppression.candidates_of(one.model(0), one)
    assert found
    for (index, place), candidates in found.items():
        box = one.pictures.truth(index).boxes[place]
        overlaps = box_iou_pairwise(torch.tensor(candidates.boxes), box.expand(len(candidates.boxes), 4))
        np.testing.assert_allclose(candidates.iou, overlaps, atol=1e-5)
        assert min(candidates.iou) >= 0.5
        assert candidates.scores == sorted(candidates.scores, reverse=True)
        assert candidates.lost >= 0
        assert candidates.kept[0] == min(candidates.kept)
    rows = drawn("v2-fig7", tmp_path, models=[source("v1"), source("v1")])
    mean = sum(candidates.lost for candidates in found.values()) / len(found)
    np.testing.assert_allclose(column(rows, "lost_iou_of_all"), mean, atol=1e-5)
    for row in rows:
        candidates = found[int(row["picture"]), int(row["object"])]
        assert row["kept"] == str(int(int(row["rank"]) in candidates.kept))
        assert float(row["score"]) == pytest.approx(candidates.scores[int(row["rank"])], abs=1e-6)


def test_losses_of_two_trainings(tmp_path: Path, source: Callable[[str], str]) -> None:
    for name, first in (("one", 3.0), ("two", 2.0)):
        (tmp_path / name).mkdir()
        lines = ["step,train/cls,val/ap", *(f"{10 * i + 9},{first / (i + 1)}," for i in range(60)), "599,,0.5"]
        (tmp_path / name / "metrics.csv").write_text("\n".join(lines))
    rows = drawn("v2-fig8", tmp_path, models=[str(tmp_path / "one"), str(tmp_path / "two" / "last.safetensors")])
    sources = [str(tmp_path / "one"), str(tmp_path / "two" / "last.safetensors")]
    assert [row["model"] for row in rows] == [sources[0]] * 60 + [sources[1]] * 60
    raw, smooth = column(rows, "loss")[60:], column(rows, "smoothed")[60:]
    np.testing.assert_allclose(raw, 2 / np.arange(1, 61), rtol=1e-5)
    assert smooth[30] == pytest.approx(raw[28:33].mean(), rel=1e-5)
    assert smooth[0] == pytest.approx(raw[:3].mean(), rel=1e-5)
    with pytest.raises(UserError, match=r"metrics\.csv: the losses of the training cannot be read"):
        drawn("v2-fig8", tmp_path, models=[source("v1"), source("v2")])


def test_models_without_what_a_figure_shows_are_refused(tmp_path: Path, source: Callable[[str], str]) -> None:
    for figure in ("v2-fig1b", "v2-fig4", "v2-fig9"):
        with pytest.raises(UserError, match="drawn from distributions of edges, and the model's boxes are 'dirac'"):
            drawn(figure, tmp_path, models=[source("joint")])
    for figure, models in (("v1-fig2a", ["joint"]), ("v1-fig2b", ["joint", "joint"]), ("v2-fig9", ["v1"])):
        with pytest.raises(UserError, match="needs a quality predicted beside the class score"):
            drawn(figure, tmp_path, models=[source(name) for name in models])
    with pytest.raises(UserError, match="class and quality as one number"):
        drawn("v1-fig2b", tmp_path, models=[source("iou"), source("iou")])
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_missing_is_trained_once(tmp_path: Path) -> None:
    backbone = create_backbone("resnet18", width=0.5)
    weights = tmp_path / "mini" / "backbones" / "resnet18.safetensors"
    weights.parent.mkdir(parents=True)
    safetensors.torch.save_file({key: value.contiguous() for key, value in backbone.state_dict().items()}, weights)
    first = drawn("v1-fig12", tmp_path, steps=2)
    outcome = tmp_path / "mini" / "gfl_r50_fpn_1x" / "seed0" / "outcome.json"
    written = outcome.stat().st_mtime_ns
    assert json.loads(outcome.read_text())["steps"] == 2
    assert drawn("v1-fig12", tmp_path, steps=2) == first
    assert outcome.stat().st_mtime_ns == written
