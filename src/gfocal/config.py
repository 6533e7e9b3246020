"""What a detector is made of and how it is trained and tested: frozen models, in and out of YAML."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast, get_type_hints

import torch
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import to_jsonable_python

from gfocal.boxrep import BOXES
from gfocal.classification import Focal
from gfocal.errors import UserError, unknown
from gfocal.families import FAMILIES, options_in
from gfocal.quality import QUALITIES, Head

Table: TypeAlias = Mapping[str, Callable[..., object]]


def options_of(make: Callable[..., object]) -> dict[str, Any]:
    """Return the options of a part, name to type: its keyword-only parameters that have a default."""
    target = make.__init__ if inspect.isclass(make) else make
    hints = get_type_hints(target)
    parameters = inspect.signature(target).parameters.values()
    return {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}


def name_of_outside(part: object) -> str:
    """Return how a recipe calls a part from outside the package: `module:Class`."""
    return f"{type(part).__module__}:{type(part).__qualname__}"


def is_outside(spec: Mapping[str, Any]) -> bool:
    """Return whether a part comes from outside the package, so that only its caller can make it."""
    return ":" in str(spec["name"])


def _checked(
    table: Table, try_out: Callable[..., object], *, outside: bool
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a validator of `{"name": …, option: value}` against the parts of one axis.

    try_out: makes a part with options, so that the part itself refuses by ValueError what is out of its range.
    outside: whether `{"name": "module:Class"}` may stand for a part from outside the package.
    """

    def check(spec: dict[str, Any]) -> dict[str, Any]:
        name = spec.get("name")
        if outside and isinstance(name, str) and is_outside(spec) and len(spec) == 1:
            return spec
        if not isinstance(name, str) or name not in table:
            raise unknown("name", str(name), table)
        options = options_of(table[name])
        read: dict[str, Any] = {"name": name}
        for key, value in spec.items():
            if key == "name":
                continue
            if key not in options:
                raise unknown(f"option of {name!r}", key, options or ["(none)"])
            try:
                read[key] = TypeAdapter(options[key]).validate_python(value, strict=isinstance(value, bool))
            except ValidationError as error:
                raise ValueError(f"{key} = {value!r}: {error.errors()[0]['msg']}") from error
        try_out(table[name], **options_in(read))
        return read

    return check


def _make(part: Callable[..., object], **options: object) -> object:
    return part(**options)


def _make_layers(part: Callable[..., object], **options: object) -> object:
    head = Head(channels=64, num_classes=1, anchors=1, classification=Focal(), ltrb=lambda box: box)
    with torch.device("meta"):  # no memory, and no number drawn from the generator
        return part(head, **options)


Plain = PlainSerializer(to_jsonable_python)  # options may be tuples, of which JSON knows nothing
FamilySpec = Annotated[dict[str, Any], AfterValidator(_checked(FAMILIES, _make, outside=False)), Plain]
QualitySpec = Annotated[dict[str, Any], AfterValidator(_checked(QUALITIES, _make_layers, outside=True)), Plain]
BoxSpec = Annotated[dict[str, Any], AfterValidator(_checked(BOXES, _make, outside=True)), Plain]


def _rising(values: tuple[float, ...]) -> tuple[float, ...]:
    if list(values) != sorted(values):
        raise ValueError("must rise from one value to the next")
    return values


