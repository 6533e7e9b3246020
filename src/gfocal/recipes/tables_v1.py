"""The tables of GFL V1 (NeurIPS 2020)."""

from __future__ import annotations

from gfocal.config import Recipe
from gfocal.recipes.baselines import (
    atss_r50_fpn_1x,
    fcos_r50_fpn_1x,
    foveabox_r50_fpn_1x,
    retinanet_r50_fpn_1x,
    ssd512_vgg16,
)
from gfocal.recipes.rows import Line, Row, Table, recipe_at, rows_of, stats, varied
from gfocal.recipes.v1 import (
    gfl_r50_fpn_1x,
    gfl_r50_fpn_ms2x,
    gfl_r101_dcn_fpn_ms2x,
    gfl_r101_fpn_ms2x,
    gfl_x101_32x4d_dcn_fpn_ms2x,
    gfl_x101_32x4d_fpn_ms2x,
)

JOINT = "joint w/ QFL"
WITH_DFL = "General w/ DFL"


def table1a() -> Table:
    """V1 Table 1a: how quality joins the classification, on FCOS and ATSS as the baselines have them."""
    source = "V1 Table 1a"
    figures = {
        "FCOS": (
            stats(37.8, 56.2, 40.8, 21.2, 42.1, 48.2),
            stats(38.5, 56.8, 41.6, 22.4, 42.4, 49.1),
            stats(38.7, 56.7, 42.0, 21.6, 43.0, 50.3),
            stats(37.9, 56.7, 40.7, 21.2, 42.1, 49.4),
            stats(38.2, 57.0, 41.1, 22.5, 42.2, 48.9),
            stats(39.0, 57.8, 41.9, 22.0, 43.1, 51.0),
        ),
        "ATSS": (
            stats(38.0, 56.5, 40.7, 20.6, 42.1, 49.1),
            stats(39.2, 57.4, 42.2, 23.0, 42.8, 51.1),
            stats(39.6, 57.6, 43.0, 23.3, 43.7, 51.2),
            stats(38.2, 56.2, 41.0, 21.5, 41.9, 49.7),
            stats(38.9, 57.4, 41.8, 22.8, 42.4, 50.6),
            stats(39.9, 58.5, 43.0, 22.4, 43.9, 52.7),
        ),
    }
    rows: list[Row] = []
    for group, base in (("FCOS", fcos_r50_fpn_1x()), ("ATSS", atss_r50_fpn_1x())):
        none, centerness, iou, centerness_guided, iou_guided, joint = figures[group]
        iou_branch = varied(base, "iou_branch", quality={"name": "branch", "label": "iou"})
        by_centerness = varied(base, "centerness_guided", quality={"name": "guided", "label": "centerness"})
        by_iou = varied(base, "iou_guided", quality={"name": "guided", "label": "iou"})
        lines = (
            ("w/o quality branch", varied(base, "none", quality={"name": "none"}), none),
            ("centerness-branch", base, centerness),
            ("IoU-branch", iou_branch, iou),
            ("centerness-guided", by_centerness, centerness_guided),
            ("IoU-guided", by_iou, iou_guided),
            (JOINT, varied(base, "joint", quality={"name": "joint"}), joint),
        )
        rows += rows_of(source, lines, group=group, baseline="w/o quality branch")
    return Table(
        "v1-table1a",
        "Quality beside, within or joined with the classification",
        source,
        "minival",
        tuple(rows),
        "Boxes are Dirac deltas, coded as each baseline does: deltas of the anchor in ATSS, distances in FCOS. Guided: "
        "the class loss at positives, and the box losses, are multiplied by the quality.",
    )


def table1b() -> Table:
    """V1 Table 1b: the joint representation on other detectors, otherwise as their baselines."""
    source = "V1 Table 1b"
    detectors = {
        "FoveaBox": foveabox_r50_fpn_1x(),
        "RetinaNet": retinanet_r50_fpn_1x(),
        "SSD512": ssd512_vgg16(),
    }
    figures = {
        "FoveaBox": (stats(36.4, 55.8, 38.8, 19.4, 40.4, 47.7), stats(37.0, 55.7, 39.6, 20.2, 41.2, 48.8)),
        "RetinaNet": (stats(35.6, 55.5, 38.1, 20.1, 39.4, 46.8), stats(36.4, 56.3, 39.1, 20.4, 40.0, 48.7)),
        "SSD512": (stats(29.4, 49.1, 30.6, 11.4, 34.1, 44.9), stats(30.2, 50.3, 31.7, 13.3, 34.4, 45.5)),
    }
    rows: list[Row] = []
    for group, base in detectors.items():
        alone, joined = figures[group]
        joint = varied(base, "joint", quality={"name": "joint"})
        lines = ((group, base, alone), (f"{group} + {JOINT}", joint, joined))
        rows += rows_of(source, lines, group=group, baseline=group)
    return Table(
        "v1-table1b",
        "The joint representation on other one-stage detectors",
        source,
        "minival",
        tuple(rows),
        "The caption's ResNet-50 cannot hold for SSD512, which has its VGG-16. FoveaBox and RetinaNet keep their "
        "baselines' coding of boxes and, in RetinaNet, nine anchors a cell.",
    )


