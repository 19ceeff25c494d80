"""Without root: a user's own libvirt (qemu:///session), with user networking."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.guests import PREFIX, guest_image
from tests.real.test_libvirt_host import end_daemon

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]

USER = "nobody"
ROOT = Path(__file__).parents[2]
# What a user's own process does; it ends with the cluster as empty as it found it.
STORY = """
    import sys
    from pathlib import Path
    from tests.execute.scenarios import leaks
    from tests.real.guests import boot, clear, settings
    import vorch

    folder, disk, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    with vorch.connect(settings=settings(folder, "qemu:///session")) as cluster:
        try:
            node = cluster.node_list()[0]
            print("uri", node.uri)
            cluster.image_import("tiny", disk, memory_mib=160)
            cluster.create(
                name, image="tiny", cloud_init=vorch.CloudInit(user="alice"), networks=("default",)
            )
            with boot(cluster, name) as console:
                console.log_in()
                print("host", console.run("hostname"))
                console.until("ip -4 -o addr show dev eth0 | grep -c inet", "1")
                # The address that QEMU's own network gives to its only guest.
                print("address", console.run("ip -4 -o addr show dev eth0 | grep -o '10[0-9.]*/'"))
                # QEMU's network gives one of IPv6 as well, sooner or later.
                told = [one.ip for one in cluster.show(name).addresses if ":" not in one.ip]
                print("told", told)
            cluster.snapshot_create(name, "one")
            print("worth", cluster.snapshot_list(name)[0].consistency.value)
            cluster.stop(name, timeout_s=120)
            try:
                cluster.network_create("inner", kind="isolated")
            except vorch.Unsupported:
                print("isolated refused")
            print("leaks", leaks(cluster))
        finally:
            clear(cluster)
        print("left", leaks(cluster), cluster.volume_list("local"))
"""


@pytest.fixture
def home(libvirt_system: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="vorch-e2e-", dir="/var/tmp"))
    folder.chmod(0o700)
    account = pwd.getpwnam(USER)
    for name in ("run", "config", "cache"):
        (folder / name).mkdir(mode=0o700)
    for path in (folder, *folder.iterdir()):
        os.chown(path, account.pw_uid, account.pw_gid)
    try:
        yield folder
    finally:
        end_daemon(folder / "run/libvirt/libvirtd.pid")
        shutil.rmtree(folder, ignore_errors=True)


def test_a_user_without_rights_has_vms_too(home: Path) -> None:
    image = guest_image("tiny")
    disk = home / "tiny.qcow2"
    shutil.copyfile(image.path, disk)
    account = pwd.getpwnam(USER)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("VORCH")},
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STORY), home, disk, PREFIX + "session"],
        env=environment,
        cwd=home,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    if "No module named" in ended.stderr or "Permission denied" in ended.stderr[:200]:
        pytest.skip(f"user {USER} may not read vorch where it is")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines() == [
        "uri qemu:///session",
        f"host {PREFIX}session",
        "address 10.0.2.15/",
        "told ['10.0.2.15']",
        "worth frozen",
        "isolated refused",
        "leaks []",
        "left [] ()",
    ]
