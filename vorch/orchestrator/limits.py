"""How long what may last before vorch acts, out of the settings."""

from __future__ import annotations

from vorch.availability import Limits
from vorch.config import Settings


def limits_of(settings: Settings) -> Limits:
    return Limits(
        gone_after_s=settings.ha_gone_after_s,
        storage_cut_after_s=settings.ha_storage_cut_after_s,
        hollow_after_s=settings.ha_hollow_after_s,
        silent_window_s=settings.ha_silent_window_s,
        shutdown_grace_s=settings.ha_shutdown_grace_s,
        retry_after_s=settings.ha_retry_after_s,
        fence_retry_after_s=settings.ha_fence_retry_after_s,
        vm_overhead_mib=settings.vm_overhead_mib,
        migration_pause_limit_ms=settings.migration_pause_limit_ms,
        migration_bandwidth_mib_s=settings.migration_bandwidth_mib_s,
    )