def table1c() -> Table:
    """V1 Table 1c: the exponent β of the quality focal loss, on the ATSS of Table 1a."""
    source = "V1 Table 1c"
    joint = recipe_at(table1a(), JOINT, group="ATSS")

    def beta(value: float) -> Recipe:
        return varied(joint, f"beta{value:g}".replace(".", "_"), quality={"name": "joint", "beta": value})

    lines = (
        ("β = 0", beta(0), stats(37.6, 55.4, 40.3)),
        ("β = 1", beta(1), stats(39.0, 58.1, 41.7)),
        ("β = 2", joint, stats(39.9, 58.5, 43.0)),
        ("β = 2.5", beta(2.5), stats(39.7, 58.1, 42.7)),
        ("β = 4", beta(4), stats(38.2, 55.4, 41.6)),
    )
    return Table(
        "v1-table1c",
        "β of the quality focal loss",
        source,
        "minival",
        rows_of(source, lines, baseline="β = 2"),
        "Boxes are Dirac deltas, coded as deltas of the anchor: the row of β = 2 is the joint row of Table 1a.",
    )


def table2a() -> Table:
    """V1 Table 2a: how boxes are represented, with the centerness branch of both baselines."""
    source = "V1 Table 2a"
    figures = {
        "FCOS": (
            stats(38.5, 56.8, 41.6, 22.4, 42.4, 49.1),
            stats(38.6, 56.5, 41.6, 21.7, 42.5, 50.0),
            stats(38.8, 56.6, 42.0, 22.5, 42.9, 49.8),
            stats(39.0, 57.0, 42.3, 22.6, 43.0, 50.6),
        ),
        "ATSS": (
            stats(39.2, 57.4, 42.2, 23.0, 42.8, 51.1),
            stats(39.3, 57.0, 42.4, 23.6, 42.9, 51.0),
            stats(39.3, 57.1, 42.5, 23.5, 43.0, 51.2),
            stats(39.5, 57.3, 42.8, 23.6, 43.2, 51.2),
        ),
    }
    families = {"FCOS": None, "ATSS": {"name": "atss", "coding": "distances"}}
    rows: list[Row] = []
    for group, base in (("FCOS", fcos_r50_fpn_1x()), ("ATSS", atss_r50_fpn_1x())):
        dirac, gaussian, general, with_dfl = figures[group]
        family = families[group]
        without = {"name": "general", "dfl_weight": 0}
        lines = (
            ("Dirac delta", base, dirac),
            ("Gaussian", varied(base, "gaussian", family=family, box={"name": "gaussian"}), gaussian),
            ("General", varied(base, "general_without_dfl", family=family, box=without), general),
            (WITH_DFL, varied(base, "general", family=family, box={"name": "general"}), with_dfl),
        )
        rows += rows_of(source, lines, group=group, baseline="Dirac delta")
    return Table(
        "v1-table2a",
        "Representations of boxes",
        source,
        "minival",
        tuple(rows),
        "Quality is the centerness branch. In ATSS the Dirac row is the baseline with deltas of the anchor, the "
        "others spread over distances from the point, which all rows of FCOS have. The paper gives the Gaussian's "
        "loss (its Table 5) but not its weight.",
    )


