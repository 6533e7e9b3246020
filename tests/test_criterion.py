from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

import pytest
import torch
import torchvision
from torch import Tensor

from gfocal.assign.atss import ATSS
from gfocal.assign.fcos import FCOS
from gfocal.assign.fovea import Fovea
from gfocal.boxrep import Dirac, Gaussian, General
from gfocal.builder import Parts
from gfocal.criterion import Criterion, ground_truth
from gfocal.families import Family, atss, fcos, foveabox
from gfocal.ops import focal_loss
from gfocal.priors import Anchors, square_sides
from gfocal.quality import Quality
from gfocal.quality.joint import DGQP, Joint
from gfocal.quality.separate import Branch, Guided, Plain
from gfocal.structures import Raw
from helpers import head, square_anchors

TruthOf: TypeAlias = "Mapping[str, Tensor | tuple[int, int]]"

HEIGHT, WIDTH = 96, 128


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def truth_of(boxes: list[list[float]], labels: list[int], size: tuple[int, int] | None = None) -> TruthOf:
    truth: dict[str, Tensor | tuple[int, int]] = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.long),
    }
    return truth if size is None else truth | {"size": size}


EMPTY = truth_of([], [])
TRUTHS = [
    truth_of([[10.0, 12.0, 70.0, 65.0], [40.0, 5.0, 120.0, 90.0], [80.0, 50.0, 101.0, 77.0]], [0, 2, 1]),
    truth_of([[3.0, 30.0, 58.0, 92.0]], [1]),
    EMPTY,
]


def images(count: int) -> Tensor:
    return torch.randn(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


def take(raw: Raw, rows: list[int]) -> Raw:
    """Return the raw output of some pictures of a batch."""
    quality = raw.quality_logits
    return Raw(
        raw.scores[rows],
        raw.class_scores[rows],
        raw.box[rows],
        raw.class_logits[rows],
        None if quality is None else quality[rows],
        raw.priors,
    )


@pytest.fixture
def raw(tiny_parts: Parts) -> Raw:
    """The output for three pictures, spread out so that no two values are alike."""
    with torch.no_grad():
        out = tiny_parts.detector(images(3))
    noise = torch.Generator().manual_seed(2)
    assert out.quality_logits is not None
    class_logits = out.class_logits + torch.randn(out.class_logits.shape, generator=noise)
    quality_logits = out.quality_logits + torch.randn(out.quality_logits.shape, generator=noise)
    scores, class_scores = tiny_parts.criterion.quality.scores(class_logits, quality_logits)
    return Raw(
        scores=scores,
        class_scores=class_scores,
        box=out.box + torch.randn(out.box.shape, generator=noise),
        class_logits=class_logits,
        quality_logits=quality_logits,
        priors=out.priors,
    )


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7, msg=name)


# ---------------------------------------------------------------- one batch computed by hand

# a single level of 2 x 2 cells: of its points only (8, 8) lies in the box, and all four anchors overlap it alike
BOX = (2.0, 4.0, 14.0, 20.0)
LTRB = (0.75, 0.5, 0.75, 1.5)


