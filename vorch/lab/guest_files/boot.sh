# Functions of the first minutes of a boot, read by both guests' start scripts.
# modules.sh is written when the image is built: deps_of NAME sets DEPS, module_for ALIAS sets MODULE.
. /lib/modules.sh

mount_kernel_filesystems() {
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs dev /dev 2>/dev/null
}

load() {
    deps_of "$1"
    for module in $DEPS "$1"; do
        [ -d "/sys/module/$module" ] || insmod "/lib/modules/$module.ko" 2>/dev/null
    done
}

# Loads a driver for each device on bus $1. insmod comes back only when the devices are probed, so nothing
# has to be waited for afterwards.
probe_bus() {
    for file in /sys/bus/"$1"/devices/*/modalias; do
        [ -r "$file" ] || continue
        read -r alias <"$file"
        module_for "$alias" && load "$MODULE"
    done
}

# The disk drivers come before the controllers: they then find their disks while the controller loads.
start_drivers() {
    load crc32c_generic
    load ext4
    load sd_mod
    load sr_mod
    probe_bus pci
    probe_bus virtio
    if [ -e /sys/hypervisor/type ]; then
        load xen_blkfront
        load xen_netfront
    fi
}

# Sets DEVICE to the ext4 partition labelled $1 (the label stands 1144 bytes into the volume).
find_ext4() {
    for DEVICE in /dev/[vsh]d[a-z][0-9] /dev/xvd[a-z][0-9]; do
        [ -b "$DEVICE" ] || continue
        [ "$(dd if="$DEVICE" bs=8 skip=143 count=2 2>/dev/null | tr -d '\0')" = "$1" ] && return 0
    done
    return 1
}