def table2b() -> Table:
    """V1 Table 2b: how many intervals the General distribution has."""
    source = "V1 Table 2b"
    gfl = gfl_r50_fpn_1x()

    def n(value: int) -> Recipe:
        return varied(gfl, f"n{value}", box={"name": "general", "n": value})

    lines = (
        ("n = 12", n(12), stats(40.1, 58.4, 43.1, 23.1, 43.8, 52.5)),
        ("n = 14", n(14), stats(40.2, 58.3, 43.6, 23.3, 44.2, 52.2)),
        ("n = 16", gfl, stats(40.2, 58.6, 43.4, 23.0, 44.3, 53.0)),
        ("n = 18", n(18), stats(40.1, 58.1, 43.1, 22.6, 43.9, 52.6)),
    )
    rows = rows_of(source, lines, baseline="n = 16")
    return Table("v1-table2b", "n of the General distribution, Δ = 1", source, "minival", rows)


def table2c() -> Table:
    """V1 Table 2c: how far apart the bins of the General distribution are."""
    source = "V1 Table 2c"
    gfl = gfl_r50_fpn_1x()

    def delta(value: float) -> Recipe:
        return varied(gfl, f"delta{value:g}".replace(".", "_"), box={"name": "general", "delta": value})

    lines = (
        ("Δ = 0.5", delta(0.5), stats(40.2, 58.4, 43.0, 22.3, 43.8, 53.1)),
        ("Δ = 1", gfl, stats(40.2, 58.6, 43.4, 23.0, 44.3, 53.0)),
        ("Δ = 2", delta(2), stats(39.9, 58.3, 42.9, 22.5, 43.8, 51.8)),
        ("Δ = 4", delta(4), stats(39.8, 58.5, 42.8, 22.8, 43.4, 52.3)),
    )
    return Table(
        "v1-table2c",
        "Δ of the General distribution, n = 16",
        source,
        "minival",
        rows_of(source, lines, baseline="Δ = 1"),
        "n stays 16, as the caption says, so that the reach of a box is 16·Δ strides.",
    )


def table3() -> Table:
    """V1 Table 3: what QFL and DFL each add to ATSS."""
    source = "V1 Table 3"
    joint = recipe_at(table1a(), JOINT, group="ATSS")
    general = recipe_at(table2a(), WITH_DFL, group="ATSS")
    lines = (
        ("neither", atss_r50_fpn_1x(), stats(39.2, 57.4, 42.2, fps=19.4)),
        ("QFL", joint, stats(39.9, 58.5, 43.0, fps=19.4)),
        ("DFL", general, stats(39.5, 57.3, 42.8, fps=19.4)),
        ("QFL and DFL", gfl_r50_fpn_1x(), stats(40.2, 58.6, 43.4, fps=19.4)),
    )
    return Table(
        "v1-table3",
        "QFL and DFL on ATSS",
        source,
        "minival",
        rows_of(source, lines, baseline="neither"),
        "QFL alone is the joint row of Table 1a, DFL alone the last row of Table 2a, both with the same figures there.",
    )


MULTI_STAGE: tuple[Line, ...] = (
    ("Faster R-CNN w/ FPN, R-101", None, stats(36.2, 59.1, 39.0, 18.2, 39.0, 48.2, fps=14.2)),
    ("Cascade R-CNN, R-101", None, stats(42.8, 62.1, 46.3, 23.7, 45.5, 55.2, fps=11.9)),
    ("Grid R-CNN, R-101", None, stats(41.5, 60.9, 44.5, 23.3, 44.9, 53.1, fps=11.4)),
    ("Libra R-CNN, R-101", None, stats(41.1, 62.1, 44.7, 23.4, 43.7, 52.5, fps=13.6)),
    ("Libra R-CNN, X-101-64x4d", None, stats(43.0, 64.0, 47.0, 25.3, 45.6, 54.6, fps=8.5)),
    ("RepPoints, R-101", None, stats(41.0, 62.9, 44.3, 23.6, 44.1, 51.7, fps=13.3)),
    ("RepPoints, R-101-DCN", None, stats(45.0, 66.1, 49.0, 26.6, 48.6, 57.5, fps=11.8)),
    ("TridentNet, R-101", None, stats(42.7, 63.6, 46.5, 23.9, 46.6, 56.6, fps=2.7)),
    ("TridentNet, R-101-DCN", None, stats(46.8, 67.6, 51.5, 28.0, 51.2, 60.5, fps=1.3)),
    ("TSD, R-101", None, stats(43.2, 64.0, 46.9, 24.0, 46.3, 55.8, fps=1.1)),
)

