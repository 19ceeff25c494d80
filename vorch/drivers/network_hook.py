"""vorch's libvirt hook for networks (network_hook.sh), and how it gets onto this machine."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from vorch.drivers.os_errors import translated

# libvirt runs what is in such folders since 6.5, beside a hook that somebody else may have.
PLACE = Path("/etc/libvirt/hooks/network.d/vorch")


def network_hook() -> str:
    """The hook's text, for a host's package or configuration management."""
    return files("vorch.drivers").joinpath("network_hook.sh").read_text(encoding="utf-8")


def install_network_hook(place: Path = PLACE) -> Path:
    """Put it in its place on this machine. libvirtd looks for hooks once, when it starts."""
    with translated(f"install vorch's network hook as {str(place)!r}"):
        place.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: libvirt may run it at any moment.
        draft = place.with_name(f".{place.name}.new")
        draft.write_text(network_hook(), encoding="utf-8")
        draft.chmod(0o755)
        draft.rename(place)
    return place
