from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import ValidationError

from gfocal.config import Recipe, options_of, read_recipe
from gfocal.errors import UserError
from gfocal.families import FAMILIES
from gfocal.quality import QUALITIES
from gfocal.recipes import RECIPES, get_recipe

WHERE = "my.yaml"


def values() -> dict[str, Any]:
    return get_recipe("gflv2_r18_mini").model_dump(mode="json")


def changed(path: str, value: object) -> dict[str, Any]:
    """Return the values of a recipe with one of them changed; `path` joins the keys with dots."""
    result = values()
    *parents, last = path.split(".")
    place = result
    for key in parents:
        place = place[key]
    place[last] = value
    return result


def message(content: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        Recipe.from_yaml(yaml.safe_dump(content), where=WHERE)
    text = str(caught.value)
    assert text.startswith(f"{WHERE}: ")
    return text


# ---------------------------------------------------------------- round trip


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_survives_yaml(name: str, tmp_path: Path) -> None:
    recipe = get_recipe(name)
    assert Recipe.from_yaml(recipe.to_yaml(), where=WHERE) == recipe
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert read_recipe(path) == get_recipe(path) == recipe


def test_every_option_survives_yaml() -> None:
    recipe = Recipe.from_values(
        values()
        | {
            "class_names": ["yes", "1", "Fußgänger", "a: b", "#c"],
            "family": {"name": "atss", "topk": 7, "anchor_scale": 4.0},
            "quality": {"name": "dgqp", "top_k": 2, "hidden": 16, "beta": 1.5},
            "box": {"name": "general", "n": 12, "delta": 0.5, "dfl_weight": 0.0},
        },
        where=WHERE,
    )
    again = Recipe.from_yaml(recipe.to_yaml(), where=WHERE)
    assert again == recipe
    assert again.class_names == ("yes", "1", "Fußgänger", "a: b", "#c")
    assert again.box == {"name": "general", "n": 12, "delta": 0.5, "dfl_weight": 0.0}


def test_what_is_left_out_takes_the_papers_values() -> None:
    recipe = Recipe.from_yaml(
        """
        name: short
        family: {name: atss}
        quality: {name: joint}
        box: {name: general}
        backbone: {name: resnet18}
        class_names: [thing]
        """,
        where=WHERE,
    )
    assert (recipe.test.score_threshold, recipe.test.nms_threshold) == (0.05, 0.6)  # V1 supplement D
    assert (recipe.test.max_per_level, recipe.test.max_detections) == (1000, 100)
    assert (recipe.schedule.lr, recipe.schedule.batch, recipe.schedule.epochs) == (0.01, 16, 12)
    assert (recipe.schedule.momentum, recipe.schedule.weight_decay) == (0.9, 1e-4)
    assert (recipe.pictures.short, recipe.pictures.long) == (800, 1333)


def test_a_recipe_cannot_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        get_recipe("gfl_r18_mini").name = "other"  # type: ignore[misc]


def test_options_are_the_parts_keyword_arguments() -> None:
    names = tuple[Literal["top", "mean", "var"], ...]
    assert options_of(QUALITIES["dgqp"]) == {"top_k": int, "statistics": names, "hidden": int, "beta": float}
    assert options_of(QUALITIES["joint"]) == {"beta": float}
    assert options_of(QUALITIES["none"]) == {}
    assert options_of(FAMILIES["ssd"]) == {}
    assert options_of(FAMILIES["fcos"]) == {"radius": float}


@pytest.mark.parametrize(
    ("axis", "spec"),
    [
        ("family", {"name": "atss", "coding": "deltas"}),
        ("family", {"name": "foveabox", "coding": "logarithms", "shrink": 0.5}),
        ("family", {"name": "ssd"}),
        ("quality", {"name": "dgqp", "statistics": ["top", "mean", "var"]}),
        ("quality", {"name": "composed", "dims": 32, "statistics": ["var"]}),
        ("quality", {"name": "conv", "places": "border_extreme", "hidden": 8}),
        ("quality", {"name": "guided", "label": "centerness"}),
        ("box", {"name": "gaussian", "weight": 0.5, "smallest": 0.01}),
    ],
)
def test_options_of_every_kind_survive_yaml(axis: str, spec: dict[str, object]) -> None:
    recipe = Recipe.from_values(values() | {axis: spec}, where=WHERE)
    read = {key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()}
    assert getattr(recipe, axis) == read
    assert Recipe.from_yaml(recipe.to_yaml(), where=WHERE) == recipe
    assert recipe.model_dump(mode="json")[axis] == spec


@pytest.mark.parametrize(
    ("axis", "spec", "says"),
    [
        ("family", {"name": "atss", "coding": "logarithms"}, "coding = 'logarithms'"),
        ("family", {"name": "fcos", "coding": "deltas"}, "unknown option of 'fcos' 'coding'"),
        ("family", {"name": "ssd", "size": 300}, "unknown option of 'ssd' 'size'"),
        ("quality", {"name": "branch", "label": "centre"}, "label = 'centre'"),
        ("quality", {"name": "conv", "places": "everywhere"}, "places = 'everywhere'"),
        ("quality", {"name": "dgqp", "statistics": ["top", "median"]}, "statistics = ['top', 'median']"),
        ("quality", {"name": "dgqp", "statistics": []}, "statistics must name one or more"),
        ("box", {"name": "gaussian", "weight": 0.0}, "weight must be greater than 0, got 0"),
        ("box", {"name": "dirac", "n": 16}, "unknown option of 'dirac' 'n'"),
    ],
)
def test_options_of_every_kind_are_checked(axis: str, spec: dict[str, object], says: str) -> None:
    text = message(changed(axis, spec))
    assert text.startswith(f"{WHERE}: {axis}")
    assert says in text
    assert "\n" not in text


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("epochs", 3, "epochs = 3"),
        ("schedule.epoch", 3, "schedule.epoch = 3"),
        ("schedule.epochs", 0, "schedule.epochs = 0"),
        ("schedule.epochs", "many", "schedule.epochs = 'many'"),
        ("schedule.lr", -0.1, "schedule.lr = -0.1"),
        ("schedule.optimizer", "adam", "schedule.optimizer = 'adam'"),
        ("head.channels", 100, "head.channels = 100"),
        ("backbone.weights", "coco", "backbone.weights = 'coco'"),
        ("backbone.frozen_stages", 5, "backbone.frozen_stages = 5"),
        ("pictures.mean", [1.0, 2.0], "pictures.mean"),
        ("pictures.flip", 1.5, "pictures.flip = 1.5"),
        ("test.score_threshold", 1.0, "test.score_threshold = 1.0"),
        ("class_names", [], "class_names = []"),
        ("class_names", ["a", "b", "a"], "class_names holds a name twice"),
        ("expected", [{"minival": 40.2}], "expected.0.source"),
    ],
)
def test_a_wrong_value_is_named_with_its_file_and_key(path: str, value: object, expected: str) -> None:
    text = message(changed(path, value))
    assert expected in text
    assert "\n" not in text