def by_hand(joint: list[float], logits: list[list[float]]) -> tuple[float, float, float]:
    """Return IoU, GIoU and the mean distribution focal loss of the prediction at (8, 8)."""
    p = [[math.exp(x) / sum(math.exp(v) for v in edge) for x in edge] for edge in logits]
    left, top, right, bottom = (edge[1] + 2 * edge[2] for edge in p)
    predicted = (8 - 8 * left, 8 - 8 * top, 8 + 8 * right, 8 + 8 * bottom)
    width = min(predicted[2], BOX[2]) - max(predicted[0], BOX[0])
    height = min(predicted[3], BOX[3]) - max(predicted[1], BOX[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = (predicted[2] - predicted[0]) * (predicted[3] - predicted[1]) + 12 * 16 - shared
    hull = (max(predicted[2], BOX[2]) - min(predicted[0], BOX[0])) * (
        max(predicted[3], BOX[3]) - min(predicted[1], BOX[1])
    )
    dfl = 0.0
    for edge, y in zip(p, LTRB, strict=True):
        low = int(y)
        dfl -= (low + 1 - y) * math.log(edge[low]) + (y - low) * math.log(edge[low + 1])
    return shared / union, shared / union - (hull - union) / hull, dfl / 4


@pytest.mark.parametrize("with_quality", [False, True])
def test_the_losses_of_two_small_pictures_are_those_computed_by_hand(*, with_quality: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    class_logits = torch.randn(2, 4, 2, generator=generator)
    quality_logits = torch.randn(2, 4, generator=generator)
    code = torch.randn(2, 4, 4, 3, generator=generator)
    quality: Quality = DGQP(head(32, 2)) if with_quality else Joint(head(32, 2))
    apart = quality_logits if with_quality else None
    scores, class_scores = quality.scores(class_logits, apart)
    raw = Raw(
        scores=scores,
        class_scores=class_scores,
        box=code,
        class_logits=class_logits,
        quality_logits=apart,
        priors=square_anchors((8,))([torch.zeros(1, 1, 2, 2)]),
    )
    criterion = Criterion(atss(), General(n=2), quality)
    losses = criterion(raw, [truth_of([list(BOX)], [1]), truth_of([list(BOX)], [0])])

    cls = weights = box = dfl = 0.0
    for picture, label in enumerate((1, 0)):
        joint = [
            [sigmoid(x) * (sigmoid(q) if with_quality else 1) for x in row]
            for row, q in zip(class_logits[picture].tolist(), quality_logits[picture].tolist(), strict=True)
        ]
        iou, giou, own_dfl = by_hand(joint[3], code[picture, 3].tolist())
        for location in range(4):
            for kind in range(2):
                y = iou if (location, kind) == (3, label) else 0.0
                p = joint[location][kind]
                cls -= (y - p) ** 2 * ((1 - y) * math.log(1 - p) + y * math.log(p))
        weights += max(joint[3])
        box += max(joint[3]) * 2 * (1 - giou)
        dfl += max(joint[3]) * 0.25 * own_dfl
    expected = {"cls": cls / 2, "box": box / weights, "dfl": dfl / weights}
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("family", [atss(), fcos(), foveabox()])
@pytest.mark.parametrize("quality", [Plain(head(32, 2)), Branch(head(32, 2)), Guided(head(32, 2), label="iou")])
def test_losses_are_divided_by_what_the_family_and_the_quality_say(family: Family, quality: Quality) -> None:
    """Two pictures, one without boxes: element-wise losses and weights as the parts give them, divided by hand."""
    generator = torch.Generator().manual_seed(4)
    family = replace(family, priors=Anchors((8,), square_sides((8,), 8.0), offset=family.priors.offset))
    if isinstance(family.assigner, FCOS | Fovea):  # of one level
        one = FCOS(limits=(math.inf,)) if isinstance(family.assigner, FCOS) else Fovea(ranges=((1, 2000),))
        family = replace(family, assigner=one)
    priors = family.priors([torch.zeros(1, 1, 8, 8)])
    class_logits = torch.randn(2, 64, 2, generator=generator)
    apart = torch.randn(2, 64, generator=generator) if isinstance(quality, Branch) else None
    scores, class_scores = quality.scores(class_logits, apart)
    code = torch.rand(2, 64, 4, 1, generator=generator) * 3
    raw = Raw(scores, class_scores, code, class_logits, apart, priors)
    truths = [truth_of([[8.0, 10.0, 50.0, 40.0], [20.0, 4.0, 60.0, 62.0]], [1, 0]), EMPTY]
    losses = Criterion(family, Dirac(), quality)(raw, truths)

    match = family.assigner(priors, ground_truth(raw, truths))
    where, box = match.location[match.positive], truths[0]["boxes"][match.truth[match.positive]]
    count = len(where)
    assert count >= 3
    predicted = family.coding.decode(priors[where], code.flatten(0, 1)[where][..., 0])
    iou = torchvision.ops.box_iou(predicted, box).diagonal()
    ltrb = torch.cat([priors.points[where] - box[:, :2], box[:, 2:] - priors.points[where]], dim=1)
    shares = [torch.minimum(ltrb[:, i], ltrb[:, i + 2]) / torch.maximum(ltrb[:, i], ltrb[:, i + 2]) for i in (0, 1)]
    weight = {Plain: torch.ones(count), Branch: (shares[0] * shares[1]).sqrt(), Guided: iou}[type(quality)]
    giou = 1 - torchvision.ops.generalized_box_iou(predicted, box).diagonal()
    times = 1.0 if isinstance(family.assigner, FCOS) else 2.0
    # unweighted losses are divided by the positives, of which ATSS counts one in the empty picture, too
    unweighted = count + (1 if isinstance(family.assigner, ATSS) else 0)
    total = unweighted if isinstance(quality, Plain) else weight.sum()
    torch.testing.assert_close(losses["box"], times * (giou * weight).sum() / total)
    labels = torch.zeros(128, 2)
    labels[where, truths[0]["labels"][match.truth[match.positive]]] = 1
    focal = quality.classification
    cls = focal_loss(class_logits.flatten(0, 1), labels, gamma=focal.gamma, alpha=focal.alpha)
    if isinstance(quality, Guided):
        cls[labels > 0] *= iou[where.argsort()]
    # ATSS counts a picture as one positive at least, the others add the pictures to the positives
    divisor = count + (1 if isinstance(family.assigner, ATSS) else 2)
    torch.testing.assert_close(losses["cls"], cls.sum() / divisor)
    if isinstance(quality, Branch):
        bce = torch.nn.functional.binary_cross_entropy(apart.flatten()[where].sigmoid(), weight, reduction="sum")
        torch.testing.assert_close(losses["quality"], bce / (divisor if isinstance(family.assigner, ATSS) else count))


@pytest.mark.parametrize("family", [fcos(), foveabox()])
def test_a_rank_without_a_positive_does_not_raise_the_mean_over_ranks(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is divided by is bounded after the mean over ranks, of which one here has no box."""
    generator = torch.Generator().manual_seed(4)
    priors = family.priors([torch.zeros(1, 1, 64 // s, 64 // s) for s in (8, 16, 32, 64)] + [torch.zeros(1, 1, 1, 1)])
    places = sum(grid.height * grid.width for grid in priors.grids)
    logits = torch.randn(1, places, 2, generator=generator)
    quality = Plain(head(32, 2))
    raw = Raw(*quality.scores(logits, None), torch.rand(1, places, 4, 1, generator=generator), logits, None, priors)
    criterion, truths = Criterion(family, Dirac(), quality), [truth_of([[8.0, 10.0, 50.0, 40.0]], [1])]
    alone = criterion(raw, truths)
    count = criterion.pairs(raw, truths).target.positive.sum()
    assert count >= 2
    shares: list[Tensor] = []
    monkeypatch.setattr("gfocal.criterion.mean_over_ranks", lambda value: shares.append(value) or value)
    assert_same(criterion(raw, truths), alone)
    criterion(raw, [EMPTY])
    others = iter(shares[2:])
    monkeypatch.setattr("gfocal.criterion.mean_over_ranks", lambda value: (value + next(others)) / 2)
    torch.testing.assert_close(criterion(raw, truths)["box"], alone["box"] * 2)


def test_a_representations_own_box_loss_takes_the_place_of_the_familys() -> None:
    quality, box = Plain(head(32, 2)), Gaussian(weight=0.5)
    priors = square_anchors((8,))([torch.zeros(1, 1, 2, 2)])
    logits, code = torch.randn(1, 4, 2), torch.randn(1, 4, 4, 2)
    raw = Raw(logits.sigmoid(), logits.sigmoid(), code, logits, None, priors)
    losses = Criterion(atss(), box, quality)(raw, [truth_of([list(BOX)], [1])])
    assert losses.keys() == {"cls", "box"}
    torch.testing.assert_close(losses["box"], box.losses(code[0, 3:], torch.tensor([LTRB]))["box"][0])


# ---------------------------------------------------------------- what must not matter


def test_the_order_of_boxes_does_not_matter(raw: Raw, tiny_parts: Parts) -> None:
    first = TRUTHS[0]
    order = torch.tensor([2, 0, 1])
    turned = {"boxes": first["boxes"][order], "labels": first["labels"][order]}  # type: ignore[index]
    assert_same(tiny_parts.criterion(raw, [turned, *TRUTHS[1:]]), tiny_parts.criterion(raw, TRUTHS))


def test_the_order_of_pictures_does_not_matter(raw: Raw, tiny_parts: Parts) -> None:
    order = [2, 0, 1]
    turned = tiny_parts.criterion(take(raw, order), [TRUTHS[i] for i in order])
    assert_same(turned, tiny_parts.criterion(raw, TRUTHS))


def test_what_stands_on_the_padding_does_not_matter(raw: Raw, tiny_parts: Parts) -> None:
    truths = [truth_of([[10.0, 12.0, 70.0, 60.0]], [0], (64, 96)), *TRUTHS[1:]]
    points = raw.priors.points
    padding = (points[:, 0] >= 96) | (points[:, 1] >= 64)
    changed = raw.class_logits.clone()
    changed[0, padding] += 5
    other = replace(raw, class_logits=changed)
    assert_same(tiny_parts.criterion(other, truths), tiny_parts.criterion(raw, truths))
    # the same change off the padding, and without a size, matters
    changed = raw.class_logits.clone()
    changed[0, ~padding] += 5
    assert (
        tiny_parts.criterion(replace(raw, class_logits=changed), truths)["cls"]
        > (tiny_parts.criterion(raw, truths)["cls"])
    )
    whole = [TRUTHS[0], *TRUTHS[1:]]
    assert tiny_parts.criterion(other, whole)["cls"] > tiny_parts.criterion(raw, whole)["cls"]


def test_a_size_of_the_whole_batch_is_the_default(raw: Raw, tiny_parts: Parts) -> None:
    sized = [dict(truth) | {"size": (HEIGHT, WIDTH)} for truth in TRUTHS]
    assert_same(tiny_parts.criterion(raw, sized), tiny_parts.criterion(raw, TRUTHS))


def test_a_picture_without_boxes_adds_its_negatives_and_one_to_the_divisor(raw: Raw, tiny_parts: Parts) -> None:
    criterion = tiny_parts.criterion
    boxed = criterion(take(raw, [0, 1]), TRUTHS[:2])
    bare = criterion(take(raw, [2]), [EMPTY])
    together = criterion(raw, TRUTHS)
    match = criterion.family.assigner(raw.priors, ground_truth(take(raw, [0, 1]), TRUTHS[:2]))
    positives = int(match.positive.sum())
    assert positives > 2
    expected = (boxed["cls"] * positives + bare["cls"]) / (positives + 1)
    torch.testing.assert_close(together["cls"], expected)
    torch.testing.assert_close(together["box"], boxed["box"])
    torch.testing.assert_close(together["dfl"], boxed["dfl"])


# ---------------------------------------------------------------- nothing to learn, and precision


def test_without_any_box_box_losses_are_0_and_all_gradients_finite(tiny_parts: Parts) -> None:
    raw = tiny_parts.detector(images(2))
    losses = tiny_parts.criterion(raw, [EMPTY, EMPTY])
    assert losses["box"] == 0
    assert losses["dfl"] == 0
    assert losses["cls"] > 0
    sum(losses.values(), torch.zeros(())).backward()
    for name, parameter in tiny_parts.detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_boxes_that_no_location_learns_count_as_none(raw: Raw, tiny_parts: Parts) -> None:
    points = truth_of([[33.0, 33.0, 33.0, 33.0], [500.0, 500.0, 520.0, 530.0]], [0, 1])
    losses = tiny_parts.criterion(raw, [points, points, EMPTY])
    assert_same(losses, tiny_parts.criterion(raw, [EMPTY] * 3))
    assert losses["box"] == losses["dfl"] == 0


def test_no_gradient_reaches_the_padding(tiny_parts: Parts, raw: Raw) -> None:
    class_logits = raw.class_logits.clone().requires_grad_()
    truths = [truth_of([[10.0, 12.0, 70.0, 60.0]], [0], (64, 96)), *TRUTHS[1:]]
    tiny_parts.criterion(replace(raw, class_logits=class_logits), truths)["cls"].backward()
    points = raw.priors.points
    padding = (points[:, 0] >= 96) | (points[:, 1] >= 64)
    assert class_logits.grad is not None
    assert (class_logits.grad[0, padding] == 0).all()
    assert (class_logits.grad[0, ~padding] != 0).all()


def test_the_iou_label_and_the_weights_have_no_gradient(tiny_parts: Parts, raw: Raw) -> None:
    box = raw.box.clone().requires_grad_()
    class_logits = raw.class_logits.clone().requires_grad_()
    scores = class_logits.sigmoid()
    losses = tiny_parts.criterion(replace(raw, box=box, class_logits=class_logits, scores=scores), TRUTHS)
    assert torch.autograd.grad(losses["cls"], box, retain_graph=True, allow_unused=True) == (None,)
    gradient = torch.autograd.grad(losses["box"] + losses["dfl"], class_logits, allow_unused=True)
    assert gradient == (None,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_the_same_float32_under_autocast(raw: Raw, tiny_parts: Parts, dtype: torch.dtype) -> None:
    expected = tiny_parts.criterion(raw, TRUTHS)
    with torch.autocast("cpu", dtype):
        losses = tiny_parts.criterion(raw, TRUTHS)
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert_same(losses, expected)


def test_the_pairs_tell_what_is_learnt_where_and_what_stands_there(raw: Raw, tiny_parts: Parts) -> None:
    criterion = tiny_parts.criterion
    pairs = criterion.pairs(raw, TRUTHS)
    target, count = pairs.target, len(raw.priors)
    assert target.positive.any()
    for row in target.positive.nonzero()[:, 0].tolist():
        picture, place = divmod(int(target.location[row]), count)
        prior = raw.priors[torch.tensor([place])]
        assert torch.equal(target.priors.points[row], prior.points[0])
        assert torch.equal(pairs.code[row], raw.box[picture, place])
        box = criterion.family.coding.decode(prior, criterion.box.values(raw.box[picture, place][None]))
        torch.testing.assert_close(pairs.predicted.boxes[row], box[0])
        own = TRUTHS[picture]["boxes"]
        assert isinstance(own, Tensor)
        assert target.boxes[row].tolist() in own.tolist()
        torch.testing.assert_close(target.iou[row], torchvision.ops.box_iou(box, target.boxes[row][None])[0, 0])


def test_each_picture_needs_its_ground_truth(raw: Raw, tiny_parts: Parts) -> None:
    with pytest.raises(ValueError, match="2 ground truths were given for a batch of 3"):
        tiny_parts.criterion(raw, TRUTHS[:2])


@pytest.mark.parametrize(
    ("boxes", "labels"),
    [(torch.rand(3, 4), torch.zeros(2)), (torch.rand(4), torch.zeros(1)), (torch.rand(2, 5), torch.zeros(2))],
)
def test_boxes_and_labels_that_do_not_go_together_are_refused(
    raw: Raw, tiny_parts: Parts, boxes: Tensor, labels: Tensor
) -> None:
    truths = [*TRUTHS[:2], {"boxes": boxes, "labels": labels.long()}]
    with pytest.raises(ValueError, match=r"picture 2 of the batch: boxes must be \(g, 4\) and labels \(g,\)"):
        tiny_parts.criterion(raw, truths)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_boxes_that_are_not_finite_are_refused(raw: Raw, tiny_parts: Parts, value: float) -> None:
    wrong = {"boxes": torch.tensor([[1.0, 1.0, 9.0, value]]), "labels": torch.zeros(1, dtype=torch.long)}
    with pytest.raises(ValueError, match=r"boxes must be finite, got \[1.0, 1.0, 9.0, (nan|inf)\]"):
        tiny_parts.criterion(raw, [*TRUTHS[:2], wrong])


def test_labels_beyond_the_classes_are_refused(raw: Raw, tiny_parts: Parts) -> None:
    wrong = truth_of([[10.0, 12.0, 70.0, 65.0]], [3])
    with pytest.raises(ValueError, match="label"):
        tiny_parts.criterion(raw, [wrong, *TRUTHS[1:]])
