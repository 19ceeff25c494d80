#!/bin/sh
# Makes the namespaces it runs in a host of the lab: its own /etc, /run, /tmp and libvirt folders; then becomes init.
#
# usage: host_start.sh vorch-lab LAB HOST FOLDER PYTHON
#
# All mounts are made in this process's own mount namespace and end with it.
set -eu
lab=$2 host=$3 folder=$4 python=$5
here=$(cd "$(dirname "$0")" && pwd)

mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/real-etc

# /etc is the machine's own, file by file, except for what makes this host another one.
mount --bind /etc /run/real-etc
mount -t tmpfs -o mode=755 tmpfs /etc
for entry in /run/real-etc/* /run/real-etc/.[!.]*; do
    name=${entry##*/}
    case $name in
        # A host of the lab must not reach for a real cluster's keys.
        ceph | libvirt | pki | hosts | hostname | resolv.conf | nsswitch.conf | machine-id) ;;
        *) ln -s "$entry" "/etc/$name" ;;
    esac
done
cp -r "$folder"/etc/. /etc/
hostname "$host"

# What a host keeps over a power cut lies in its folder. All logs do: more than libvirt writes some.
mkdir -p /etc/libvirt "$folder/disk/var/log/libvirt"
for place in /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log /var/lib/swtpm-localca; do
    [ -d "$place" ] || continue
    mkdir -p "$folder/disk$place"
    # The TPM emulator's user must be able to write there.
    chown --reference="$place" "$folder/disk$place"
    mount --bind "$folder/disk$place" "$place"
done
# vorch itself may lie below the /tmp that is hidden now.
cp "$here/init.py" /run/init.py
mount -t tmpfs -o mode=1777 tmpfs /tmp

ip link set lo up
cd /
exec "$python" -I -S /run/init.py vorch-lab "$lab" "$host"
