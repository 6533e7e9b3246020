"""YAML files as nodes rather than values: they know their lines, and repeated keys are not lost."""

from __future__ import annotations

from pathlib import Path

import yaml

from gfocal.data.pictures import value_text
from gfocal.errors import UserError


def read_nodes(path: Path) -> yaml.Node | None:
    """Return the root of a YAML file, None of an empty one; UserError with the line, where it has one."""
    try:
        return yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{line}not YAML ({error.problem})") from error
    except RecursionError as error:
        raise UserError("not YAML (nested too deep)") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: \U of no character
        raise UserError(f"not YAML ({' '.join(str(error).split())})") from error


def line_of(node: yaml.Node) -> str:
    """Return "line N" of a node."""
    return f"line {node.start_mark.line + 1}"


def node_text(node: yaml.Node) -> str:
    """Return a node as one short printable line."""
    if isinstance(node, yaml.ScalarNode):
        return value_text(node.value)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def is_nothing(node: yaml.Node) -> bool:
    """Return whether a key has no value."""
    return node.tag == "tag:yaml.org,2002:null"


def pairs_of(what: str, node: yaml.Node, *, wanted: str) -> dict[str, yaml.Node]:
    """Return a mapping by its keys; UserError with the line where it is none, or a key is no word or appears twice.

    what, wanted: how messages call the node, and what they say to write instead.
    """
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{line_of(node)}: {what} is {node_text(node)}: write {wanted}")
    pairs: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or not str(key.value).isprintable():
            raise UserError(f"{line_of(key)}: a key of {what} is no word: write {wanted}")
        if key.value in pairs:
            raise UserError(f"{line_of(key)}: {value_text(key.value)} appears twice: remove one")
        pairs[str(key.value)] = value
    return pairs
