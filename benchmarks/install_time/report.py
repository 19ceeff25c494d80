"""Writes a report: results as JSON and CSV, plots, and the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vorch import Invalid

from . import plots
from .engine import refuse_unlike
from .likeness import Difference, differences
from .page import page
from .results import Results, cases, to_json
from .tables import to_csv


def write(results: Sequence[Results], folder: Path, *, unlike: bool = False) -> list[Path]:
    """The files that were written. Unlike results are refused, or marked where that was asked."""
    found = differences(results)
    refuse_unlike(found, allowed=unlike or any(one.unlike_allowed for one in results))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _write(results, found, folder)
    except OSError as exc:
        raise Invalid(
            f"cannot write the report to {str(folder)!r}: {exc.strerror}; name another folder"
        ) from exc


def _write(results: Sequence[Results], found: Sequence[Difference], folder: Path) -> list[Path]:
    made = [_text(folder / "report.json", to_json(results))]
    made.append(_text(folder / "report.csv", to_csv(results, found)))
    counted = cases(results)
    drawn: dict[str, bytes] = {}
    if plots.available():
        for method in dict.fromkeys(case.method for case in counted):
            files = plots.draw(method, counted, unlike=bool(found))
            drawn[method] = files["svg"]
            for kind, data in files.items():
                target = folder / f"{method}.{kind}"
                target.write_bytes(data)
                made.append(target)
    made.append(_text(folder / "report.html", page(results, found, drawn)))
    return made


def _text(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file
