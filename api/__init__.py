"""The HTTP service of vorch: the other door to the library, with none of its logic."""

from .app import create_app
from .logs import TaskLog, log_to_stderr
from .metrics import Metrics
from .service import Service, Vigil

__all__ = ["Metrics", "Service", "TaskLog", "Vigil", "create_app", "log_to_stderr"]
