"""Localisation quality read off convolutional features at chosen places of the box (V2 Fig. 2, Table 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gfocal.classification import PRIOR_PROBABILITY
from gfocal.errors import at_least
from gfocal.nn.dcn import DeformConv2d
from gfocal.quality.base import Head, Quality, output_conv
from gfocal.quality.joint import best_score, product_losses, product_scores
from gfocal.structures import Raw, Target

Places = Literal["point", "region", "border_dense", "border_middle", "border_extreme", "star", "deformable"]


@final
class ConvFeatures(Quality):
    """Class score times an IoU predicted from box features (V2 Fig. 2 a to g), learnt as in `DGQP`.

    places: where features are read. hidden: width p of the hidden layer. beta: exponent of the quality focal loss.
    """

    max_anchors = 1

    def __init__(self, head: Head, *, places: Places = "point", hidden: int = 64, beta: float = 2.0) -> None:
        super().__init__()
        self.beta = at_least("beta", beta, 0)
        self.ltrb = head.ltrb
        self.cls = output_conv(head.channels, head.num_classes, probability=PRIOR_PROBABILITY)
        self.hidden = HIDDEN[places](head.channels, at_least("hidden", hidden, 1))
        self.predictor = nn.Conv2d(hidden, 1, 1)
        assert self.predictor.bias is not None
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)

    def forward(
        self,
        cls_feature: Float[Tensor, "b c height width"],
        box_feature: Float[Tensor, "b c height width"],
        box: Float[Tensor, "b e height width"],
    ) -> tuple[Float[Tensor, "b k height width"], Float[Tensor, "b 1 height width"]]:
        """Return class logits, and the logit of I from the features; no gradient flows through the places."""
        hidden = self.hidden(box_feature, self.ltrb(box.detach()))
        return self.cls(cls_feature), self.predictor(hidden.relu())

    def scores(
        self, class_logits: Float[Tensor, "b n k"], quality_logits: Float[Tensor, "b n"] | None
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
        """Return J = C × I (V2 Eq. 3), for both."""
        return product_scores(class_logits, quality_logits)

    def losses(self, raw: Raw, target: Target) -> dict[str, Tensor]:
        """Return `cls`, the quality focal loss of the product against the IoU at the true class."""
        return product_losses(raw, target, beta=self.beta)

    def box_weight(self, raw: Raw, target: Target) -> Float[Tensor, " p"]:
        """Return the highest joint score at each location."""
        return best_score(raw, target)


@final
class Sampled(nn.Module):
    """A fully connected layer over features read at places of each cell's box.

    places: (g, s, 2) where, as shares of the box, 0 its left or top edge and 1 its right or bottom: s samples for each
    of g inputs of the layer. reduce: how the samples of an input become one.

    The layer is applied before features are read, because the map has fewer channels after it. For the mean that makes
    no difference, both steps being linear; before a maximum, BorderDet (Qiu et al. 2020) has its layer too.
    """

    def __init__(
        self, channels: int, hidden: int, places: Float[Tensor, "g s 2"], *, reduce: Literal["mean", "max"] = "mean"
    ) -> None:
        super().__init__()
        self.register_buffer("places", places, persistent=False)
        self.places: Tensor
        self.reduce: Literal["mean", "max"] = reduce
        self.layer = nn.Conv2d(channels, hidden * len(places), 1)
        assert self.layer.bias is not None
        nn.init.kaiming_normal_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(
        self, feature: Float[Tensor, "b c h w"], ltrb: Float[Tensor, "b 4 h w"]
    ) -> Float[Tensor, "b hidden h w"]:
        """Return the layer's output for each cell; ltrb: distances in cells from its point to the edges."""
        batch, _, height, _ = feature.shape
        groups, samples, _ = self.places.shape
        maps = self.layer(feature).unflatten(1, (groups, -1)).transpose(0, 1)
        # each input reads its own maps: they lie side by side along the batch
        read = F.grid_sample(
            maps.flatten(0, 1), self._grid(ltrb).flatten(0, 1).to(maps.dtype), padding_mode="border", align_corners=True
        )
        read = read.unflatten(0, (groups, batch)).unflatten(3, (samples, height))
        read = read.mean(dim=3) if self.reduce == "mean" else read.amax(dim=3)
        return read.sum(dim=0)

    def _grid(self, ltrb: Float[Tensor, "b 4 h w"]) -> Float[Tensor, "g b sh w 2"]:
        """Return the places of every cell in -1..1 over the map, the samples one above the other."""
        height, width = ltrb.shape[-2:]
        axes = ltrb.unflatten(1, (2, 2)).permute(1, 0, 3, 4, 2)  # nearer and farther edge, each x and y
        rows, columns = torch.meshgrid(
            torch.arange(height, device=ltrb.device), torch.arange(width, device=ltrb.device), indexing="ij"
        )
        cells = torch.stack([columns, rows], dim=-1).to(ltrb.dtype)
        share = self.places.to(ltrb.dtype)[:, None, :, None, None]
        coordinates = cells - (1 - share) * axes[0][None, :, None] + share * axes[1][None, :, None]
        x, y = coordinates.unbind(-1)
        places = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)
        return places.flatten(2, 3)


