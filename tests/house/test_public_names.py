"""The public surface is what vorch/__init__.py says, no more and no less."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import vorch
from vorch import simulate

FRONT = Path(__file__).parents[2] / "vorch" / "__init__.py"
# Bound in the file, public, and no part of `from vorch import *`.
BESIDE = {"__version__"}


# What the file needs itself, and nobody else.
OF_THE_FILE = {"TYPE_CHECKING", "import_module"}


def statements(file: Path = FRONT) -> Iterator[ast.stmt]:
    """At its top level, and in the part that type checkers alone read."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from node.body
        else:
            yield node


def bound_names() -> set[str]:
    """The names that the file itself binds at its top level."""
    names: set[str] = set()
    for node in statements():
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
    assert public - OF_THE_FILE == set(vorch.__all__) - BESIDE


def test_each_is_loaded_from_where_type_checkers_find_it() -> None:
    typed = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in statements()
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (alias.asname or alias.name) not in OF_THE_FILE
    }
    assert typed == vorch._HOME


def test_the_simulator_loads_each_from_where_type_checkers_find_it() -> None:
    typed = {
        alias.name: node.module
        for node in statements(FRONT.parent / "simulate" / "__init__.py")
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name not in OF_THE_FILE
    }
    assert typed == vars(simulate)["_HOME"]
    assert set(typed) == set(simulate.__all__)
    assert [name for name in simulate.__all__ if not hasattr(simulate, name)] == []


def test_what_is_not_asked_for_is_not_loaded() -> None:
    code = "import sys, vorch; print(*sorted(name for name in sys.modules if 'vorch' in name))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name for name in answer.stdout.split() if not name.startswith("__editable__")}
    assert loaded == {"vorch"}


def test_no_name_stands_twice() -> None:
    """Their order is ruff's business."""
    assert len(vorch.__all__) == len(set(vorch.__all__))


def test_every_public_name_is_there() -> None:
    assert [name for name in vorch.__all__ if not hasattr(vorch, name)] == []
