"""Storage classes: pools by what they are good for."""

from __future__ import annotations

from collections.abc import Sequence

from vorch.decide import storage
from vorch.model import StorageClass
from vorch.orchestrator.core import Core, Done


class Classes(Core):
    def class_add(
        self,
        name: str,
        pools: Sequence[str],
        *,
        default: bool = False,
        description: str = "",
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """A name for one or several pools; new volumes go to the one with the most free room."""
        return self._do(
            lambda cluster: storage.class_add(
                cluster, name, pools, default=default, description=description
            ),
            dry_run=dry_run,
            wait_s=wait_s,
        )

    def class_list(self) -> tuple[StorageClass, ...]:
        classes = self.look().classes
        return tuple(classes[name] for name in sorted(classes))

    def class_remove(
        self, name: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        """Forget a class. What was made by it stays where it is."""
        return self._do(
            lambda cluster: storage.class_remove(cluster, name), dry_run=dry_run, wait_s=wait_s
        )
