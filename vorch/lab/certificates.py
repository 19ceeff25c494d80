"""The lab's own CA, and the certificates that client, hosts and BMCs prove themselves with."""

from __future__ import annotations

from pathlib import Path

from vorch.errors import Unsupported
from vorch.lab.spec import LabSpec


def write(spec: LabSpec) -> None:
    """All certificates of a lab, where libvirt and QEMU look for them."""
    try:
        import trustme
    except ImportError as exc:
        raise Unsupported(
            "cannot make the lab's certificates: the Python package trustme is not installed;"
            " pip install 'vorch[lab]'"
        ) from exc
    authority = trustme.CA(organization_name=f"vorch lab {spec.name}")

    def issue(folder: Path, names: tuple[str, ...], places: dict[str, tuple[str, ...]]) -> None:
        leaf = authority.issue_cert(*names, common_name=names[0])
        # The leaf alone: libvirt and QEMU have the CA in a file of its own.
        certificate, key = leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()
        contents = {"ca": authority.cert_pem.bytes(), "certificate": certificate, "key": key}
        for what, files in places.items():
            for file in files:
                path = folder / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(mode=0o600)
                path.write_bytes(contents[what])

    issue(
        spec.client_pki,
        ("vorch-client",),
        {"ca": ("cacert.pem",), "certificate": ("clientcert.pem",), "key": ("clientkey.pem",)},
    )
    for host in spec.host_names:
        addresses = (spec.management_address(host), spec.storage_address(host))
        issue(
            spec.host_folder(host) / "etc" / "pki",
            (host, *addresses),
            {
                "ca": ("CA/cacert.pem", "qemu/ca-cert.pem"),
                "certificate": (
                    "libvirt/servercert.pem",
                    "libvirt/clientcert.pem",
                    "qemu/server-cert.pem",
                    "qemu/client-cert.pem",
                ),
                "key": (
                    "libvirt/private/serverkey.pem",
                    "libvirt/private/clientkey.pem",
                    "qemu/server-key.pem",
                    "qemu/client-key.pem",
                ),
            },
        )
        issue(
            spec.pki / "bmc",
            (f"{host}-bmc", spec.bmc_address(host)),
            {"certificate": (f"{host}.pem",), "key": (f"{host}.key",)},
        )
