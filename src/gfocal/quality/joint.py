"""Class score and localisation quality as one number, learnt with the quality focal loss (V1, V2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gfocal.classification import PRIOR_PROBABILITY
from gfocal.errors import at_least
from gfocal.ops.distributions import top_probabilities
from gfocal.ops.losses import quality_focal_loss, quality_focal_loss_of_product
from gfocal.quality.base import Head, Quality, one_number, output_conv
from gfocal.structures import Raw, Target

Statistic = Literal["top", "mean", "var"]


@final
class Joint(Quality):
    """One number predicted by the class branch alone (V1 Sec. 3, "joint w/ QFL").

    beta: exponent of the quality focal loss.
    """

    def __init__(self, head: Head, *, beta: float = 2.0) -> None:
        super().__init__()
        self.beta = at_least("beta", beta, 0)
        self.cls = output_conv(head.channels, head.anchors * head.num_classes, probability=PRIOR_PROBABILITY)

    def forward(
        self,
        cls_feature: Float[Tensor, "b c height width"],
        box_feature: Float[Tensor, "b c height width"],
        box: Float[Tensor, "b e height width"],
    ) -> tuple[Float[Tensor, "b k height width"], None]:
        """Return the joint logits; no quality apart."""
        return self.cls(cls_feature), None

    def scores(
        self, class_logits: Float[Tensor, "b n k"], quality_logits: Float[Tensor, "b n"] | None
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
        """Return the sigmoid of the joint logits, for both."""
        return joint_scores(class_logits)

    def losses(self, raw: Raw, target: Target) -> dict[str, Tensor]:
        """Return `cls`, the quality focal loss against the IoU at the true class (V1 Eq. 2)."""
        return joint_losses(raw, target, beta=self.beta)

    def box_weight(self, raw: Raw, target: Target) -> Float[Tensor, " p"]:
        """Return the highest joint score at each location."""
        return best_score(raw, target)


@final
class DGQP(Quality):
    """Class score times an IoU read off the edge distributions (V2 Sec. 3.2, Eq. 3 to 5).

    top_k: how many of the highest probabilities of each edge are looked at. statistics: what of them is read, the
    values themselves, their mean, their variance (V2 Table 1). hidden: width p of the hidden layer. beta: exponent of
    the quality focal loss.
    """

    max_anchors = 1

    def __init__(
        self,
        head: Head,
        *,
        top_k: int = 4,
        statistics: tuple[Statistic, ...] = ("top", "mean"),
        hidden: int = 64,
        beta: float = 2.0,
    ) -> None:
        super().__init__()
        self.read = Statistics(top_k, statistics)
        self.min_bins = top_k
        self.beta = at_least("beta", beta, 0)
        self.cls = output_conv(head.channels, head.num_classes, probability=PRIOR_PROBABILITY)
        self.predictor = one_number(self.read.size, at_least("hidden", hidden, 1))

    def forward(
        self,
        cls_feature: Float[Tensor, "b c height width"],
        box_feature: Float[Tensor, "b c height width"],
        box: Float[Tensor, "b e height width"],
    ) -> tuple[Float[Tensor, "b k height width"], Float[Tensor, "b 1 height width"]]:
        """Return class logits, and the logit of I (Eq. 5) from the edge distributions of `box`."""
        return self.cls(cls_feature), self.predictor(self.read(box))

    def scores(
        self, class_logits: Float[Tensor, "b n k"], quality_logits: Float[Tensor, "b n"] | None
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
        """Return J = C × I (Eq. 3), for both."""
        return product_scores(class_logits, quality_logits)

    def losses(self, raw: Raw, target: Target) -> dict[str, Tensor]:
        """Return `cls`, the quality focal loss of the product against the IoU at the true class."""
        return product_losses(raw, target, beta=self.beta)

    def box_weight(self, raw: Raw, target: Target) -> Float[Tensor, " p"]:
        """Return the highest joint score at each location."""
        return best_score(raw, target)


@final
class Composed(Quality):
    """One number predicted from the class feature and what is read off the edge distributions (V2 Fig. 5, right).

    dims: d, how many channels the statistics become before they join the class feature (V2 Table 4). top_k,
    statistics, beta: as of `DGQP`.
    """

    max_anchors = 1

    def __init__(
        self,
        head: Head,
        *,
        dims: int = 64,
        top_k: int = 4,
        statistics: tuple[Statistic, ...] = ("top", "mean"),
        beta: float = 2.0,
    ) -> None:
        super().__init__()
        self.read = Statistics(top_k, statistics)
        self.min_bins = top_k
        self.beta = at_least("beta", beta, 0)
        dims = at_least("dims", dims, 1)
        self.enrich = nn.Sequential(nn.Conv2d(self.read.size, dims, 1), nn.ReLU(inplace=True))
        self.cls = output_conv(head.channels + dims, head.num_classes, probability=PRIOR_PROBABILITY)

    def forward(
        self,
        cls_feature: Float[Tensor, "b c height width"],
        box_feature: Float[Tensor, "b c height width"],
        box: Float[Tensor, "b e height width"],
    ) -> tuple[Float[Tensor, "b k height width"], None]:
        """Return the joint logits; no quality apart."""
        return self.cls(torch.cat([cls_feature, self.enrich(self.read(box))], dim=1)), None

    def scores(
        self, class_logits: Float[Tensor, "b n k"], quality_logits: Float[Tensor, "b n"] | None
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
        """Return the sigmoid of the joint logits, for both."""
        return joint_scores(class_logits)

    def losses(self, raw: Raw, target: Target) -> dict[str, Tensor]:
        """Return `cls`, the quality focal loss against the IoU at the true class (V1 Eq. 2)."""
        return joint_losses(raw, target, beta=self.beta)

    def box_weight(self, raw: Raw, target: Target) -> Float[Tensor, " p"]:
        """Return the highest joint score at each location."""
        return best_score(raw, target)


@final
class Statistics(nn.Module):
    """What the flatness of each edge's distribution is read from (V2 Eq. 4: Topkm).

    size: how many numbers that makes for the four edges.
    """

    def __init__(self, top_k: int, statistics: tuple[Statistic, ...]) -> None:
        super().__init__()
        self.top_k = at_least("top_k", top_k, 1)
        if not statistics or len(set(statistics)) != len(statistics):
            raise ValueError(f"statistics must name one or more of top, mean and var, each once, got {statistics}")
        self.names = statistics
        self.size = 4 * sum(top_k if name == "top" else 1 for name in statistics)

    def forward(self, box: Float[Tensor, "b e height width"]) -> Float[Tensor, "b f height width"]:
        """Return the statistics of the logits of four distributions, edge by edge."""
        top = top_probabilities(box, self.top_k)
        return torch.cat([STATISTICS[name](top) for name in self.names], dim=2).flatten(1, 2)


STATISTICS: Mapping[Statistic, Callable[[Tensor], Tensor]] = {
    "top": lambda top: top,
    "mean": lambda top: top.mean(dim=2, keepdim=True),
    "var": lambda top: top.var(dim=2, keepdim=True, correction=0),
}


def joint_scores(class_logits: Float[Tensor, "b n c"]) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
    """Return the sigmoid, which ranks and is held against the threshold."""
    scores = class_logits.sigmoid()
    return scores, scores


def joint_losses(raw: Raw, target: Target, *, beta: float) -> dict[str, Tensor]:
    """Return `cls`, the quality focal loss of the joint logits against the IoU at the true class."""
    labels = target.at_true_class(target.iou * target.positive, like=raw.class_logits)
    return {"cls": quality_focal_loss(raw.class_logits, labels, beta=beta)}


def product_scores(
    class_logits: Float[Tensor, "b n c"], quality_logits: Float[Tensor, "b n"] | None
) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
    """Return J = C × I (V2 Eq. 3), which ranks and is held against the threshold."""
    assert quality_logits is not None
    scores = class_logits.sigmoid() * quality_logits.sigmoid()[..., None]
    return scores, scores


def product_losses(raw: Raw, target: Target, *, beta: float) -> dict[str, Tensor]:
    """Return `cls`, the quality focal loss of J = C × I against the IoU at the true class."""
    assert raw.quality_logits is not None
    labels = target.at_true_class(target.iou * target.positive, like=raw.class_logits)
    return {"cls": quality_focal_loss_of_product(raw.class_logits, raw.quality_logits, labels, beta=beta)}


def best_score(raw: Raw, target: Target) -> Float[Tensor, " p"]:
    """Return the highest class score at the location of each pair, detached: the reference's weight of box losses."""
    return raw.scores.detach().flatten(0, 1)[target.location].amax(-1)
