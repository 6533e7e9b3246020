"""Every figure of both papers that shows data, drawn from models and formulas of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context

from gfocal.analysis.figures import (
    curves,
    disturbance,
    labels,
    losses,
    representations,
    speed,
    statistics,
    suppression,
    targets,
    unreliable,
)
from gfocal.analysis.figures.base import Drawing, Figure, Material
from gfocal.analysis.figures.plotting import STYLE, write
from gfocal.analysis.runs import Plan, Run, folder_of, perform, refuse_failed
from gfocal.analysis.scales import get_scale
from gfocal.config import Recipe
from gfocal.errors import UserError, unknown
from gfocal.recipes import v1, v2
from gfocal.recipes.baselines import atss_r50_fpn_1x
from gfocal.recipes.tables import get_table

__all__ = ["FIGURES", "Drawing", "Figure", "Material", "reproduce_figure"]


def reproduce_figure(
    name: str, plan: Plan, *, seed: int = 0, jobs: int = 1, models: Sequence[str] = ()
) -> tuple[Path, Path]:
    """Draw a figure of the papers, write NAME.png, and NAME.csv with the numbers behind it, into the plan's home.

    Returned are both paths. What it is drawn from is trained first, in the folders that the tables use, unless it is
    there or `models` names it. seed: of the runs, and of what is drawn at random. jobs: runs at once. models: run
    folders or files of weights, one for each recipe of the figure, in their order, and called so in it. UserError for
    an unknown figure or scale, models that are too few, too many or without what the figure shows, and runs that
    failed.
    """
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    figure, scale = FIGURES[name], get_scale(plan.scale)
    runs = () if models else tuple(Run(make(), seed) for make in figure.recipes)
    sources = _given(name, figure, models) if models else tuple(folder_of(run, plan) for run in runs)
    opened = scale.test(plan.data) if figure.needs_data else None
    if runs:
        refuse_failed(perform(runs, plan, jobs=jobs))
    png, table = plan.home / f"{name}.png", plan.home / f"{name}.csv"
    # the settings of matplotlib are the process's: they are put back
    with rc_context(STYLE):
        write(figure.draw(Material(sources, runs, opened, plan, seed)), png=png, table=table)
    return png, table


def _given(name: str, figure: Figure, models: Sequence[str]) -> tuple[Path, ...]:
    """Return the models that the user named; UserError where they are not as many as the figure is drawn from."""
    wanted = [make().name for make in figure.recipes]
    if len(models) != len(wanted):
        takes = f"{len(wanted)} models ({', '.join(wanted)})" if wanted else "no model"
        raise UserError(f"figure {name} takes {takes}, in this order, and {len(models)} were named")
    return tuple(Path(model) for model in models)


def _of_table(table: str, label: str, *, group: str = "") -> Callable[[], Recipe]:
    """Return a maker of the recipe of a row."""

    def make() -> Recipe:
        found = next(row.recipe for row in get_table(table).rows if (row.group, row.label) == (group, label))
        assert found is not None
        return found

    return make


IOU_BRANCH = _of_table("v1-table1a", "IoU-branch", group="ATSS")
JOINT = _of_table("v1-table1a", "joint w/ QFL", group="ATSS")
GAUSSIAN = _of_table("v1-table2a", "Gaussian", group="ATSS")
GENERAL = _of_table("v1-table2a", "General w/ DFL", group="ATSS")
V1_AND_V2 = (v1.gfl_r50_fpn_1x, v2.gflv2_r50_fpn_1x)
# in the order of the tables' rows
V1_TABLE4 = (
    v1.gfl_r50_fpn_ms2x,
    v1.gfl_r101_fpn_ms2x,
    v1.gfl_x101_32x4d_fpn_ms2x,
    v1.gfl_r101_dcn_fpn_ms2x,
    v1.gfl_x101_32x4d_dcn_fpn_ms2x,
)
V2_TABLE7 = (
    v1.gfl_r50_fpn_ms2x,
    v1.gfl_r101_fpn_ms2x,
    v1.gfl_r101_dcn_fpn_ms2x,
    v1.gfl_x101_32x4d_dcn_fpn_ms2x,
    v2.gflv2_r50_fpn_ms2x,
    v2.gflv2_r101_fpn_ms2x,
    v2.gflv2_r101_dcn_fpn_ms2x,
    v2.gflv2_x101_32x4d_dcn_fpn_ms2x,
    v2.gflv2_r2101_dcn_fpn_ms2x,
)

FIGURES: Mapping[str, Figure] = {
    "v1-fig2a": Figure(
        "Background patches of high predicted quality", "V1 Fig. 2a", (IOU_BRANCH,), True, unreliable.background_patches
    ),
    "v1-fig2b": Figure(
        "Class score against predicted IoU", "V1 Fig. 2b", (IOU_BRANCH, JOINT), True, unreliable.scores_and_qualities
    ),
    "v1-fig5a": Figure("The quality focal loss over β", "V1 Fig. 5a", (), False, losses.quality_focal_curves),
    "v1-fig5b": Figure(
        "Distributions of one expectation, and their DFL", "V1 Fig. 5b", (), False, losses.equal_expectations
    ),
    "v1-fig5c": Figure("Regression targets of ATSS", "V1 Fig. 5c", (), True, targets.histogram_of_targets),
    "v1-fig7": Figure(
        "Dirac delta, Gaussian and General boxes",
        "V1 Fig. 7",
        (atss_r50_fpn_1x, GAUSSIAN, GENERAL),
        True,
        representations.three_representations,
    ),
    "v1-fig8": Figure("Speed and accuracy", "V1 Fig. 8", V1_TABLE4, True, speed.speed_and_accuracy_v1),
    "v1-fig9": Figure(
        "Three distributions of an edge, and their objectives",
        "V1 Fig. 9 and Table 5",
        (),
        False,
        losses.distributions_and_losses,
    ),
    "v1-fig10": Figure("Error after a disturbance of the feature", "V1 Fig. 10", (), False, disturbance.robustness),
    "v1-fig11": Figure(
        "Objects of small centerness labels", "V1 Fig. 11", (v1.gfl_r50_fpn_1x,), True, labels.small_centerness
    ),
    "v1-fig12": Figure(
        "Labels of IoU and centerness", "V1 Fig. 12", (v1.gfl_r50_fpn_1x,), True, labels.histograms_of_labels
    ),
    "v2-fig1b": Figure(
        "Sharpness of distributions against IoU", "V2 Fig. 1b", (v1.gfl_r50_fpn_1x,), True, statistics.sharpness_and_iou
    ),
    "v2-fig4": Figure(
        "Topkm under shift and scale", "V2 Fig. 4", (v2.gflv2_r50_fpn_1x,), True, statistics.shift_and_scale
    ),
    "v2-fig6": Figure("Speed and accuracy", "V2 Fig. 6", V2_TABLE7, True, speed.speed_and_accuracy_v2),
    "v2-fig7": Figure(
        "Boxes before and after suppression", "V2 Fig. 7", V1_AND_V2, True, suppression.before_and_after_suppression
    ),
    "v2-fig8": Figure("Training losses of V1 and V2", "V2 Fig. 8", V1_AND_V2, False, curves.quality_losses),
    "v2-fig9": Figure(
        "DGQP's input and output",
        "V2 Fig. 9",
        (v2.gflv2_r50_fpn_1x,),
        True,
        statistics.sharpness_and_predicted_quality,
    ),
}
