"""The set-up script, on machines that are made up of a few stand-in programs on its PATH."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vorch.lab import xen_image
from vorch.lab.guest import PROGRAMS_FOR_DEBIAN

ROOT = Path(__file__).parents[2]
# What the script may use of the real machine; what matters is replaced by the tests.
TOOLS = ("bash", "cat", "comm", "dirname", "env", "mktemp", "rm", "sed", "sort", "tail")


class Machine:
    """A folder of programs that is all the script can find, and a copy of the script."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.log = folder / "log"
        self.log.touch()
        self.tree = folder / "tree"
        (self.tree / "packaging").mkdir(parents=True)
        script = (ROOT / "packaging" / "prepare.sh").read_text()
        # The script adds the system's sbin folders; here they would let the real machine in.
        added = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin\n"
        assert added in script
        (self.tree / "packaging" / "prepare.sh").write_text(script.replace(added, ""))
        for tool in TOOLS:
            real = shutil.which(tool)
            assert real is not None, tool
            (self.programs / tool).symlink_to(real)

    def program(self, name: str, body: str) -> None:
        file = self.programs / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.log}\n{body}\n')
        file.chmod(0o755)

    def prepare(self, goal: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.programs / "bash", self.tree / "packaging" / "prepare.sh", goal],
            env={"PATH": str(self.programs), "TMPDIR": str(self.tree)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self, name: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith(f"{name} ")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def bare_debian(machine: Machine, user: int) -> None:
    machine.program("id", f"echo {user}")
    machine.program("dpkg-query", "exit 1")
    machine.program("apt-get", 'echo "no such mirror" >&2; exit 100')


def test_without_root_and_sudo_it_names_the_command_for_an_administrator(machine: Machine) -> None:
    bare_debian(machine, user=1000)
    answer = machine.prepare("run")
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert line.startswith("make run: cannot install packages: ")
    assert "let an administrator run: apt-get update && apt-get install -y " in line
    assert " libvirt-daemon-system " in line
    assert machine.calls("apt-get") == []


def test_sudo_is_used_when_it_asks_nothing(machine: Machine) -> None:
    bare_debian(machine, user=1000)
    machine.program("sudo", "true")
    machine.prepare("run")
    assert "sudo apt-get update" in machine.calls("sudo")


def test_sudo_that_would_ask_is_not_used_where_nobody_can_answer(machine: Machine) -> None:
    bare_debian(machine, user=1000)
    machine.program("sudo", "exit 1")
    answer = machine.prepare("run")
    assert "let an administrator run:" in answer.stderr
    assert machine.calls("sudo") == ["sudo -n true"]


def test_it_says_what_it_installs_before_it_does(machine: Machine) -> None:
    bare_debian(machine, user=0)
    machine.program("apt-get", 'test "$1" = update')
    answer = machine.prepare("check")
    assert "will be installed now" in answer.stdout
    assert " libvirt-dev " in answer.stdout
    assert "qemu" not in answer.stdout


def test_a_failed_installation_shows_what_the_package_manager_said(machine: Machine) -> None:
    bare_debian(machine, user=0)
    answer = machine.prepare("test")
    assert answer.returncode == 1
    assert "no such mirror" in answer.stderr
    assert "make test: cannot refresh the list of packages: " in answer.stderr
    assert "then run make test again" in answer.stderr


def test_only_what_is_missing_is_installed(machine: Machine) -> None:
    bare_debian(machine, user=0)
    installed = "gcc libc6-dev libvirt-dev pkg-config python3-dev python3-venv shellcheck"
    machine.program(
        "dpkg-query",
        f'for name in {installed}; do echo "ii  $name"; done; echo "rc  python3"; exit 1',
    )
    machine.program("apt-get", 'test "$1" = update')
    machine.prepare("check")
    (install,) = [call for call in machine.calls("apt-get") if " install " in call]
    assert install.split()[-1] == "python3"
    assert "--force-confold" in install


def test_fedora_is_asked_in_its_own_words(machine: Machine) -> None:
    machine.program("id", "echo 0")
    machine.program("rpm", "exit 1")
    machine.program("dnf", "exit 1")
    answer = machine.prepare("run")
    assert "make run: cannot install packages: " in answer.stderr
    (install,) = machine.calls("dnf")
    assert " libvirt-daemon-kvm " in install


def test_another_distribution_is_told_what_it_lacks(machine: Machine) -> None:
    answer = machine.prepare("run")
    assert answer.returncode == 1
    assert "neither apt nor dnf, and gcc is missing" in answer.stderr


def test_an_unknown_goal_is_refused() -> None:
    answer = subprocess.run(
        [ROOT / "packaging" / "prepare.sh", "everything"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert answer.stderr.startswith("usage: ")


def test_the_packages_for_guests_are_those_the_builder_names() -> None:
    """The list in the script has to be there before any Python is; the table is vorch.lab's."""
    script = (ROOT / "packaging" / "prepare.sh").read_text()
    listed: set[str] = set()
    for name in ("debian_run", "debian_lab", "debian_guests"):
        found = re.search(rf"^{name}=\(([^)]*)\)", script, re.MULTILINE)
        assert found is not None, name
        listed |= set(found[1].split())
    # Parts of every Debian.
    essential = {"apt", "coreutils", "dpkg", "util-linux"}
    wanted = {*PROGRAMS_FOR_DEBIAN.values(), *xen_image.PROGRAMS.values()}
    assert wanted - essential <= listed


def test_everything_else_in_the_tree_is_left_alone(machine: Machine) -> None:
    bare_debian(machine, user=1000)
    before = sorted(machine.tree.iterdir())
    machine.prepare("run")
    assert sorted(machine.tree.iterdir()) == before
