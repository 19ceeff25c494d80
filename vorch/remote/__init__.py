"""A cluster that a service stands before, with the methods of one at hand."""

from vorch.remote.far import RemoteOrchestrator
from vorch.remote.link import Link, link_to

__all__ = ["Link", "RemoteOrchestrator", "link_to"]