def test_a_missing_key_is_named() -> None:
    content = values()
    del content["backbone"]
    assert "backbone" in message(content)


@pytest.mark.parametrize(("axis", "near"), [("family", "atss"), ("quality", "dgqp"), ("box", "general")])
def test_an_unknown_part_names_the_choices(axis: str, near: str) -> None:
    text = message(changed(f"{axis}.name", near + "x"))
    assert text.startswith(f"{WHERE}: {axis}")
    assert f"did you mean '{near}'?" in text
    assert "\n" not in text


@pytest.mark.parametrize("axis", ["family", "quality", "box"])
@pytest.mark.parametrize("spec", [{}, {"name": None}, {"name": 3}, {"name": ["joint"]}])
def test_a_part_without_a_name_is_refused(axis: str, spec: dict[str, object]) -> None:
    text = message(changed(axis, spec))
    assert text.startswith(f"{WHERE}: {axis}")
    assert "choose from" in text


@pytest.mark.parametrize(
    ("axis", "option", "near"), [("family", "topks", "topk"), ("quality", "topk", "top_k"), ("box", "detla", "delta")]
)
def test_an_unknown_option_names_the_nearest(axis: str, option: str, near: str) -> None:
    text = message(changed(f"{axis}.{option}", 4))
    assert text.startswith(f"{WHERE}: {axis}")
    assert f"unknown option of {values()[axis]['name']!r} {option!r}: did you mean '{near}'?" in text


@pytest.mark.parametrize(
    ("path", "value"),
    [("box.n", "many"), ("box.n", [16]), ("box.n", True), ("box.delta", None), ("quality.top_k", 2.5)],
)
def test_an_option_of_a_wrong_type_is_refused(path: str, value: object) -> None:
    text = message(changed(path, value))
    assert text.startswith(f"{WHERE}: {path.partition('.')[0]}")
    assert repr(value) in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("path", "value"),
    [("box.n", "many"), ("box.n", [16]), ("box.n", True), ("box.delta", None), ("quality.top_k", 2.5)],
)
def test_an_option_of_a_wrong_type_is_named_by_its_key(path: str, value: object) -> None:
    assert f"{path.partition('.')[2]} = {value!r}: " in message(changed(path, value))


@pytest.mark.parametrize(("given", "expected"), [("16", 16), (16.0, 16)])
def test_an_option_has_its_type_after_reading(given: object, expected: int) -> None:
    recipe = Recipe.from_values(changed("box.n", given), where=WHERE)
    assert recipe.box["n"] == expected
    assert type(recipe.box["n"]) is int


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("box.n", 0),
        ("box.delta", 0.0),
        ("box.delta", float("nan")),
        ("quality.top_k", 0),
        ("quality.beta", -1.0),
        ("family.topk", 0),
        ("family.anchor_scale", -8.0),
    ],
)
def test_an_option_out_of_range_is_refused_by_file_and_key(path: str, value: object) -> None:
    text = message(changed(path, value))
    assert path.split(".")[1] in text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("pictures.std", [0.0, 1.0, 1.0]),
        ("pictures.train_short", [800, 480]),
        ("pictures.train_short", [0, 0]),
        ("pictures.jitter", [1.4, 0.7]),
        ("pictures.long", 100),
        ("schedule.milestones", [1.5]),
    ],
)
def test_impossible_pictures_and_schedules_are_refused(path: str, value: object) -> None:
    text = message(changed(path, value))
    assert all(part in text for part in path.split("."))


@pytest.mark.parametrize("text", ["a: [1, 2", "a: b: c", "\tname: x", "name: 'x", "{", "[" * 3000])
def test_malformed_yaml_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^my\.yaml: not valid YAML: ") as caught:
        Recipe.from_yaml(text, where=WHERE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b", "3"])
def test_yaml_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^my\.yaml: a recipe is a mapping"):
        Recipe.from_yaml(text, where=WHERE)


def test_yaml_does_not_run_code(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with pytest.raises(UserError, match="not valid YAML"):
        Recipe.from_yaml(f"name: !!python/object/apply:os.mkdir ['{trace}']", where=WHERE)
    assert not trace.exists()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, folder, binary = tmp_path / "none.yaml", tmp_path / "folder.yaml", tmp_path / "binary.yaml"
    folder.mkdir()
    binary.write_bytes(b"\xff\xfe\x00name")
    for path in (missing, folder, binary):
        with pytest.raises(UserError, match=path.name):
            read_recipe(path)
