"""Install times on KVM and Xen, compared: `vorch bench install`, and its report."""

from __future__ import annotations

from .engine import Benchmark, Request
from .likeness import Difference, differences
from .marks import METHODS
from .plots import available as can_plot
from .report import write as write_report
from .results import Case, Results, Run, read

__all__ = [
    "METHODS",
    "Benchmark",
    "Case",
    "Difference",
    "Request",
    "Results",
    "Run",
    "can_plot",
    "differences",
    "read",
    "write_report",
]
