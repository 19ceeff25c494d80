"""Who may import what: the rules that import-linter has no word for."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BINDINGS = {"libvirt", "libvirt_qemu", "libvirtaio", "libvirtmod", "rados", "rbd"}
VAGUE = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "base"}


def files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def imports(file: Path) -> Iterator[tuple[str, int]]:
    """Every absolute import in a file as (dotted name, line), those inside functions as well."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield node.module, node.lineno


def offences(found: list[tuple[Path, int, str]]) -> list[str]:
    return [f"{file.relative_to(ROOT)}:{line}: {name}" for file, line, name in found]


def test_bindings_are_imported_in_drivers_and_the_lab_only() -> None:
    # The lab builds the Ceph that drivers then meet, and checks their work past them.
    places = (ROOT / "vorch" / "drivers", ROOT / "vorch" / "lab")
    found = [
        (file, line, name)
        for file in files("vorch", "api", "cli")
        if not any(file.is_relative_to(place) for place in places)
        for name, line in imports(file)
        if name.split(".")[0] in BINDINGS
    ]
    assert offences(found) == []


def test_the_library_does_not_import_its_own_front() -> None:
    """A public name fetched inside vorch goes up to the top and down again, past all layers."""
    modules = {file.stem for file in (ROOT / "vorch").iterdir()}
    found = [
        (file, node.lineno, alias.name)
        for file in files("vorch")
        if file != ROOT / "vorch" / "__init__.py"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "vorch"
        for alias in node.names
        if alias.name not in modules
    ]
    assert offences(found) == []


@pytest.mark.parametrize(("folder", "package"), [("api", "vorch_api"), ("cli", "vorch_cli")])
def test_siblings_in_a_door_are_imported_relatively(folder: str, package: str) -> None:
    found = [
        (file, line, name)
        for file in files(folder)
        for name, line in imports(file)
        if name.split(".")[0] in {package, folder}
    ]
    assert offences(found) == []


def test_no_module_is_named_after_a_package_it_imports() -> None:
    found = [
        (file, line, name)
        for file in files("vorch", "api", "cli")
        for name, line in imports(file)
        if file.stem == name.split(".")[0]
    ]
    assert offences(found) == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [
        str(file.relative_to(ROOT))
        for file in files("vorch", "api", "cli")
        if {file.stem, file.parent.name} & VAGUE
    ]
    assert vague == []


@pytest.mark.parametrize(
    "code",
    ["import vorch", "import vorch; vorch.connect('memory:')"],
    ids=["import", "memory"],
)
def test_the_library_needs_neither_libvirt_nor_ceph(code: str) -> None:
    """Run with the bindings made unfindable, so that a quiet `try: import` would show as well."""
    program = f"""
import sys

class Absent:
    tried = []

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {sorted(BINDINGS)!r}:
            self.tried.append(name)
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
{code}
print(*Absent.tried)
"""
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == ""
