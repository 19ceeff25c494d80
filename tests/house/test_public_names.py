"""The public surface is what vorch/__init__.py says, no more and no less."""

import ast
from pathlib import Path

import vorch

FRONT = Path(__file__).parents[2] / "vorch" / "__init__.py"
# Bound in the file, public, and no part of `from vorch import *`.
BESIDE = {"__version__"}


def bound_names() -> set[str]:
    """The names that the file itself binds at its top level."""
    names: set[str] = set()
    for node in ast.parse(FRONT.read_text(encoding="utf-8")).body:
        match node:
            case ast.Import() | ast.ImportFrom():
                names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            case ast.FunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Assign():
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


def test_names_and_all_agree() -> None:
    public = {name for name in bound_names() if not name.startswith("_")}
    assert public == set(vorch.__all__) - BESIDE


def test_no_name_stands_twice() -> None:
    """Their order is ruff's business."""
    assert len(vorch.__all__) == len(set(vorch.__all__))


def test_every_public_name_is_there() -> None:
    assert [name for name in vorch.__all__ if not hasattr(vorch, name)] == []
