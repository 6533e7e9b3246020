"""Backbones from timm, and the freezing that pretrained weights ask for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gfocal.errors import UserError
from gfocal.nn.dcn import DEFORMABLE
from gfocal.nn.ssd import VGG16


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


def create_backbone(name: str, *, pretrained: bool = False, width: float = 1.0) -> nn.Module:
    """Return a timm model that maps images (b, 3, h, w) to its features at strides 8, 16 and 32, finest first.

    name: timm's, with its tag of weights ("resnet50.tv_in1k"), or "ssd_vgg16", SSD's own, with features at strides 8
    and 16. pretrained: fetch the weights that the tag names. width: scales the channels of SSD's VGG or of a ResNet,
    which then has a stem of three 3x3 convolutions, half as wide as its first stage. UserError for a name that timm
    does not know or whose features have other strides, and where the weights cannot be fetched.
    """
    import timm  # takes a second to load

    if pretrained and width != 1:
        raise UserError(
            f"backbone.width is {width:g}, and ImageNet weights are for whole backbones only: start from random "
            "numbers with weights 'none', or from a file or a run"
        )
    if name == SSD_VGG16:
        return _vgg16(pretrained=pretrained, width=width)
    if not timm.is_model(name):
        raise UserError(f"backbone {name!r} is not a timm model: see timm.list_models()")
    options: dict[str, Any] = {"features_only": True, "out_indices": (-3, -2, -1)}
    options |= next((extra for prefix, extra in ANY_SIZE.items() if name.startswith(prefix)), {})
    if width != 1.0:
        options |= _narrow_resnet(name, width)
    try:
        backbone = _fetched(name, **options) if pretrained else timm.create_model(name, **options)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"backbone {name!r} gives no features: {' '.join(str(error).split())}") from error
    strides = feature_strides(backbone)
    if strides != [8, 16, 32]:
        raise UserError(f"backbone {name!r} has features at strides {strides}, the pyramid needs 8, 16 and 32")
    _agree_with_reference(backbone)
    return backbone


def _fetched(name: str, **options: Any) -> nn.Module:
    """Return a timm model with the weights that its tag names; UserError where they cannot be fetched."""
    import timm

    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # huggingface_hub and urllib have no common class for "no network"
        raise UserError(
            f"the ImageNet weights of {name!r} could not be fetched ({type(error).__name__}): connect to the network, "
            "or give weights 'none' for random weights"
        ) from error


def _vgg16(*, pretrained: bool, width: float) -> nn.Module:
    """Return SSD's VGG-16; its convolutions start from torchvision's weights, as Caffe's are not in timm."""
    backbone = VGG16(width=width)
    if pretrained:
        weights = _fetched(VGG16_WEIGHTS).state_dict()
        own = backbone.state_dict()
        # the two convolutions that stand for fully connected layers have no counterpart
        backbone.load_state_dict({key: weights[key] if key in weights else own[key] for key in own})
    return backbone


def take_pictures(backbone: nn.Module, name: str, *, std: Sequence[float], bgr: bool) -> None:
    """Let a backbone with the weights of its tag see pictures as it learnt them, however they are normalised here.

    name: as of `create_backbone`. std: what pictures are divided by, in 0..255 and in their own order of channels, blue
    first where `bgr`. The filters of the first convolution are scaled and reordered; where pictures are what they were
    to the weights already, nothing changes. Means differ by less than 1 of 255 from timm's and are left alone.
    """
    import timm

    known = timm.get_pretrained_cfg(VGG16_WEIGHTS if name == SSD_VGG16 else name)
    first = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    if known is None or first.weight.shape[1] != len(std):
        return
    order = [2, 1, 0] if bgr else [0, 1, 2]
    factors = [own / (255 * known.std[channel]) for own, channel in zip(std, order, strict=True)]
    if bgr or any(abs(factor - 1) > 1e-3 for factor in factors):
        with torch.no_grad():
            scale = first.weight.new_tensor(factors)[:, None, None]
            first.weight.copy_(first.weight[:, order] * scale)


LEAST_CHANNELS = 16
"""Of the first stage of a ResNet of basic blocks: the gradient of a strided 1x1 convolution of fewer channels writes
beyond its memory on x86 CPUs (github.com/uxlfoundation/oneDNN/issues/6035)."""


def _narrow_resnet(name: str, width: float) -> dict[str, Any]:
    if not name.startswith("resnet"):
        raise UserError(f"backbone.width is for ResNets only, not {name!r}")
    channels = tuple(round(64 * width) * factor for factor in (1, 2, 4, 8))
    if name.startswith(("resnet10t", "resnet14t", "resnet18", "resnet34")) and channels[0] < LEAST_CHANNELS:
        least = LEAST_CHANNELS / 64
        raise UserError(f"backbone.width is {width}: must be at least {least} for {name}, or PyTorch crashes on CPUs")
    return {"channels": channels, "stem_type": "deep", "stem_width": max(round(16 * width), 1)}


def _agree_with_reference(backbone: nn.Module) -> None:
    """Change what timm does in another way than mmdetection, whose backbones the authors use."""
    from timm.models.res2net import Bottle2neck

    for block in backbone.modules():
        # mmdetection pools a Res2Net block's last split only where the block strides
        if isinstance(block, Bottle2neck) and block.pool is not None and block.pool.stride == 1:
            block.pool = None
    if str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC"):
        backbone.register_forward_hook(_channels_first)


