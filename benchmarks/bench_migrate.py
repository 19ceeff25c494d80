"""What vorch adds to a live migration: `migrate` against the bare libvirt call, in turns.

`python -m benchmarks.bench_migrate [--rounds 4]`, as root. A lab is made for it and taken down
again. The guest writes to RBD all the while, and its disk is verified before a figure counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from tests.lab import bare
from tests.lab.clusters import cluster_on, disk_of, import_writer, start_writer
from vorch import lab as labs
from vorch.lab import CEPH_USER, Lab, verify_disk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="moves there and back, of each side")
    rounds = parser.parse_args().rounds
    lab = labs.up("benchmove", hosts=2, osds=3)
    try:
        ours, bares = measure(lab, rounds)
    finally:
        labs.down("benchmove")
    middle = statistics.median(ours), statistics.median(bares)
    print(
        json.dumps(
            {
                "what": "live migration of a guest that writes to RBD",
                "vorch_s": round(middle[0], 3),
                "bare_s": round(middle[1], 3),
                "ratio": round(middle[0] / middle[1], 3),
                "runs": len(ours),
            }
        )
    )


def measure(lab: Lab, rounds: int, flags: int = bare.MIGRATE) -> tuple[list[float], list[float]]:
    ours: list[float] = []
    bares: list[float] = []
    with cluster_on(lab, ("h1", "h2")) as cluster:
        start_writer(cluster, "writer", import_writer(cluster), "h1")
        disk = disk_of(cluster, "writer")

        def records() -> int:
            return verify_disk(disk, conf=lab.spec.ceph_conf, user=CEPH_USER).records

        bare.eventually(lambda: records() >= 10, "it writes")
        # Once each, uncounted: connections are opened, keys are left on the hosts.
        cluster.migrate("writer", "h2")
        cluster.migrate("writer", "h1")
        for _ in range(rounds):
            for source, target in (("h1", "h2"), ("h2", "h1")):
                with bare.connected(lab, source) as connection:
                    domain = connection.lookupByName("writer")
                    began = time.monotonic()
                    domain.migrateToURI3(lab.spec.peer_uri(target), {}, flags)
                    bares.append(time.monotonic() - began)
            for target in ("h2", "h1"):
                began = time.monotonic()
                cluster.migrate("writer", target)
                ours.append(time.monotonic() - began)
        before = records()
        bare.eventually(lambda: records() > before, "it still writes")
        cluster.stop("writer", force=True)
        seen = verify_disk(disk, conf=lab.spec.ceph_conf, user=CEPH_USER)
        assert seen.ok, seen.findings
        assert len(seen.epochs) == 1
    return ours, bares


if __name__ == "__main__":
    main()
