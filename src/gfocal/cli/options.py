"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Optional

import typer

DATA_HELP = (
    "scenes (made on the fly), a data.yaml with `split: {images: folder, annotations: file.json}` (COCO JSON) "
    "or of Ultralytics YOLO, a COCO 2017 folder, or a Pascal VOC folder"
)

Data = Annotated[str, typer.Option("--data", help=DATA_HELP)]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda")]
Precision = Annotated[
    str, typer.Option("--precision", help="auto (what the device is built for), float32, bfloat16 or float16")
]
Size = Annotated[
    Optional[tuple[int, int]],  # noqa: UP045  typer evaluates it on Python 3.10
    typer.Option("--size", metavar="SHORT LONG", help="sides in pixels to resize pictures to, instead of the recipe's"),
]
Backend = Annotated[
    str, typer.Option("--backend", help="torch, compile, openvino, or auto: torch, in long runs the faster one here")
]
Compile = Annotated[bool, typer.Option("--compile", help="the same as --backend compile, which takes minutes first")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="processes that read pictures")]
MODEL_HELP = "run folder, .safetensors, or official .pth of GFocalV2 or mmdetection"
ModelSource = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
RunnableSource = Annotated[
    str, typer.Argument(metavar="MODEL", help=f"{MODEL_HELP}; or an .onnx or .xml of gfocal export")
]


def settled(device: str, precision: str) -> Callable[[], None]:
    """Use this machine well; return what says how when it is called first, which is when work has begun."""
    from gfocal.devices import choose_device, settle

    told = [settle(choose_device(device), precision)]

    def tell() -> None:
        while told:
            typer.echo(f"computing {told.pop()}", err=True)

    return tell