ONE_STAGE: tuple[Line, ...] = (
    ("CornerNet, HG-104", None, stats(40.6, 56.4, 43.2, 19.1, 42.8, 54.3, fps=3.1)),
    ("CenterNet, HG-52", None, stats(41.6, 59.4, 44.2, 22.5, 43.1, 54.1, fps=4.4)),
    ("CenterNet, HG-104", None, stats(44.9, 62.4, 48.1, 25.6, 47.4, 57.4, fps=3.3)),
    ("CentripetalNet, HG-104", None, stats(45.8, 63.0, 49.3, 25.0, 48.2, 58.7)),
    ("RetinaNet, R-101", None, stats(39.1, 59.1, 42.3, 21.8, 42.7, 50.2, fps=13.6)),
    ("FreeAnchor, R-101", None, stats(43.1, 62.2, 46.4, 24.5, 46.1, 54.8, fps=12.8)),
    ("FreeAnchor, X-101-32x8d", None, stats(44.9, 64.3, 48.5, 26.8, 48.3, 55.9, fps=8.2)),
    ("FoveaBox, R-101", None, stats(40.6, 60.1, 43.5, 23.3, 45.2, 54.5, fps=13.1)),
    ("FoveaBox, X-101", None, stats(42.1, 61.9, 45.2, 24.9, 46.8, 55.6)),
    ("FSAF, R-101", None, stats(40.9, 61.5, 44.0, 24.0, 44.2, 51.3, fps=15.1)),
    ("FSAF, X-101-64x4d", None, stats(42.9, 63.8, 46.3, 26.6, 46.2, 52.7, fps=9.1)),
    ("FCOS, R-101", None, stats(41.5, 60.7, 45.0, 24.4, 44.8, 51.6, fps=14.7)),
    ("FCOS, X-101-64x4d", None, stats(44.7, 64.1, 48.4, 27.6, 47.5, 55.6, fps=8.9)),
    ("SAPD, R-101", None, stats(43.5, 63.6, 46.5, 24.9, 46.8, 54.6, fps=13.2)),
    ("SAPD, X-101-32x4d", None, stats(44.5, 64.7, 47.8, 26.5, 47.8, 55.8, fps=10.7)),
    ("SAPD, R-101-DCN", None, stats(46.0, 65.9, 49.6, 26.3, 49.2, 59.6, fps=11.1)),
    ("SAPD, X-101-32x4d-DCN", None, stats(46.6, 66.6, 50.0, 27.3, 49.7, 60.7, fps=8.8)),
    ("ATSS, R-101", None, stats(43.6, 62.1, 47.4, 26.1, 47.0, 53.6, fps=14.6)),
    ("ATSS, X-101-32x8d", None, stats(45.1, 63.9, 49.1, 27.9, 48.2, 54.6, fps=8.9)),
    ("ATSS, R-101-DCN", None, stats(46.3, 64.7, 50.4, 27.7, 49.8, 58.4, fps=12.7)),
    ("ATSS, X-101-32x8d-DCN", None, stats(47.7, 66.6, 52.1, 29.3, 50.8, 59.7, fps=6.9)),
)


def table4() -> Table:
    """V1 Table 4: the state of the art on test-dev."""
    source = "V1 Table 4"
    ours = (
        ("GFL, R-50", gfl_r50_fpn_ms2x(), stats(43.1, 62.0, 46.8, 26.0, 46.7, 52.3, fps=19.4)),
        ("GFL, R-101", gfl_r101_fpn_ms2x(), stats(45.0, 63.7, 48.9, 27.2, 48.8, 54.5, fps=14.6)),
        ("GFL, X-101-32x4d", gfl_x101_32x4d_fpn_ms2x(), stats(46.0, 65.1, 50.1, 28.2, 49.6, 56.0, fps=12.2)),
        ("GFL, R-101-DCN", gfl_r101_dcn_fpn_ms2x(), stats(47.3, 66.3, 51.4, 28.0, 51.1, 59.2, fps=12.7)),
        ("GFL, X-101-32x4d-DCN", gfl_x101_32x4d_dcn_fpn_ms2x(), stats(48.2, 67.4, 52.6, 29.2, 51.7, 60.2, fps=10.0)),
    )
    rows = (
        *rows_of(source, MULTI_STAGE, group="multi-stage"),
        *rows_of(source, (*ONE_STAGE, *ours), group="one-stage"),
    )
    return Table(
        "v1-table4",
        "State of the art",
        source,
        "test-dev",
        rows,
        "Other people's detectors were trained by them, ATSS too. The speeds of TridentNet, CornerNet and CenterNet "
        "are from SAPD's paper, all others from one GeForce RTX 2080 Ti.",
    )
