"""Plots by matplotlib (the extra `plots`): phases as stacked bars, and a stroke for each run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from .results import Case, Run
from .tables import phase_names

# Colours that differ in brightness as well, for those who see them otherwise and for print.
COLOURS = ("#4e3b8b", "#2f6fa7", "#2a9d8f", "#8ab17d", "#e9c46a", "#f4a261", "#e76f51", "#9b2226")
MARKED = "NOT ALIKE: see what differs on the page"


def available() -> bool:
    """Whether plots can be drawn here."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw(method: str, found: dict[Case, tuple[Run, ...]], *, unlike: bool) -> dict[str, bytes]:
    """One plot as "svg" and as "png"."""
    from matplotlib.figure import Figure

    of_method = {case: runs for case, runs in found.items() if case.method == method}
    figure = Figure(figsize=(9.0, 1.6 + 0.55 * len(of_method)), layout="constrained")
    axes: Any = figure.subplots()
    titles = [f"{case.title} ({len(runs)})" for case, runs in of_method.items()]
    left = [0.0] * len(of_method)
    for name, colour in zip(phase_names(method), COLOURS, strict=False):
        widths = [_middle(runs, name) for runs in of_method.values()]
        axes.barh(titles, widths, left=left, color=colour, label=name, height=0.6)
        left = [at + width for at, width in zip(left, widths, strict=True)]
    for row, runs in enumerate(of_method.values()):
        seconds = [run.seconds for run in runs]
        axes.plot(seconds, [row] * len(seconds), "|", color="black", markersize=11)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds: bars are medians of phases, strokes are whole runs")
    axes.set_title(f"{method}: {MARKED}" if unlike else method, color="#9b2226" if unlike else "k")
    figure.legend(fontsize="small", ncols=8, loc="outside lower center", frameon=False)
    made = {}
    for kind in ("svg", "png"):
        out = io.BytesIO()
        # Without a date: what changes in a file is what was measured.
        figure.savefig(out, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else {})
        made[kind] = out.getvalue()
    return made


def _middle(runs: Sequence[Run], phase: str) -> float:
    import statistics

    figures = [value for run in runs if (value := run.phase(phase)) is not None]
    return statistics.median(figures) if figures else 0.0