@final
class AtPoint(nn.Module):
    """A fully connected layer over the feature of each cell itself."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, hidden, 1)

    def forward(
        self, feature: Float[Tensor, "b c h w"], ltrb: Float[Tensor, "b 4 h w"]
    ) -> Float[Tensor, "b hidden h w"]:
        """Return the layer's output; the box is not looked at."""
        return self.layer(feature)


@final
class AtStar(nn.Module):
    """A fully connected layer over the cell itself, and corners and middles of the edges of its box (VarifocalNet)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.centre = nn.Conv2d(channels, hidden, 1)
        self.around = Sampled(channels, hidden, STAR)

    def forward(
        self, feature: Float[Tensor, "b c h w"], ltrb: Float[Tensor, "b 4 h w"]
    ) -> Float[Tensor, "b hidden h w"]:
        """Return the layer's output."""
        return self.centre(feature) + self.around(feature, ltrb)


@final
class AtLearntPlaces(nn.Module):
    """A deformable convolution, which learns where to look (Dai et al. 2017)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layer = DeformConv2d(nn.Conv2d(channels, hidden, 3, padding=1))

    def forward(
        self, feature: Float[Tensor, "b c h w"], ltrb: Float[Tensor, "b 4 h w"]
    ) -> Float[Tensor, "b hidden h w"]:
        """Return the layer's output; the box is not looked at."""
        return self.layer(feature)


def _along(side: int, shares: Float[Tensor, " s"]) -> Float[Tensor, "s 2"]:
    """Return places along one side of the box: left, top, right, bottom."""
    fixed = torch.full_like(shares, float(side >= 2))
    return torch.stack([fixed, shares] if side % 2 == 0 else [shares, fixed], dim=-1)


def _borders(samples: int) -> Float[Tensor, "4 s 2"]:
    """Return `samples` places from end to end of each side."""
    return torch.stack([_along(side, torch.linspace(0, 1, samples)) for side in range(4)])


def _bins(bins: int, samples: int) -> Float[Tensor, "g s 2"]:
    """Return bins x bins cells of the box, each with samples x samples places spread evenly (as RoIAlign reads)."""
    shares = (torch.arange(bins * samples) + 0.5) / (bins * samples)
    x, y = torch.meshgrid(shares, shares, indexing="ij")
    places = torch.stack([x, y], dim=-1).unflatten(1, (bins, samples)).unflatten(0, (bins, samples))
    return places.transpose(1, 2).reshape(bins * bins, samples * samples, 2)


BORDER_SAMPLES = 5
MIDDLES = torch.stack([_along(side, torch.tensor([0.5])) for side in range(4)])
STAR = torch.cat([MIDDLES, torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]])])

HIDDEN: Mapping[Places, Callable[[int, int], nn.Module]] = {
    "point": AtPoint,
    "region": lambda channels, hidden: Sampled(channels, hidden, _bins(3, 2)),
    "border_dense": lambda channels, hidden: Sampled(channels, hidden, _borders(BORDER_SAMPLES).reshape(-1, 1, 2)),
    "border_middle": lambda channels, hidden: Sampled(channels, hidden, MIDDLES),
    "border_extreme": lambda channels, hidden: Sampled(channels, hidden, _borders(BORDER_SAMPLES), reduce="max"),
    "star": AtStar,
    "deformable": AtLearntPlaces,
}
"""V2 Fig. 2: (a) point, (b) region, (c) to (e) border, (f) regular, (g) deformable sampling."""
