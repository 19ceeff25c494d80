"""Sources in assembler, whose bytes stand in Python files: assembled anew, to be compared."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def assembled(source: Path, *, at: int) -> bytes:
    for tool in ("as", "ld"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} of binutils is not installed")
    as_help = subprocess.run(["as", "--help"], capture_output=True, text=True, check=False).stdout
    if "--64" not in as_help:
        pytest.skip("this assembler does not speak x86")
    with tempfile.TemporaryDirectory(prefix="vorch-as-") as folder:
        made, linked = Path(folder, "made.o"), Path(folder, "linked.bin")
        subprocess.run(["as", "--64", str(source), "-o", str(made)], check=True)
        options = ["-m", "elf_x86_64", "-Ttext", hex(at), "--oformat", "binary"]
        subprocess.run(["ld", *options, str(made), "-o", str(linked)], check=True)
        return linked.read_bytes()
