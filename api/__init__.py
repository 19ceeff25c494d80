"""The HTTP service of vorch: the other door to the library, with none of its logic."""

from .app import create_app
from .service import Service, Vigil

__all__ = ["Service", "Vigil", "create_app"]
