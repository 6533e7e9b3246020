"""A calibration and its bands: what they change of detections, and their way through a file."""

import dataclasses
import json
import math

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

import gfocal
from gfocal.bands import Bands
from gfocal.calibration import Calibration, spread_of, tempered
from gfocal.model import Model
from gfocal.structures import Detections, EdgeDistributions
from helpers import assert_same_detections

MASSES = (0.8, 0.9)


def of_classes(class_names, **changes):
    """Return a calibration of two levels, whose first class has bands of its own."""
    values = {
        "temperatures": ((2.0,) * 4, (0.5, 1.0, 1.0, 1.0), (1.0,) * 4),
        "masses": MASSES,
        "spread": "predicted",
        "groups": (1, *[0] * (len(class_names) - 1)),
        "intervals": ((1.0,) * 4 + (2.0,) * 4, (3.0,) * 4 + (math.inf,) * 4),
        "outward": ((1.0, 2.0), (3.0, 4.0)),
        "inward": ((0.5, 1.0), (-0.5, math.inf)),
        "class_names": tuple(class_names),
        "boxes": 500,
        "iou": 0.5,
    }
    return Calibration(**values | changes)


def detections(count=3, *, levels=(0, 1, -1), edges=True):
    positions = torch.tensor([[-1.0], [-1], [1], [1]]) * torch.arange(5) * 4 + 50
    probabilities = torch.randn(count, 4, 5).softmax(-1)
    distributions = EdgeDistributions(probabilities, positions.expand(count, 4, 5))
    return Detections(
        boxes=distributions.mean,
        scores=torch.tensor([0.9, 0.8, 0.7])[:count],
        labels=torch.tensor([0, 1, 1])[:count],
        class_names=("a", "b"),
        edges=distributions if edges else None,
        levels=None if levels is None else torch.tensor(levels[:count]),
    )


def test_edges_change_by_level_and_edge_and_nothing_else_does():
    found = detections()
    after = of_classes("ab").apply(found)
    assert_same_detections(dataclasses.replace(after, edges=found.edges), found)
    p = found.edges.probabilities
    roots = p[0].sqrt()
    torch.testing.assert_close(after.edges.probabilities[0], roots / roots.sum(-1, keepdim=True))
    squares = p[1, 0].square()
    torch.testing.assert_close(after.edges.probabilities[1, 0], squares / squares.sum())
    torch.testing.assert_close(after.edges.probabilities[2], p[2])
    unknown = of_classes("ab").apply(dataclasses.replace(found, levels=None))
    torch.testing.assert_close(unknown.edges.probabilities, p)


def test_bands_are_multiples_of_the_spread_around_the_box_by_class():
    found = detections()
    after = of_classes("ab").apply(found)
    spread = spread_of("predicted", found.boxes, after.edges)
    lower, upper = after.bands.interval(0.8)
    torch.testing.assert_close(found.boxes - lower, spread * torch.tensor([[3.0], [1], [1]]))
    torch.testing.assert_close(upper - found.boxes, spread * torch.tensor([[3.0], [1], [1]]))
    assert after.bands.interval(0.9)[1][0].isposinf().all()
    outer, inner = after.bands.boxes(0.8)
    sign = torch.tensor([-1.0, -1, 1, 1])
    torch.testing.assert_close(outer, found.boxes + sign * spread * torch.tensor([[3.0], [1], [1]]))
    torch.testing.assert_close(inner, found.boxes - sign * spread * torch.tensor([[-0.5], [0.5], [0.5]]))
    with pytest.raises(ValueError, match=r"one of \(0.8, 0.9\)"):
        after.bands.interval(0.5)


def test_bands_go_along_with_their_boxes():
    after = of_classes("ab").apply(detections())
    assert torch.equal(after[1].bands.lower, after.bands.lower[1:2])
    assert torch.equal(after[after.labels == 1].bands.outer, after.bands.outer[1:])
    assert torch.equal(after[-1].bands.upper, after.bands.upper[2:])
    assert [len(row.bands) for row in after] == [1, 1, 1]
    assert after.cpu().bands.masses == MASSES
    with pytest.raises(ValueError, match="bands has 1 rows"):
        dataclasses.replace(after, bands=after.bands[:1])
    with pytest.raises(IndexError):
        after.bands[3]


def test_boxes_without_distributions_have_bands_of_a_constant_width_or_by_their_side():
    found = detections(edges=False)
    plain = of_classes("ab", temperatures=(), spread="constant").apply(found)
    assert plain.edges is None
    torch.testing.assert_close((plain.bands.upper - plain.bands.lower)[1:, :, 0], torch.full((2, 4), 2.0))
    side = of_classes("ab", temperatures=(), spread="side").apply(found)
    width = (found.boxes[:, 2] - found.boxes[:, 0]).clamp(min=1)
    torch.testing.assert_close((side.bands.upper - side.bands.lower)[1:, 0, 0], 2 * width[1:])
    with pytest.raises(ValueError, match="needs edge distributions"):
        of_classes("ab").apply(found)


def test_no_boxes_have_no_bands():
    after = of_classes("ab").apply(detections()[:0])
    assert len(after.bands) == len(after) == 0


