"""Backbones from timm, and the freezing that pretrained weights ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gfocal.errors import UserError


@final
class StaticBatchNorm2d(nn.Module):
    """Batch norm that always normalises with its stored statistics, in training too; its affine part still learns.

    Takes over the weights and statistics of `norm`, under the same names. then: what follows the normalisation.
    """

    def __init__(self, norm: nn.BatchNorm2d, *then: nn.Module) -> None:
        super().__init__()
        self.weight = norm.weight
        self.bias = norm.bias
        self.running_mean: Tensor | None
        self.running_var: Tensor | None
        self.register_buffer("running_mean", norm.running_mean)
        self.register_buffer("running_var", norm.running_var)
        self.eps = norm.eps
        self.then = nn.Sequential(*then)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return (x - mean) / sqrt(var + eps) · weight + bias, passed through `then`."""
        normal = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return self.then(normal)


def create_backbone(
    name: str, levels: Sequence[int] = (2, 3, 4), *, pretrained: bool = False, width: float = 1.0
) -> nn.Module:
    """Return a timm model that maps images (b, 3, h, w) to the features of `levels`, finest first.

    name: timm's, with its tag of weights ("resnet50.tv_in1k"). levels: which features, level i at stride 2^(i+1).
    pretrained: fetch the weights that the tag names. width: scales the channels of a ResNet, which then has a stem of
    three 3x3 convolutions, half as wide as its first stage. UserError for a name that timm does not know, and where
    the weights cannot be fetched.
    """
    import timm  # takes a second to load

    if not timm.is_model(name):
        raise UserError(f"backbone {name!r} is not a timm model: see timm.list_models()")
    options: dict[str, Any] = {"features_only": True, "out_indices": tuple(levels)}
    if width != 1.0:
        options |= _narrow_resnet(name, width)
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # huggingface_hub and urllib have no common class for "no network"
        if not pretrained:
            raise
        raise UserError(
            f"the ImageNet weights of {name!r} could not be fetched ({type(error).__name__}): connect to the network, "
            "or start from random weights with --weights none"
        ) from error


def _narrow_resnet(name: str, width: float) -> dict[str, Any]:
    if not name.startswith("resnet"):
        raise UserError(f"backbone.width is for ResNets only, not {name!r}")
    channels = tuple(round(64 * width) * factor for factor in (1, 2, 4, 8))
    return {"channels": channels, "stem_type": "deep", "stem_width": max(round(16 * width), 1)}


def feature_channels(backbone: nn.Module) -> list[int]:
    """Return the number of channels of each feature that `create_backbone`'s model puts out."""
    return list(_feature_info(backbone).channels())


def freeze_norms(module: nn.Module) -> None:
    """Replace every batch norm below `module` by one that keeps its statistics."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            # timm's norms may carry dropout and activation as children, in the order they are applied
            setattr(module, name, StaticBatchNorm2d(child, *child.children()))
        else:
            freeze_norms(child)


def freeze_stages(backbone: nn.Module, stages: int) -> None:
    """Stop the learning of the stem and the first `stages` stages of `create_backbone`'s model.

    stages: -1 freezes nothing, 0 the stem, 1 the stem and the stage of stride 4, and so on.
    """
    if stages < 0:
        return
    last: str = _feature_info(backbone).info[stages]["module"]
    for name, child in backbone.named_children():
        child.requires_grad_(False)
        if name.replace("_", ".") == last.replace("_", "."):
            return


def _feature_info(backbone: nn.Module) -> Any:
    """Return timm's own description of a model's features."""
    return backbone.feature_info
