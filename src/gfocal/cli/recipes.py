"""`gfocal recipes`: the named models."""

from __future__ import annotations

from typing import Annotated, no_type_check

import typer

recipes = typer.Typer(help="List the named models, or show one as YAML.", rich_markup_mode=None)


@recipes.callback(invoke_without_command=True)
@no_type_check  # typer passes a context of the library it wraps
def listed(context: typer.Context) -> None:
    """List the named models.

    Next: `gfocal recipes show NAME > mine.yaml`, change it, and `gfocal train --recipe mine.yaml --data DATA`.
    """
    if context.invoked_subcommand is not None:
        return
    from gfocal.recipes import RECIPES
    from gfocal.recipes.costs import COSTS

    width = max(map(len, RECIPES))
    for name, make in RECIPES.items():
        summary = (make.__doc__ or "").splitlines()[0]
        typer.echo(f"{name:<{width}}  {summary}")
        cost = COSTS[name]
        typer.echo(f"{'':<{width}}    {cost.parameters / 1e6:.2f} M parameters, {cost.gmacs:.1f} GMACs at 1280×800")
        for figure in make().expected:
            values = (("minival", figure.minival), ("test-dev", figure.test_dev))
            known = ", ".join(f"{split} AP {value}" for split, value in values if value is not None)
            typer.echo(f"{'':<{width}}    COCO {known} ({figure.source})")


@recipes.command()
def show(name: Annotated[str, typer.Argument(help="a name from `gfocal recipes`")]) -> None:
    """Print a recipe as YAML, which --recipe reads back."""
    from gfocal.recipes import get_recipe

    typer.echo(get_recipe(name).to_yaml(), nl=False)