Side = Annotated[int, Field(ge=32)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Rising = AfterValidator(_rising)


class Frozen(BaseModel):
    """A model that cannot change and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _weights(value: str) -> str:
    if value in ("imagenet", "none") or value.endswith(WEIGHT_FILES):
        return value
    raise ValueError(f"must be imagenet, none, or a file that ends with {' or '.join(WEIGHT_FILES)}")


WEIGHT_FILES = (".safetensors", ".pth", ".pt")


class BackboneConfig(Frozen):
    """The backbone: timm's name with its tag of weights, and what stays frozen when it starts from them.

    weights: "imagenet" starts from the tag's weights and freezes, and so does the path of a .safetensors or .pth file
    of the backbone's own keys; "none" starts from random numbers and freezes nothing. frozen_stages: 1 is the stem and
    the stage of stride 4, -1 nothing. frozen_norms: batch norms keep their statistics. frozen_affine: such norms do
    not learn their scale and shift either. width: scales the channels of a ResNet or of SSD's VGG. deformable: stages
    whose 3x3 convolutions are deformable, 1 to 4 (c2 to c5); deformable_version: 1, or 2 with masks. strides: which
    convolution of a bottleneck strides, the 3x3 one or, as Caffe's ResNets do, the first 1x1 one.
    """

    name: str
    weights: Annotated[str, AfterValidator(_weights)] = "imagenet"
    frozen_stages: int = Field(default=1, ge=-1, le=4)
    frozen_norms: bool = True
    width: float = Field(default=1.0, gt=0, le=4)
    deformable: tuple[Annotated[int, Field(ge=1, le=4)], ...] = ()
    deformable_version: Literal[1, 2] = 1
    frozen_affine: bool = False
    strides: Literal["3x3", "1x1"] = "3x3"


class HeadConfig(Frozen):
    """Widths of pyramid and trunk: channels of every level, a multiple of 32, and convolutions a tower.

    SSD has neither: its levels are as wide as its backbone makes them. channels: 64 at least, because a group of one
    channel has one value where a level has one cell.
    """

    channels: int = Field(default=256, ge=64, multiple_of=32)
    depth: int = Field(default=4, ge=0)


class PicturesConfig(Frozen):
    """How pictures are prepared: sizes, normalisation, and in training augmentation, off by default but for the flip.

    Sizes in pixels. short, long: test size; the short side becomes `short` unless the long one would pass `long`.
    keep_aspect: False makes every picture `long` wide and `short` high instead, in training too. upscale: whether
    pictures smaller than that are enlarged. train_short: range that the short side is drawn from in training.

    Normalisation. mean, std: in 0..255, in the network's order of channels, which is blue first where `bgr`.

    Where things lie. flip, vertical_flip: probability of a mirror image, left to right and upside down. expand:
    probability of a canvas of the mean colour up to `expand_max` (1 to 4) times as wide and high (SSD, section 3.6);
    iou_crop: of a random choice between the whole picture and a part that shares enough with a box (2.2). SSD has 0.5
    and 1. jitter: range of a random zoom, or none, cut or filled to the picture's own size; where jitter_size (height,
    width) is set, to that, in place of `train_short`: with [0.1, 2] the large-scale jitter of Ghiasi et al., Simple
    Copy-Paste (2021).

    Colours. color: strength of a change of brightness, contrast and saturation, 0 to 1. distort: probability of each
    change of SSD's photometric distortion, 0.5 there.

    Several pictures. mosaic: probability of four around one point (YOLOv4, section 3.3), on a canvas mosaic_canvas (1
    to 2) times as wide and high as the first; mixup: of a blend with another, half and half (YOLOX, section 2.1).
    mixing_until: share of the run, 0 to 1, after which both stop; 1 means never.

    Order: mosaic, mixup, distort, expand, iou_crop, jitter, size, flip, vertical_flip, color, normalisation.
    """

    short: Side = 800
    long: Side = 1333
    upscale: bool = True
    keep_aspect: bool = True
    train_short: Annotated[tuple[Side, Side], Rising] = (800, 800)
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[Positive, Positive, Positive] = (58.395, 57.12, 57.375)
    bgr: bool = False
    flip: Share = 0.5
    vertical_flip: Share = 0.0
    expand: Share = 0.0
    expand_max: float = Field(default=4.0, ge=1, le=4)
    iou_crop: Share = 0.0
    jitter: Annotated[tuple[Positive, Positive], Rising] | None = None
    jitter_size: tuple[Side, Side] | None = None
    color: Share = 0.0
    distort: Share = 0.0
    mosaic: Share = 0.0
    mosaic_canvas: float = Field(default=2.0, ge=1, le=2)
    mixup: Share = 0.0
    mixing_until: Share = 1.0

    @model_validator(mode="after")
    def _legal(self) -> PicturesConfig:
        if self.long < self.short:
            raise ValueError(f"long must be at least short, {self.short}, got {self.long}")
        if self.jitter_size is not None and self.jitter is None:
            raise ValueError(f"jitter_size is {self.jitter_size}, but jitter is none: set both or neither")
        return self


class TestConfig(Frozen):
    """Post-processing (V1 supplement D).

    nms: which suppression. ranking: whether `max_per_level` counts locations, as the reference, or pairs of location
    and class, as mmdetection since 2.20. vote_sigma: where set, boxes that suppression keeps move to where those that
    overlap them vote that they are, each edge by its variance; 0.02 in He et al. (2019). Needs edge distributions.
    """

    __test__ = False  # the name is not for pytest

    score_threshold: float = Field(default=0.05, ge=0, lt=1)
    nms: Literal["nms", "agnostic", "soft_linear", "soft_gaussian"] = "nms"
    nms_threshold: float = Field(default=0.6, gt=0, le=1)
    max_per_level: int | None = Field(default=1000, ge=1)
    ranking: Literal["locations", "pairs"] = "locations"
    max_detections: int = Field(default=100, ge=1)
    vote_sigma: Positive | None = None


class GroupConfig(Frozen):
    """Parameters that learn otherwise: those under `prefix`, as backbone or backbone.layer4 or trunk.cls.

    lr_factor: times the schedule's learning rate. weight_decay: instead of the schedule's.
    """

    prefix: str = Field(min_length=1)
    lr_factor: Positive = 1.0
    weight_decay: float | None = Field(default=None, ge=0)


class ScheduleConfig(Frozen):
    """Optimiser and learning rate.

    Length is `epochs`, or `steps` where set. lr is for `batch` pictures a step. decay "step" multiplies it by 0.1
    after each of `milestones` (share of the whole length, 0..1), "cosine" lets it fall to 0. warmup: steps from
    `warmup_factor` · lr, at most a fifth of the length. clip_norm: bound of the gradient's norm, or none.
    validations: how often a run scores the val split, evenly spaced; the best weights are kept beside the last.
    patience: how many validations in a row may bring no better AP before the run ends, or none. average: decay of the
    moving average of the weights, which is then what is validated and kept, or none. freeze: names of parts that do
    not learn, as backbone.layer1. groups: parts that learn at another rate; the last that fits a parameter counts.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    batch: int = Field(default=16, ge=1)
    epochs: int = Field(default=12, ge=1)
    steps: int | None = Field(default=None, ge=1)
    decay: Literal["step", "cosine"] = "step"
    milestones: Annotated[tuple[Share, ...], Rising] = (8 / 12, 11 / 12)
    warmup: int = Field(default=500, ge=0)
    warmup_factor: float = Field(default=0.001, gt=0, le=1)
    clip_norm: float | None = Field(default=None, gt=0)
    validations: int = Field(default=4, ge=0)
    patience: int | None = Field(default=None, ge=1)
    average: float | None = Field(default=None, gt=0, lt=1)
    freeze: tuple[str, ...] = ()
    groups: tuple[GroupConfig, ...] = ()


