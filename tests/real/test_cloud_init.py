"""A real Debian with the real cloud-init, told who it is by vorch's seed."""

from __future__ import annotations

import os

import pytest

from tests.real.guests import (
    PREFIX,
    SECRET,
    SSH_KEY,
    GuestConsole,
    embedded_cluster,
    eventually,
    guest_image,
)
from vorch import CloudInit, StaticAddress

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(900)]

NAME = PREFIX + "debian"
# A person's own part beside vorch's: both are carried out.
USER_DATA = "#cloud-config\nwrite_files:\n- path: /etc/told\n  content: by the person\n"


@pytest.mark.thorough
def test_debian_boots_and_is_what_its_seed_says(libvirt_system: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("debootstrap works as root only")
    image = guest_image("debian")
    nat, inner = PREFIX + "nat", PREFIX + "inner"
    with embedded_cluster() as cluster:
        cluster.network_create(nat)
        cluster.network_create(inner, kind="isolated")
        cluster.image_import("debian", str(image.path))
        subnet = str(cluster.network_show(nat).subnet).rsplit(".", 1)[0]
        cluster.create(
            NAME,
            image="debian",
            memory_mib=image.memory_mib,
            vcpus=2,
            networks=(nat, inner),
            cloud_init=CloudInit(
                hostname="deb7",
                user="alice",
                password_hash=SECRET,
                ssh_keys=(SSH_KEY,),
                addresses=(
                    StaticAddress(address=f"{subnet}.5/24", gateway=f"{subnet}.1"),
                    None,
                ),
                commands=("echo ran on $(hostname) > /var/ran",),
                user_data=USER_DATA,
            ),
            start=True,
        )
        with GuestConsole(cluster, NAME) as console:
            console.expect(r"vorch-guest ready after", 400)
            # The prompt of before cloud-init still bears the old name: asked anew, the new one.
            console.ask_until("", r"deb7 login: $")
            console.send("alice")
            console.expect("assword: ?$")
            console.send("secret")
            console.expect(r"\$ $")
            assert console.run("cat .ssh/authorized_keys /var/ran /etc/told").splitlines() == [
                SSH_KEY,
                "ran on deb7",
                "by the person",
            ]
            assert f"{subnet}.5/24" in console.run("ip -4 addr")
            assert console.run("sudo -n id -u") == "0"
            seen = eventually(
                lambda: {one.mac: one.ip for one in cluster.show(NAME).addresses},
                lambda seen: len(seen) == 2,
            )
            assert f"{subnet}.5" in seen.values()
            assert cluster.snapshot_create(NAME, "frozen").task is not None
            assert cluster.snapshot_list(NAME)[0].consistency == "frozen"
            console.run("echo still writing > ~/note && sync")
        cluster.stop(NAME, timeout_s=300)
