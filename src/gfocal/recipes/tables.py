"""Every table of both papers as rows of what to train and what the paper measured.

Recipes of the rows have the papers' scale. Their names follow their content, so that rows of different tables that are
the same model are one recipe, and one run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gfocal.config import Recipe
from gfocal.errors import unknown
from gfocal.recipes import tables_v1, tables_v2
from gfocal.recipes.rows import Row, Table

__all__ = ["TABLES", "Row", "Table", "ablations", "get_table"]

TABLES: Mapping[str, Callable[[], Table]] = {
    "v1-table1a": tables_v1.table1a,
    "v1-table1b": tables_v1.table1b,
    "v1-table1c": tables_v1.table1c,
    "v1-table2a": tables_v1.table2a,
    "v1-table2b": tables_v1.table2b,
    "v1-table2c": tables_v1.table2c,
    "v1-table3": tables_v1.table3,
    "v1-table4": tables_v1.table4,
    "v2-table1": tables_v2.table1,
    "v2-table2": tables_v2.table2,
    "v2-table3": tables_v2.table3,
    "v2-table4": tables_v2.table4,
    "v2-table5": tables_v2.table5,
    "v2-table6": tables_v2.table6,
    "v2-table7": tables_v2.table7,
    "v2-table8": tables_v2.table8,
}


def get_table(name: str) -> Table:
    """Return a table by its name; UserError names the nearest one where it is unknown."""
    if name not in TABLES:
        raise unknown("table", name, TABLES)
    return TABLES[name]()


def ablations() -> Mapping[str, Recipe]:
    """Return every recipe of every table by its name, in the order of the tables."""
    rows = (row for make in TABLES.values() for row in make().rows)
    return {row.recipe.name: row.recipe for row in rows if row.recipe is not None}