class Expected(Frozen):
    """AP on COCO that others published for a recipe, in percent, and where."""

    minival: float | None = None
    test_dev: float | None = None
    source: str


class Recipe(Frozen):
    """Everything that a model is built, trained and tested from; three axes and their surroundings."""

    name: str
    family: FamilySpec
    quality: QualitySpec
    box: BoxSpec
    backbone: BackboneConfig
    class_names: tuple[str, ...] = Field(min_length=1)
    head: HeadConfig = HeadConfig()
    pictures: PicturesConfig = PicturesConfig()
    test: TestConfig = TestConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    expected: tuple[Expected, ...] = ()

    @model_validator(mode="after")
    def _legal(self) -> Recipe:
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError("class_names holds a name twice")
        return self

    def to_yaml(self) -> str:
        """Return the recipe as YAML, which `from_yaml` reads back unchanged."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)

    @classmethod
    def from_yaml(cls, text: str, *, where: str) -> Recipe:
        """Read a recipe from YAML. `where` names the text in errors; UserError says which key and value is wrong."""
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
        except RecursionError as error:
            raise UserError(f"{where}: not valid YAML: nested too deep") from error
        if not isinstance(values, dict):
            raise UserError(f"{where}: a recipe is a mapping of keys to values, got {type(values).__name__}")
        return cls.from_values(cast("dict[str, object]", values), where=where)

    @classmethod
    def from_values(cls, values: Mapping[str, object], *, where: str) -> Recipe:
        """Read a recipe from plain values; UserError names `where`, key and value of the first mistake."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "recipe"
            given = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"
            raise UserError(f"{where}: {key}{given}: {first['msg'].removeprefix('Value error, ')}") from error


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file; UserError where it is missing or wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the recipe cannot be read ({error})") from error
    return Recipe.from_yaml(text, where=str(path))
