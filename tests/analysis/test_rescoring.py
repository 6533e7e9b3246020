"""Rescoring: a quality that is there to be read is found and used, one that is not is not, and noise is called so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import gfocal
from gfocal import Detections, EdgeDistributions
from gfocal.analysis.matching import match
from gfocal.analysis.rescoring import Rescorer, fit_rescorer, rescore
from gfocal.analysis.rescoring.rescorer import overlap
from gfocal.data.scenes import Scenes
from gfocal.errors import UserError
from gfocal.heads import HeadOutputs
from gfocal.structures import Truth
from helpers import save_eager_model
from real_heads import ANNOTATIONS, HEADS, needs_real_heads

NAMES = ("a", "b")


def pictures(count: int, *, telling: bool, seed: int = 0) -> list[tuple[Truth, Detections]]:
    """Return pictures with two objects and candidates: where telling, sharp edges are those of good boxes."""
    dice = torch.Generator().manual_seed(seed)
    pairs: list[tuple[Truth, Detections]] = []
    for number in range(count):
        boxes = torch.tensor([[10.0, 10.0, 50.0, 50.0], [60.0, 20.0, 95.0, 80.0]])
        truth = Truth(
            number, f"{number}.png", (100, 100), boxes, torch.tensor([0, 1]), torch.zeros(2, dtype=torch.bool)
        )
        error = torch.rand(12, generator=dice)
        found = boxes.repeat(6, 1) + 14 * error[:, None] * torch.tensor([1.0, 1, 1, 1])
        sharp = 6 * (1 - error) if telling else 6 * torch.rand(12, generator=dice)
        edges = EdgeDistributions(
            (sharp[:, None, None] * torch.tensor([0.0, 1, 0, 0, 0])).expand(12, 4, 5).softmax(-1),
            torch.arange(5.0).expand(12, 4, 5),
        )
        scores = 0.1 + 0.8 * torch.rand(12, generator=dice)
        pairs.append((truth, Detections(found, scores, torch.tensor([0, 1]).repeat(6), NAMES, edges=edges)))
    return pairs


def test_a_quality_that_can_be_read_raises_ap_by_more_than_noise() -> None:
    report = rescore(pictures(16, telling=True), top_k=3, hidden=8, folds=2, resamples=30).report
    assert report.pearson_after.value > report.pearson_before.value + 0.3
    assert report.signals["quality"] > 0.9
    assert report.ap_gain.low > 0
    assert "AP rises by more than noise" in report.text()
    assert json.loads(json.dumps(report.to_dict()))["ap_gain_is_noise"] is False


def test_crowds_are_no_objects_to_overlap() -> None:
    boxes = torch.tensor([[10.0, 10.0, 50.0, 50.0], [0.0, 0.0, 100.0, 100.0]])
    truth = Truth(1, "1.png", (100, 100), boxes, torch.tensor([0, 0]), torch.tensor([False, True]))
    assert overlap(boxes, truth).tolist() == pytest.approx([1.0, 0.16])
    assert overlap(boxes, replace(truth, crowd=torch.tensor([True, True]))).tolist() == [0.0, 0.0]


def test_a_quality_that_says_nothing_is_called_noise() -> None:
    report = rescore(pictures(16, telling=False), top_k=3, hidden=8, folds=2, resamples=30).report
    assert report.ap_gain.is_noise
    assert "within noise" in report.verdict()


def test_the_same_seed_gives_the_same_report() -> None:
    pairs = pictures(8, telling=True)
    assert (
        rescore(pairs, hidden=4, folds=2, resamples=5).report == rescore(pairs, hidden=4, folds=2, resamples=5).report
    )


def test_the_quality_learns_the_iou() -> None:
    pairs = pictures(20, telling=True)
    rescorer = fit_rescorer(pairs, top_k=4, hidden=16)
    truth, found = pictures(1, telling=True, seed=9)[0]
    assert found.edges is not None
    quality = rescorer.quality(found.edges)
    iou = match(found[:1], truth, iou=0.01).iou
    assert abs(float(quality[0] - iou[0])) < 0.15


def test_what_is_rescored_stays_aligned_and_best_first(tmp_path: Path) -> None:
    pairs = pictures(10, telling=True)
    rescorer = fit_rescorer(pairs, hidden=8)
    rescorer.save(tmp_path / "rescorer.safetensors")
    again = Rescorer.load(tmp_path / "rescorer.safetensors")
    _, found = pairs[0]
    first, second = rescorer(found), again(found)
    torch.testing.assert_close(first.scores, second.scores)
    assert first.scores.tolist() == sorted(first.scores.tolist(), reverse=True)
    assert first.edges is not None
    assert first.quality is not None
    torch.testing.assert_close(rescorer.quality(first.edges), first.quality)
    assert len(rescorer(found[:0])) == 0


def test_arrays_are_rescored_as_detections_are() -> None:
    rescorer = Rescorer.fresh(top_k=2, hidden=4)
    heads = HeadOutputs(
        torch.zeros(5, dtype=torch.long), torch.rand(5, 2), torch.randn(5, 4, 8), 50 * torch.rand(5, 2), torch.ones(5)
    )
    by_arrays = rescorer.apply(heads).candidates(0, NAMES, threshold=0)
    by_boxes = rescorer(heads.candidates(0, NAMES))
    torch.testing.assert_close(by_arrays.scores, by_boxes.scores)
    torch.testing.assert_close(by_arrays.boxes, by_boxes.boxes)


def test_one_of_our_own_models_is_rescored_over_scenes(tmp_path: Path) -> None:
    save_eager_model(tmp_path)
    model, scenes = gfocal.load(tmp_path, device="cpu"), Scenes(6, seed=1, size=(128, 128))
    with torch.no_grad():  # boxes of some four strides each way, as large as the objects on one level or another
        model.detector.outputs_of(0).get_parameter("box_conv.bias").view(4, -1)[:, 4] = 6
    result = gfocal.rescore(model, scenes, hidden=4, folds=2, resamples=2)
    assert (result.report.pictures, result.report.folds) == (6, 2)
    assert result.report.boxes > 0
    # what it fitted ranks what the model predicts
    found = model.predict(scenes.picture(0))
    assert len(found) > 5
    assert found.edges is not None
    expected = found.scores * result.rescorer.quality(found.edges) ** result.rescorer.quality_power
    torch.testing.assert_close(result.rescorer(found).scores, expected.sort(descending=True).values)


def test_what_cannot_be_rescored_is_refused(tmp_path: Path) -> None:
    pairs = pictures(10, telling=True)
    plain = [(truth, Detections(found.boxes, found.scores, found.labels, NAMES)) for truth, found in pairs]
    with pytest.raises(UserError, match="no edge distributions"):
        rescore(plain)
    with pytest.raises(ValueError, match="no edge distributions"):
        Rescorer.fresh()(plain[0][1])
    with pytest.raises(UserError, match="too few for 6 folds"):
        rescore(pairs, folds=6)
    with pytest.raises(UserError, match="only 0 candidates overlap"):
        fit_rescorer([(truth, found[:0]) for truth, found in pairs])
    with pytest.raises(ValueError, match="k must be at most"):
        fit_rescorer(pairs, top_k=6)
    with pytest.raises(UserError, match="top_k: an edge of this detector has"):
        rescore(pictures(16, telling=True), top_k=40, folds=2, resamples=2)
    with pytest.raises(UserError, match="held against: give data"):
        rescore("heads.npz")
    (tmp_path / "other.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="not a rescorer"):
        Rescorer.load(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="let the name end so"):
        Rescorer.fresh().save(tmp_path / "rescorer.pt")


@needs_real_heads
def test_the_signals_of_a_real_head_correlate_with_the_iou_as_its_makers_measured() -> None:
    from gfocal.analysis.rescoring.measuring import signals
    from gfocal.heads import open_heads

    samples = signals(list(open_heads(HEADS, ANNOTATIONS, suppress=False)))
    values = [samples.correlation(name) for name in ("score", "top", "variance")]
    assert values == pytest.approx([0.57, 0.58, 0.53], abs=0.006)
    half = np.arange(64) % 2
    assert samples.correlation("score", half.astype(float)) != samples.correlation("score")


@needs_real_heads
def test_rescoring_a_real_head_raises_the_correlation_on_pictures_not_seen() -> None:
    report = gfocal.rescore(HEADS, ANNOTATIONS, folds=2, hidden=16, resamples=20).report
    assert report.pearson_gain.low > 0
    assert report.ap_before.value == pytest.approx(0.2874, abs=0.0005)
