"""The HTTP service of vorch: the other door to the library, with none of its logic."""

from .app import create_app
from .service import Service

__all__ = ["Service", "create_app"]