def _channels_first(backbone: nn.Module, images: object, features: list[Tensor]) -> list[Tensor]:
    return [feature.permute(0, 3, 1, 2) for feature in features]


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Load the weights of `create_backbone`'s model from a .safetensors or .pth file under the model's own keys.

    A classifier in the file is passed over. UserError where the file cannot be read, or other keys are missing,
    unexpected or misshapen.
    """
    try:
        state = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu")
    except Exception as error:  # a damaged file fails in any way
        raise UserError(f"{path}: weights of a backbone cannot be read ({type(error).__name__}: {error})") from error
    own = backbone.state_dict()
    wrong = [key for key, value in own.items() if key not in state or state[key].shape != value.shape]
    wrong = [key for key in wrong if not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in own and not key.startswith(CLASSIFIERS)]
    if wrong or unknown:
        raise UserError(
            f"{path}: does not fit the backbone: missing or misshapen {', '.join(wrong) or '(none)'}; unexpected "
            f"{', '.join(unknown) or '(none)'}"
        )
    backbone.load_state_dict({key: state.get(key, value) for key, value in own.items()})


def feature_channels(backbone: nn.Module) -> list[int]:
    """Return the number of channels of each feature that `create_backbone`'s model puts out."""
    return list(_feature_info(backbone).channels())


def feature_strides(backbone: nn.Module) -> list[int]:
    """Return the stride of each feature that `create_backbone`'s model puts out."""
    return list(_feature_info(backbone).reduction())


def freeze_norms(module: nn.Module, *, affine: bool = False) -> nn.Module:
    """Replace every batch norm below `module` by one that keeps its statistics, and its scale and shift if `affine`.

    Return `module`, or where it is a batch norm itself, what is to stand in its place.
    """
    if isinstance(module, nn.BatchNorm2d):
        # timm's norms may carry dropout and activation as children, in the order they are applied
        static = StaticBatchNorm2d(module, *module.children())
        static.weight.requires_grad_(not affine)
        static.bias.requires_grad_(not affine)
        return static
    for name, child in module.named_children():
        frozen = freeze_norms(child, affine=affine)
        if frozen is not child:
            setattr(module, name, frozen)
    return module


def stride_in_first(backbone: nn.Module) -> None:
    """Let the first 1x1 convolution of each bottleneck stride instead of the 3x3 one, as in Caffe's ResNets."""
    from timm.models.resnet import Bottleneck

    for block in backbone.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def freeze_stages(backbone: nn.Module, stages: int) -> None:
    """Stop the learning of the stem and the first `stages` stages of `create_backbone`'s model.

    stages: -1 freezes nothing, 0 the stem, 1 the stem and the stage of stride 4, and so on.
    """
    for module, stage in _modules_by_stage(backbone):
        if stage <= stages:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)


def make_deformable(backbone: nn.Module, stages: Collection[int], *, version: int = 1) -> None:
    """Put deformable convolutions in place of all 3x3 convolutions of some stages of `create_backbone`'s model.

    stages: 1 to 4, of stride 4 to 32 (c2 to c5). version: 1 or 2. UserError where a stage has no such convolution.
    """
    chosen: dict[int, list[nn.Conv2d]] = {stage: [] for stage in stages}
    for module, stage in _modules_by_stage(backbone):
        if stage in chosen and isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            chosen[stage].append(module)
    for stage, convs in chosen.items():
        if not convs:
            raise UserError(f"stage {stage} of the backbone has no 3x3 convolution to make deformable")
    wanted = {id(conv) for convs in chosen.values() for conv in convs}
    for parent in list(backbone.modules()):
        for name, child in parent.named_children():
            if id(child) in wanted:
                setattr(parent, name, DEFORMABLE[version](child))  # type: ignore[arg-type]  only convolutions are wanted


def _modules_by_stage(backbone: nn.Module) -> list[tuple[nn.Module, int]]:
    """Return all modules in order with their stage: 0 is the stem, stage i has stride 2^(i+1).

    A stage ends with the module that timm names for its feature; stage 1 begins with that module.
    """
    # a flattened model writes "stages.0" as "stages_0"
    names = [name.replace("_", ".") for name, _ in backbone.named_modules()]
    stages = [0] * len(names)
    end = 0
    for info in _feature_info(backbone).info:
        stage = int(info["reduction"]).bit_length() - 2
        path = info["module"].replace("_", ".")
        inside = [i for i, name in enumerate(names) if f"{name}.".startswith(f"{path}.")]
        if stage >= 1 and inside:
            start = inside[0] if stage == 1 else end
            end = inside[-1] + 1
            stages[start:end] = [stage] * (end - start)
    return list(zip(backbone.modules(), stages, strict=True))


def _feature_info(backbone: nn.Module) -> Any:
    """Return timm's own description of a model's features."""
    return backbone.feature_info


SSD_VGG16 = "ssd_vgg16"
VGG16_WEIGHTS = "vgg16.tv_in1k"

CLASSIFIERS = ("fc.", "classifier.", "head.", "pre_logits.")
"""Beginnings of the keys that a model for classification has beyond its features."""

ANY_SIZE: Mapping[str, dict[str, Any]] = {"swin_": {"strict_img_size": False}, "swinv2_": {"strict_img_size": False}}
"""Options by which models of one picture size take any, by the beginning of their timm name."""
