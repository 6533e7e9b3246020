"""Values that recipes of both papers share."""

from __future__ import annotations

from gfocal.config import BackboneConfig, HeadConfig, PicturesConfig, ScheduleConfig

# the 80 classes of COCO in the order of their category ids
# fmt: off
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on

# torchvision's first ImageNet weights, and Res2Net's own: those the authors start from
RESNET50 = BackboneConfig(name="resnet50.tv_in1k")
RESNET101 = BackboneConfig(name="resnet101.tv_in1k")
RES2NET101 = BackboneConfig(name="res2net101d.in1k")
# the authors' weights of this one are open-mmlab's, which timm has not: these are the nearest
RESNEXT101 = BackboneConfig(name="resnext101_32x4d.gluon_in1k")

# c3 to c5 in ResNet-101, c4 and c5 in the others; version 1 although the papers' texts say 2
RESNET101_DCN = RESNET101.model_copy(update={"deformable": (2, 3, 4)})
RESNEXT101_DCN = RESNEXT101.model_copy(update={"deformable": (3, 4)})
RES2NET101_DCN = RES2NET101.model_copy(update={"deformable": (3, 4)})

# 24 epochs, lr × 0.1 after 16 and 22 (both repositories' 2x configs)
SCHEDULE_2X = ScheduleConfig(epochs=24, milestones=(16 / 24, 22 / 24))

# a ResNet-18 of half width from random weights, for two CPU cores: about 1/30 of ResNet-50's arithmetic a picture
MINI_BACKBONE = BackboneConfig(name="resnet18", weights="none", width=0.5)
MINI_HEAD = HeadConfig(channels=64, depth=2)
MINI_PICTURES = PicturesConfig(short=320, long=448, upscale=False, train_short=(240, 320))
MINI_SCHEDULE = ScheduleConfig(
    optimizer="adamw", lr=2e-3, weight_decay=0.05, batch=8, steps=800, decay="cosine", warmup=40, clip_norm=10.0
)
