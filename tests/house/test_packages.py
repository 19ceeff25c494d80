"""What setup.cfg promises about packages is what lies in the folders, and what gets installed."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "vorch": "vorch",
    "vorch_api": "api",
    "vorch_cli": "cli",
    "vorch_install_time": "benchmarks/install_time",
}


@pytest.fixture(scope="module")
def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def lines(value: str) -> list[str]:
    return [line.strip() for line in value.splitlines() if line.strip()]


def folder_of(package: str) -> Path:
    top, *rest = package.split(".")
    return ROOT.joinpath(FOLDERS[top], *rest)


def folders_with_code() -> set[str]:
    """The dotted name of every folder under the three packages that holds Python files."""
    found = set()
    for package, folder in FOLDERS.items():
        for file in (ROOT / folder).rglob("*.py"):
            found.add(".".join((package, *file.parent.relative_to(ROOT / folder).parts)))
    return found


def test_every_package_is_listed(settings: configparser.ConfigParser) -> None:
    listed = lines(settings["options"]["packages"])
    assert listed == sorted(listed)
    assert set(listed) == folders_with_code()


def test_every_folder_with_code_is_a_package() -> None:
    bare = [name for name in folders_with_code() if not (folder_of(name) / "__init__.py").is_file()]
    assert bare == []


def test_the_folders_have_the_names_they_install_under(
    settings: configparser.ConfigParser,
) -> None:
    pairs = (line.split("=") for line in lines(settings["options"]["package_dir"]))
    assert {name.strip(): folder.strip() for name, folder in pairs} == FOLDERS


@pytest.mark.parametrize("package", FOLDERS)
def test_type_information_is_shipped(settings: configparser.ConfigParser, package: str) -> None:
    assert "py.typed" in settings["options.package_data"][package].split()
    assert (folder_of(package) / "py.typed").read_text() == ""


@pytest.mark.slow
def test_plain_install_is_complete(tmp_path: Path) -> None:
    """An editable install hides a forgotten file; a wheel does not."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in FOLDERS.values():
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    # Built apart: packages of the distribution can be too old for the setuptools in .venv.
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("vorch-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        str(Path(package) / file.relative_to(source / folder))
        for package, folder in FOLDERS.items()
        for file in (source / folder).rglob("*")
        if file.is_file()
    }
    assert shipped == expected

    # Installed for real, and imported from there: no link back to the working tree is involved.
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    answer = subprocess.run(
        [sys.executable, "-c", "import vorch, vorch_api, vorch_cli; print(vorch.__file__)"],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(answer.stdout.strip()) == site / "vorch" / "__init__.py"
