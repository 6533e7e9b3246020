"""A distribution-guided quality predictor (V2 Sec. 3.2) fitted to finished detections: one fit, one file, one use."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.ops import box_iou

from gfocal.errors import UserError, at_least
from gfocal.files import whole_or_absent
from gfocal.heads import HeadOutputs
from gfocal.quality.base import one_number
from gfocal.quality.joint import Statistics
from gfocal.structures import Detections, EdgeDistributions, Truth

FORMAT = "gfocal-rescorer-1"
OVERLAP = 0.3
"""IoU with an annotated box of any class above which a box is one to learn from: others stand for nothing."""
STEPS = 60
"""Steps over all boxes: on 64 pictures of COCO, more of them no longer raised the correlation on other pictures."""
MOST_BOXES = 50_000
"""Boxes learnt from at most, drawn at random: the predictor has some thousand parameters at most."""

Pairs = Sequence[tuple[Truth, Detections]]


@final
@dataclass(frozen=True, eq=False)
class Rescorer:
    """Ranks boxes by score^a × quality^b, the quality read off their edge distributions as V2's DGQP reads it.

    read: the statistics of the edges. predictor: from them to the logit of the quality (V2 Eq. 5). score_power,
    quality_power: a and b.
    """

    read: Statistics
    predictor: nn.Sequential
    score_power: float = 1.0
    quality_power: float = 0.5

    def quality(self, edges: EdgeDistributions) -> Float[Tensor, " n"]:
        """Return the predicted IoU of each box with the object it stands for, 0..1.

        >>> from gfocal import EdgeDistributions
        >>> from gfocal.analysis.rescoring import Rescorer
        >>> rescorer = Rescorer.fresh(top_k=2, hidden=8)
        >>> edges = EdgeDistributions(torch.ones(3, 4, 5) / 5, torch.arange(5.0).expand(3, 4, 5))
        >>> rescorer.quality(edges).shape
        torch.Size([3])
        """
        if not len(edges):
            return edges.probabilities.new_zeros(0)
        with torch.no_grad():
            return self.predictor(self.read(as_plane(edges))).flatten().sigmoid()

    def __call__(self, found: Detections) -> Detections:
        """Return the boxes with their new scores, best first, and the quality beside them; ValueError without edges.

        Give it the candidates before suppression, then suppress: which box of an object survives is half of the use.
        """
        if found.edges is None:
            raise ValueError("the detections have no edge distributions to read a quality from")
        quality = self.quality(found.edges)
        scores = found.scores**self.score_power * quality**self.quality_power
        rescored = replace(found, scores=scores, quality=quality)
        return rescored[scores.argsort(descending=True, stable=True)]

    def apply(self, heads: HeadOutputs, *, threshold: float = 0.05) -> HeadOutputs:
        """Return the outputs of a head with new scores; those at or under the threshold on the old ones become 0.

        Decode the result with threshold 0: new scores are on another scale than the old threshold.

        >>> from gfocal.analysis.rescoring import Rescorer
        >>> heads = HeadOutputs(
        ...     torch.tensor([1]), torch.tensor([[0.9, 0.01]]), torch.zeros(1, 4, 5), torch.zeros(1, 2), torch.ones(1)
        ... )
        >>> Rescorer.fresh(top_k=2, hidden=8).apply(heads).scores[0, 1].item()
        0.0
        """
        quality = self.quality(heads.edges())[:, None]
        scores = heads.scores**self.score_power * quality**self.quality_power
        return replace(heads, scores=scores.where(heads.scores > threshold, 0))

    @classmethod
    def fresh(cls, *, top_k: int = 4, hidden: int = 64) -> Rescorer:
        """Return a rescorer that has learnt nothing yet. top_k, hidden: k and p of V2's Table 1 and 2.

        >>> from gfocal.analysis.rescoring import Rescorer
        >>> Rescorer.fresh(top_k=4, hidden=64).read.size
        20
        """
        read = Statistics(top_k, ("top", "mean"))
        return cls(read, one_number(read.size, at_least("hidden", hidden, 1)))

    def save(self, path: str | Path) -> None:
        """Write the rescorer as one .safetensors file, whole or not at all; UserError where that cannot be done.

        >>> import tempfile
        >>> from gfocal.analysis.rescoring import Rescorer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Rescorer.fresh().save(f"{folder}/rescorer.safetensors")
        ...     Rescorer.load(f"{folder}/rescorer.safetensors").quality_power
        0.5
        """
        if Path(path).suffix != ".safetensors":
            raise UserError(f"{path}: a rescorer is a .safetensors file: let the name end so")
        about = {
            "format": FORMAT,
            "top_k": self.read.top_k,
            "hidden": cast(nn.Conv2d, self.predictor[0]).out_channels,
            "score_power": self.score_power,
            "quality_power": self.quality_power,
        }
        state = {name: value.contiguous() for name, value in self.predictor.state_dict().items()}
        with whole_or_absent(Path(path)) as scratch:
            save_file(state, scratch, metadata={"rescorer": json.dumps(about)})

    @classmethod
    def load(cls, path: str | Path) -> Rescorer:
        """Return what `save` wrote; UserError where the file is missing or something else.

        >>> from gfocal.analysis.rescoring import Rescorer
        >>> Rescorer.load("missing.safetensors")
        Traceback (most recent call last):
        gfocal.errors.UserError: missing.safetensors: there is no such file: write one with gfocal rescore -o
        """
        if not Path(path).is_file():
            raise UserError(f"{path}: there is no such file: write one with gfocal rescore -o")
        try:
            with safe_open(path, framework="pt") as file:
                about: dict[str, Any] = json.loads((file.metadata() or {})["rescorer"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
            rescorer = cls.fresh(top_k=about["top_k"], hidden=about["hidden"])
            rescorer.predictor.load_state_dict(state)
            return replace(rescorer, score_power=about["score_power"], quality_power=about["quality_power"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{path}: not a rescorer of gfocal rescore -o: write it again") from error


def as_plane(edges: EdgeDistributions) -> Float[Tensor, "1 e n 1"]:
    """Return logits of the distributions as one picture of n rows, in the form in which heads put them out."""
    tiny = torch.finfo(edges.probabilities.dtype).tiny
    return edges.probabilities.clamp(min=tiny).log().flatten(1).t()[None, :, :, None].contiguous()


def fit_rescorer(pairs: Pairs, *, top_k: int = 4, hidden: int = 64, seed: int = 0) -> Rescorer:
    """Return a rescorer whose quality has learnt the IoU of the boxes with what is annotated; its powers are 1 and 0.5.

    pairs: truth and candidates before suppression of each picture. Learnt by cross-entropy from boxes that overlap an
    annotated one of any class by more than 0.3, so that the quality tells of the box alone, and the score of the class.
    UserError where there are fewer than 20 such boxes, ValueError where edges are missing or have fewer bins than k.

    >>> from gfocal import Detections, EdgeDistributions
    >>> from gfocal.analysis.rescoring import fit_rescorer
    >>> boxes = torch.tensor([0.0, 0.0, 10.0, 10.0]) + 0.01 * torch.arange(40.0)[:, None]
    >>> label = torch.zeros(40, dtype=torch.long)
    >>> edges = EdgeDistributions(torch.rand(40, 4, 5).softmax(-1), torch.arange(5.0).expand(40, 4, 5))
    >>> found = Detections(boxes, torch.rand(40), label, ("cat",), edges=edges)
    >>> truth = Truth(1, "1.png", (20, 20), boxes[:1], label[:1], torch.tensor([False]))
    >>> bool(fit_rescorer([(truth, found)], top_k=2, hidden=8).quality(edges).min() > 0.5)
    True
    """
    dice = torch.Generator().manual_seed(seed)
    planes: list[Tensor] = []
    targets: list[Tensor] = []
    for truth, found in pairs:
        if found.edges is None:
            raise ValueError("the detections have no edge distributions to read a quality from")
        boxes = first_of_each_box(found)
        iou = overlap(found.boxes[boxes], truth)
        planes.append(as_plane(found.edges[boxes[iou > OVERLAP]]))
        targets.append(iou[iou > OVERLAP])
    target = torch.cat(targets)
    if len(target) < 20:
        raise UserError(
            f"only {len(target)} candidates overlap an annotated box by more than {OVERLAP}: give more pictures"
        )
    plane = torch.cat(planes, dim=2)
    if len(target) > MOST_BOXES:
        chosen = torch.randperm(len(target), generator=dice)[:MOST_BOXES]
        plane, target = plane[:, :, chosen], target[chosen]
    rescorer = Rescorer.fresh(top_k=top_k, hidden=hidden)
    _learn(rescorer.predictor, rescorer.read(plane).detach(), target, dice)
    return rescorer


def _learn(predictor: nn.Sequential, inputs: Float[Tensor, "1 f n 1"], target: Tensor, dice: torch.Generator) -> None:
    """Fit the predictor to the targets on standardised inputs, whose scale then goes into its first layer."""
    first, last = cast(nn.Conv2d, predictor[0]), cast(nn.Conv2d, predictor[2])
    assert first.bias is not None
    assert last.bias is not None
    mean = inputs.mean(2, keepdim=True)
    std = inputs.std(2, keepdim=True).clamp(min=1e-6)
    scaled = (inputs - mean) / std
    for layer in (first, last):  # not the small weights of a head's start, from where a short fit does not get away
        nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.in_channels), generator=dice)
    share = target.mean().clamp(0.01, 0.99)
    nn.init.constant_(last.bias, float(share.logit()))
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=0.01, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    with torch.enable_grad():
        for _ in range(STEPS):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(predictor(scaled).flatten(), target).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        first.bias -= (first.weight * (mean / std).view(1, -1, 1, 1)).sum((1, 2, 3))
        first.weight /= std.view(1, -1, 1, 1)
    predictor.requires_grad_(False).eval()


def first_of_each_box(found: Detections) -> Int[Tensor, " m"]:
    """Return one row of each location: rows of one box stand for several classes, of which the best score is taken."""
    order = found.scores.argsort(descending=True, stable=True)
    boxes, inverse = found.boxes[order].unique(dim=0, return_inverse=True)
    first = torch.full((len(boxes),), len(order)).scatter_reduce(0, inverse, torch.arange(len(order)), "amin")
    return order[first.sort().values]


def overlap(boxes: Float[Tensor, "n 4"], truth: Truth) -> Float[Tensor, " n"]:
    """Return the highest IoU of each box with an annotated one of any class, crowds left out, 0 where there is none."""
    objects = truth.boxes[~truth.crowd]
    if not len(objects):
        return boxes.new_zeros(len(boxes))
    return box_iou(boxes, objects).nan_to_num(nan=0.0).amax(1)
