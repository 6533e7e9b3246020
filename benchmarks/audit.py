"""How many of the labels that `gfocal audit` doubts first are wrong, when some are made wrong on purpose.

Boxes drawn at random, 3 % for each kind of flaw, are spoilt: one side shifted by 15 to 30 % of the box, dropped, given
another class, doubled with a jitter of 3 %; and as many boxes that stand for nothing are added. A suspicion is right
where it is of the kind and the place of such a flaw. Labels of real data are wrong already here and there, and what
the audit finds of that counts against it.

    python benchmarks/audit.py MODEL DATA --split SPLIT [--pictures N] [--rounds R]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor
from torchvision.ops import box_iou

import gfocal
from gfocal.analysis.audit import KINDS, Audit, Suspicion, audit_pairs
from gfocal.data.opening import open_dataset
from gfocal.heads import open_heads
from gfocal.structures import Detections, Truth
from gfocal.testing import detect

SHARE = 0.03
SHIFT = (0.15, 0.30)
JITTER = 0.03
Pairs = list[tuple[Truth, Detections]]


@dataclass(frozen=True)
class Flaw:
    """What was spoilt: the kind, the picture, the box as it was or is, and its place, None for a dropped one."""

    kind: str
    index: int
    box: Tensor
    annotation: int | None


@dataclass
class Labels:
    """The labels of one picture while they are spoilt."""

    boxes: list[Tensor]
    labels: list[int]
    flaws: list[tuple[str, Tensor, int | None]]


def spoilt(pairs: Pairs, classes: int, *, seed: int) -> tuple[Pairs, list[Flaw]]:
    """Return the pairs with labels made wrong, and what was done; crowds are left as they are."""
    dice = random.Random(seed)
    places = [(i, j) for i, (t, _) in enumerate(pairs) for j in range(len(t.boxes)) if usable(t, j)]
    count = max(round(SHARE * len(places)), 5)
    kinds = [kind for kind in KINDS if kind != "class" or classes > 1]
    chosen = dice.sample(places, count * len(kinds))
    work = {place: kind for number, kind in enumerate(kinds) for place in chosen[number * count : (number + 1) * count]}
    result: Pairs = []
    flaws: list[Flaw] = []
    for index, (truth, found) in enumerate(pairs):
        mine = {j: kind for (i, j), kind in work.items() if i == index}
        new, done = spoil(truth, mine, classes, dice)
        result.append((new, found))
        flaws += [Flaw(kind, index, box, place) for kind, box, place in done]
    return result, flaws


def usable(truth: Truth, place: int) -> bool:
    """Return whether a box is no crowd and large enough for a shift of it to be seen, 8 pixels a side."""
    box = truth.boxes[place]
    return not bool(truth.crowd[place]) and bool((box[2:] - box[:2]).min() >= 8)


def spoil(
    truth: Truth, kinds: dict[int, str], classes: int, dice: random.Random
) -> tuple[Truth, list[tuple[str, Tensor, int | None]]]:
    """Return a truth with the boxes named spoilt, and what was done; a spurious flaw adds a box of the size of one."""
    kept: list[tuple[Tensor, int, bool, str]] = []
    dropped: list[Tensor] = []
    extra: list[tuple[Tensor, int, bool, str]] = []
    for place, (box, label, crowd) in enumerate(zip(truth.boxes, truth.labels.tolist(), truth.crowd, strict=True)):
        kind = kinds.get(place, "")
        if kind == "missed":
            dropped.append(box)
            continue
        if kind == "duplicate":
            extra.append((jittered(box, dice), label, False, kind))
        if kind == "spurious":
            free = empty_place(box, truth, dice)
            extra += [] if free is None else [(free, label, False, kind)]
        new_box = shifted(box, truth.size, dice) if kind == "edge" else box
        others = [other for other in range(classes) if other != label]
        new_label = dice.choice(others) if kind == "class" else label
        kept.append((new_box, new_label, bool(crowd), kind if kind in ("edge", "class") else ""))
    rows = kept + extra
    flaws: list[tuple[str, Tensor, int | None]] = [("missed", box, None) for box in dropped]
    flaws += [(kind, box, place) for place, (box, _, _, kind) in enumerate(rows) if kind]
    new = replace(
        truth,
        boxes=torch.stack([row[0] for row in rows]) if rows else torch.zeros(0, 4),
        labels=torch.tensor([row[1] for row in rows], dtype=torch.long),
        crowd=torch.tensor([row[2] for row in rows], dtype=torch.bool),
        softness=None,
        areas=None,
        ids=None,
    )
    return new, flaws


def shifted(box: Tensor, size: tuple[int, int], dice: random.Random) -> Tensor:
    """Return the box with one side moved by 15 to 30 % of it, inwards where it would leave the picture."""
    edge = dice.randrange(4)
    side = float(box[2 + edge % 2] - box[edge % 2])
    step = dice.choice((-1, 1)) * dice.uniform(*SHIFT) * side
    limit = size[1] if edge % 2 == 0 else size[0]
    if not 0 <= float(box[edge]) + step <= limit:
        step = -step
    moved = box.clone()
    moved[edge] += step
    return moved


def jittered(box: Tensor, dice: random.Random) -> Tensor:
    width, height = (box[2:] - box[:2]).tolist()
    return box + torch.tensor([dice.uniform(-JITTER, JITTER) * side for side in (width, height, width, height)])


def empty_place(box: Tensor, truth: Truth, dice: random.Random) -> Tensor | None:
    """Return the box moved to where no other is, or None where there is no such place."""
    width, height = (box[2:] - box[:2]).tolist()
    for _ in range(50):
        left, top = dice.uniform(0, max(truth.size[1] - width, 0)), dice.uniform(0, max(truth.size[0] - height, 0))
        moved = torch.tensor([left, top, left + width, top + height])
        if float(box_iou(moved[None], truth.boxes).max()) < 0.1:
            return moved
    return None


def is_right(suspicion: Suspicion, flaws: Sequence[Flaw]) -> bool:
    """Return whether a suspicion is of the kind and place of a flaw; of two copies either may be named."""
    for flaw in flaws:
        if (flaw.kind, flaw.index) != (suspicion.kind, suspicion.index):
            continue
        if suspicion.kind in ("edge", "class", "spurious") and suspicion.annotation == flaw.annotation:
            return True
        box = suspicion.box if suspicion.kind == "duplicate" else suspicion.expected_box
        near = box is not None and float(box_iou(torch.tensor([box]), flaw.box[None])) >= 0.5
        if near and suspicion.kind in ("missed", "duplicate"):
            return True
    return False


def is_spoilt(suspicion: Suspicion, flaws: Sequence[Flaw]) -> bool:
    """Return whether a suspicion of any kind points at a spoilt label."""
    boxes = [torch.tensor([box]) for box in (suspicion.box, suspicion.expected_box) if box is not None]
    near = [flaw for flaw in flaws if flaw.index == suspicion.index]
    return any(float(box_iou(box, flaw.box[None])) >= 0.5 for flaw in near for box in boxes)


def measured(found: Audit, flaws: Sequence[Flaw]) -> dict[str, dict[str, float]]:
    """Return the precision among the first suspicions of each kind: 10, 25, 50, and as many as there are flaws."""
    rows: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        mine = [flaw for flaw in flaws if flaw.kind == kind]
        if mine:
            right = [is_right(suspicion, mine) for suspicion in found.of_kind(kind)]
            rows[kind] = {"flaws": len(mine)} | precisions(right, len(mine))
    right = [is_spoilt(suspicion, flaws) for suspicion in found.suspicions]
    rows["all, in one list"] = {"flaws": len(flaws)} | precisions(right, len(flaws))
    return rows


def precisions(right: Sequence[bool], flaws: int) -> dict[str, float]:
    row = {f"@{k}": sum(right[:k]) / k for k in (10, 25, 50) if k <= flaws}
    return row | {"@flaws": sum(right[:flaws]) / flaws}


def collected(model: str, data: str, split: str, pictures: int | None) -> tuple[Pairs, int]:
    if model.endswith(".npz"):
        opened = open_heads(model, data, split=split)
        return list(islice(opened, pictures)), len(opened.class_names)
    dataset = open_dataset(data, split)
    return list(islice(detect(gfocal.load(model), dataset), pictures)), len(dataset.class_names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("data", nargs="?")
    parser.add_argument("--split", default="val")
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--rounds", type=int, default=5, help="times that labels are spoilt, each with another seed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.model is None or options.data is None:
        print("name a trained model and a data set: benchmarks/audit.py MODEL DATA", file=sys.stderr)
        return
    pairs, classes = collected(options.model, options.data, options.split, options.pictures)
    tables = []
    for seed in range(options.rounds):
        changed, flaws = spoilt(pairs, classes, seed=seed)
        tables.append(measured(audit_pairs(changed, least=0.0), flaws))
    boxes = sum(len(truth.boxes) for truth, _ in pairs)
    mean = {
        kind: {key: statistics.mean(table[kind][key] for table in tables if key in table[kind]) for key in row}
        for kind, row in tables[0].items()
    }
    if options.json:
        print(json.dumps({"pictures": len(pairs), "boxes": boxes, "rounds": options.rounds, "precision": mean}))
        return
    print(f"{len(pairs)} pictures, {boxes} boxes, mean of {options.rounds} rounds")
    for kind, row in mean.items():
        print(
            f"{kind:<18}{row['flaws']:>6.0f} flaws  " + "  ".join(f"{k} {v:.2f}" for k, v in row.items() if k[0] == "@")
        )


if __name__ == "__main__":
    main()