def test_a_calibration_is_applied_once_and_to_its_own_classes():
    after = of_classes("ab").apply(detections())
    with pytest.raises(ValueError, match="already"):
        of_classes("ab").apply(after)
    with pytest.raises(ValueError, match="for classes"):
        of_classes("xy").apply(detections())


def test_temperature_keeps_sure_edges_sure_and_finite():
    sure = EdgeDistributions(torch.tensor([0.0, 1.0, 0.0]).expand(1, 4, 3), torch.arange(3.0).expand(1, 4, 3))
    after = tempered(sure, torch.full((1, 4), 20.0)).probabilities
    assert after.isfinite().all()
    assert (after.argmax(-1) == 1).all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"masses": (0.9, 0.8)}, "masses must rise"),
        ({"masses": (0.9, 1.0)}, "masses must rise"),
        ({"spread": "wide"}, "spread must be one of"),
        ({"temperatures": ()}, "needs temperatures"),
        ({"temperatures": ((0.0,) * 4,)}, "greater than 0"),
        ({"groups": (0,)}, "groups must be 2"),
        ({"outward": ((1.0,), (2.0,))}, "outward must be 2 rows of 2"),
        ({"inward": ((1.0, 2.0),)}, "inward must be 2 rows"),
        ({"intervals": ((1.0,) * 8, (math.nan,) * 8)}, "must be numbers"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_what_makes_no_sense_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        of_classes("ab", **changes)


def test_plain_values_are_json_and_come_back():
    calibration = of_classes("ab")
    values = json.loads(json.dumps(calibration.to_dict(), allow_nan=False))
    assert Calibration.from_dict(values) == calibration
    for broken in ({}, values | {"intervals": 3}, values | {"groups": None}):
        with pytest.raises(ValueError, match="calibration"):
            Calibration.from_dict(broken)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bands_of_other_shapes_are_refused():
    column = torch.zeros(2, 4, 1)
    with pytest.raises(ValueError, match="outer must be"):
        Bands((0.9,), column, column, column[:1], column)


@pytest.fixture
def model(tiny_recipe, tiny_parts):
    return Model(tiny_recipe, tiny_parts, torch.device("cpu"))


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def test_a_calibrated_model_keeps_boxes_and_goes_through_a_file(model, picture, tmp_path):
    plain = model.predict(picture, threshold=0.0)
    assert plain.bands is None
    assert len(plain)
    mine = model.with_calibration(of_classes(model.class_names))
    found = mine.predict(picture, threshold=0.0)
    assert found.bands is not None
    assert_same_detections(dataclasses.replace(found, edges=plain.edges), plain)
    assert not torch.equal(found.edges.probabilities, plain.edges.probabilities)
    mine.save(tmp_path / "calibrated.safetensors")
    back = gfocal.load(tmp_path / "calibrated.safetensors", device="cpu")
    assert back.calibration == mine.calibration
    again = back.predict(picture, threshold=0.0)
    assert_same_detections(again, found)
    assert torch.equal(again.bands.lower, found.bands.lower)
    gfocal.convert(tmp_path / "calibrated.safetensors", tmp_path / "copy.safetensors")
    assert gfocal.load(tmp_path / "copy.safetensors", device="cpu").calibration == mine.calibration
    assert back.with_calibration(None).predict(picture, threshold=0.0).bands is None


def test_files_without_a_calibration_load_as_ever(model, tmp_path):
    model.save(tmp_path / "plain.safetensors")
    with safetensors.safe_open(tmp_path / "plain.safetensors", framework="pt") as file:
        assert file.metadata().keys() == {"format", "recipe"}
    assert gfocal.load(tmp_path / "plain.safetensors", device="cpu").calibration is None


def test_classes_may_be_called_otherwise_and_stay_calibrated(model, tmp_path):
    model.with_calibration(of_classes(model.class_names)).save(tmp_path / "model.safetensors")
    renamed = model.recipe.model_copy(update={"class_names": ("one", "two", "three")})
    back = gfocal.load(tmp_path / "model.safetensors", recipe=renamed, device="cpu")
    assert back.calibration.class_names == ("one", "two", "three")


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_broken_calibration_in_a_file_is_told_in_one_line(model, tmp_path, text):
    path = tmp_path / "model.safetensors"
    model.save(path)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata() | {"calibration": text}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  a file, not a dict
    safetensors.torch.save_file(state, path, metadata)
    with pytest.raises(gfocal.UserError, match="calibrate the model again"):
        gfocal.load(path, device="cpu")


def test_a_calibration_of_other_classes_does_not_fit_a_model(model):
    with pytest.raises(ValueError, match="for classes"):
        model.with_calibration(of_classes("xyz"))


def test_bands_are_told_as_json():
    after = of_classes("ab").apply(detections())
    rows = json.loads(json.dumps(after.to_dict(), allow_nan=False))["boxes"]
    assert rows[0]["edge_band"] == [[None, None]] * 4
    assert rows[0]["inner_box"] == [None] * 4
    lower, upper = after.bands.interval(0.9)
    assert rows[1]["edge_band"][2] == pytest.approx([float(lower[1, 2]), float(upper[1, 2])], abs=0.01)
    assert rows[1]["outer_box"] == pytest.approx(after.bands.boxes(0.9)[0][1].tolist(), abs=0.01)
    assert "edge_band" not in detections().to_dict()["boxes"][0]
