"""How the cluster is as a whole, and the storage that it stands on."""

from __future__ import annotations

from vorch.decide import health
from vorch.decide.health import Health, Seen
from vorch.errors import Denied, VorchError
from vorch.model import Room, StorageStatus
from vorch.orchestrator import kept
from vorch.orchestrator.pools import Pools
from vorch.orchestrator.tasks import Tasks


class Healths(Pools, Tasks):
    def health(self) -> Health:
        """Whether all is well, in one line; and each thing that is not, with what to do about it.

        Hosts are looked at as for `list`. Ceph is asked once, for a few seconds at most; where it
        is silent its pools are not asked at all.
        """
        cluster, now = self.look(None), self.world.clock.now()
        silent: dict[str, str] = {}
        storage: tuple[StorageStatus, ...] = ()
        try:
            storage = self.storage_status()
        except Denied:
            # Nothing is known of how it is, which is no news.
            pass
        except VorchError as exc:
            silent["storage"] = exc.message
        rooms: dict[str, Room] = {}

        def ask(name: str) -> None:
            try:
                rooms[name] = self.world.images(name).room()
            except VorchError as exc:
                silent[f"pool {name}"] = exc.message

        asked = sorted(name for name, pool in cluster.pools.items() if not (silent and pool.shared))
        self.world.each(ask, asked)
        return health.health(
            cluster,
            kept.status_of(self.world.state, cluster, now),
            Seen(at=now, rooms=rooms, storage=storage, silent=silent, tasks=self.task_list()),
        )

    def storage_status(self) -> tuple[StorageStatus, ...]:
        """How each Ceph that pools are in says that it is, and the tree of its OSDs."""
        if self.world.witness is None:
            return ()
        return self.world.witness.storage()
