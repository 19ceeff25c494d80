#!/usr/bin/env bash
# Make this machine ready for `make run`, `make lab`, `make test` or `make check`: system packages, .venv, libvirt's daemon.
#
# usage: packaging/prepare.sh run|lab|test|check [TARGET]
#
# Safe to run again at any time, and quick when nothing is missing. It installs packages and starts a daemon; it
# writes to no configuration file of the machine.

set -euo pipefail

goal=${1:-}
# The target to name in messages.
target=${2:-$goal}
case $goal in
    run | lab | test | check) ;;
    *)
        echo "usage: packaging/prepare.sh run|lab|test|check" >&2
        exit 2
        ;;
esac

# The daemons live in sbin, which is not on everyone's path. Messages are read here, so they must be English.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH LC_ALL=C.UTF-8
cd "$(dirname "$0")/.."

say() { echo "make $target: $*"; }

# fail WHAT WHY WHAT-TO-DO: end with the one kind of message this project has.
fail() {
    echo "make $target: cannot $1: $2; $3" >&2
    exit 1
}

# ---------------------------------------------------------------------------------------------------------------
# What is needed, by distribution. Recommended packages are left out, so everything that matters has a name here.

# To build and check the Python packages: libvirt's binding is compiled against the libvirt of the machine.
debian_check=(gcc libc6-dev libvirt-dev pkg-config python3 python3-dev python3-venv shellcheck)
# To run virtual machines.
debian_run=(
    gcc libc6-dev libvirt-dev pkg-config python3 python3-dev python3-venv
    dnsmasq-base iproute2 iptables libvirt-clients libvirt-daemon-config-network libvirt-daemon-driver-qemu
    libvirt-daemon-system nftables ovmf qemu-system-x86 qemu-utils swtpm swtpm-tools
)
# A real Ceph, QEMU's and Python's ways to it, and what one tries out on a host of a lab.
debian_lab=(
    ceph-common ceph-mgr ceph-mon ceph-osd ethtool ipmitool iputils-ping openssh-client python3-rados python3-rbd
    qemu-block-extra
)
# What the tests build their guest systems with; tests/house compares this with vorch.lab's own table.
debian_guests=(debootstrap e2fsprogs lz4 mtools qemu-utils syslinux)
# The browser that looks at the page, and letters for it.
debian_browser=(chromium fonts-dejavu-core)
# Other programs that tests compare results with, or put into a guest.
debian_tests=(ansible-core apache2-bin binutils busybox-static cpio genisoimage xorriso)
# These start a server of their own when they are installed, and the second takes 330 MB: in CI they are needed, as no
# test may be skipped there; elsewhere a test that lacks one says so.
debian_ci=(nginx prometheus)

# The names for Fedora and Enterprise Linux were never tried. On EL the repositories CRB (libvirt-devel) and EPEL
# (debootstrap) have to be enabled first.
fedora_check=(ShellCheck gcc libvirt-devel pkgconf-pkg-config python3 python3-devel)
fedora_run=(
    gcc libvirt-devel pkgconf-pkg-config python3 python3-devel
    dnsmasq edk2-ovmf iproute iptables-nft libvirt-client libvirt-daemon-config-network libvirt-daemon-driver-network
    libvirt-daemon-kvm nftables qemu-img qemu-kvm swtpm swtpm-tools
)
fedora_lab=(ceph-common ceph-mgr ceph-mon ceph-osd ethtool ipmitool iputils openssh-clients python3-rados python3-rbd qemu-kvm-block-rbd)
fedora_guests=(debootstrap dpkg e2fsprogs lz4 mtools qemu-img syslinux)
fedora_browser=(chromium dejavu-sans-fonts)
fedora_tests=(ansible-core binutils busybox cpio genisoimage httpd xorriso)
fedora_ci=(golang-github-prometheus nginx)

# ---------------------------------------------------------------------------------------------------------------
# Root's rights: our own, or sudo's.

# sudo may ask for a password only where somebody can type one.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# need_root WHAT COMMAND: stop with the command for an administrator when there is no way to become root.
need_root() {
    [ "$(id -u)" -eq 0 ] && return
    if command -v sudo >/dev/null; then
        if sudo -n true 2>/dev/null || [ -t 0 ]; then
            return
        fi
    fi
    fail "$1" "that needs root, and sudo cannot be used here" "let an administrator run: $2"
}

# run_logged WHAT WHAT-TO-DO COMMAND...: keep a long output off the screen, but show its end when the command fails.
run_logged() {
    local what=$1 remedy=$2 log
    shift 2
    log=$(mktemp "${TMPDIR:-/tmp}/vorch-prepare.XXXXXX")
    if "$@" </dev/null >"$log" 2>&1; then
        rm -f "$log"
        return
    fi
    tail -n 25 "$log" >&2
    fail "$what" "the command ended with an error, its last lines are above, all of them in $log" "$remedy"
}

# ---------------------------------------------------------------------------------------------------------------
# System packages

missing_debian() {
    local wanted have
    wanted=$(printf '%s\n' "$@" | sort -u)
    # dpkg-query complains about names it never heard of; those are missing as well.
    # shellcheck disable=SC2016 # dpkg's own placeholders
    have=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^.i  *//p' | sort -u) || true
    comm -23 <(echo "$wanted") <(echo "$have")
}

missing_fedora() {
    local package
    for package in "$@"; do
        rpm -q --quiet --whatprovides "$package" || echo "$package"
    done
}

install_packages() {
    local -a wanted missing command
    if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
        case $goal in
            check) wanted=("${debian_check[@]}") ;;
            run) wanted=("${debian_run[@]}") ;;
            lab) wanted=("${debian_run[@]}" "${debian_lab[@]}" "${debian_guests[@]}") ;;
            test) wanted=(
                "${debian_run[@]}" "${debian_lab[@]}" "${debian_guests[@]}" "${debian_tests[@]}"
                "${debian_browser[@]}"
            ) ;;
        esac
        [ "$goal" != test ] || [ -z "${CI:-}" ] || wanted+=("${debian_ci[@]}")
        mapfile -t missing < <(missing_debian "${wanted[@]}")
        # A configuration file that somebody changed stays as it is.
        command=(env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y --no-install-recommends
            -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold)
    elif command -v dnf >/dev/null && command -v rpm >/dev/null; then
        case $goal in
            check) wanted=("${fedora_check[@]}") ;;
            run) wanted=("${fedora_run[@]}") ;;
            lab) wanted=("${fedora_run[@]}" "${fedora_lab[@]}" "${fedora_guests[@]}") ;;
            test) wanted=(
                "${fedora_run[@]}" "${fedora_lab[@]}" "${fedora_guests[@]}" "${fedora_tests[@]}"
                "${fedora_browser[@]}"
            ) ;;
        esac
        [ "$goal" != test ] || [ -z "${CI:-}" ] || wanted+=("${fedora_ci[@]}")
        mapfile -t missing < <(missing_fedora "${wanted[@]}")
        command=(dnf install -y --setopt=install_weak_deps=False)
    else
        # Any other system: go on when the programs are there, however they came.
        local program
        for program in gcc pkg-config python3; do
            command -v "$program" >/dev/null ||
                fail "install packages" "this system has neither apt nor dnf, and $program is missing" \
                    "install libvirt with its headers, QEMU, gcc, pkg-config and Python 3.11 or newer by hand"
        done
        return
    fi
    [ "${#missing[@]}" -eq 0 ] && return

    # apt and dnf both have to be told as one line that can be copied.
    local line="${command[*]:0:1}"
    case ${command[0]} in
        env) line="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" ;;
        dnf) line="${command[*]} ${missing[*]}" ;;
    esac
    need_root "install packages" "$line"
    say "these packages are missing and will be installed now (a few minutes): ${missing[*]}"
    local remedy="mend the package manager's complaint, then run make $target again"
    if [ "${command[0]}" = env ]; then
        run_logged "refresh the list of packages" "$remedy" as_root apt-get update
    fi
    run_logged "install packages" "$remedy" as_root "${command[@]}" "${missing[@]}"
}

# ---------------------------------------------------------------------------------------------------------------
# .venv

# The distribution's Python comes first: Ceph's bindings exist for that one only.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 /usr/bin/python3.{11,12,13,14}; do
        if [ -x "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$candidate"
            return
        fi
    done
    fail "make .venv" "vorch needs Python 3.11 or newer in /usr/bin" \
        "use Debian 12, Ubuntu 24.04, Fedora 38 or newer, or install the package python3.12 of your distribution"
}

make_venv() {
    local python extras key place stamp=.venv/.prepared
    # With the extras for development everything that `make run` wants is there as well.
    case $goal in
        run) extras="run" ;;
        lab) extras="lab" ;;
        *) extras="dev" ;;
    esac
    python=$(find_python)
    key=$(cat setup.cfg pyproject.toml packaging/prepare.sh | sha256sum | cut -d ' ' -f 1)
    # A moved folder or another Python breaks every link inside .venv.
    place="$("$python" -V) in $PWD"

    local had_extras='' had_key='' had_place=''
    if [ -r "$stamp" ]; then
        { read -r had_extras && read -r had_key && read -r had_place; } <"$stamp" || true
    fi
    if [ "$had_key" = "$key" ] && [ "$had_place" = "$place" ] && [ -x .venv/bin/vorch ]; then
        case "$had_extras $extras" in dev\ * | "$extras $extras" | "lab run") return ;; esac
    fi

    if [ -e .venv ] && [ ! -w .venv ]; then
        fail "write to .venv" "it belongs to $(stat -c %U .venv)" "remove it with: sudo rm -r $PWD/.venv"
    fi
    if [ "$had_place" != "$place" ]; then
        say "making .venv with $("$python" -V)"
        run_logged "make .venv" "mend what it says, then run make $target again" \
            "$python" -m venv --clear --system-site-packages .venv
    fi
    rm -f "$stamp"
    # What was there once stays: `make run` after `make test` must not ask for the tests' packages again.
    case $had_extras in
        dev) extras=dev ;;
        lab) [ "$extras" = run ] && extras=lab ;;
    esac
    local what=.
    [ "$extras" = run ] || what=".[$extras]"
    say "installing the Python packages into .venv (a minute or two)"
    run_logged "install the Python packages" "check the network and pip's settings, then run make $target again" \
        .venv/bin/python -m pip install --disable-pip-version-check --no-input --editable "$what"

    # For mypy, see setup.cfg.
    mkdir -p .venv/types
    ln -sfn ../../vorch .venv/types/vorch
    ln -sfn ../../api .venv/types/vorch_api
    ln -sfn ../../cli .venv/types/vorch_cli
    ln -sfn ../../benchmarks/install_time .venv/types/vorch_install_time
    ln -sfn ../../tests .venv/types/tests

    printf '%s\n' "$extras" "$key" "$place" >"$stamp"
}

# ---------------------------------------------------------------------------------------------------------------
# libvirt

# Without udev /dev/kvm keeps the kernel's mode, root alone. libvirt then sees that KVM is there, finds that QEMU's user
# cannot open it, and throws its cache of QEMU's abilities away at each start: most of a minute instead of half a second.
open_kvm() {
    [ -c /dev/kvm ] && [ ! -S /run/udev/control ] || return 0
    getent group kvm >/dev/null || return 0
    [ "$(stat -c '%a %u %g' /dev/kvm)" = "600 0 0" ] || return 0
    local line="chgrp kvm /dev/kvm && chmod 0660 /dev/kvm"
    need_root "open /dev/kvm for the group kvm" "$line"
    say "/dev/kvm is closed to all but root and no udev is here to change that: giving it to the group kvm, mode 0660"
    as_root sh -c "$line" ||
        say "that did not work (a read-only /dev?); virtual machines will run, but libvirt starts slowly"
}

# With a socket's path behind it: does anybody listen there? Sockets and pid files outlive a daemon that crashed.
knock=(/usr/bin/python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])')

# A real connection, read-only: nothing less proves that libvirt works. Where polkit does not run, libvirt lets nobody but
# root in; it then has to be enough for others that the daemon listens, and qemu:///session is theirs to use.
libvirt_answers() {
    timeout 20 virsh -r -c qemu:///system uri >/dev/null 2>&1 && return
    [ "$(id -u)" -ne 0 ] || return
    "${knock[@]}" /run/libvirt/libvirt-sock-ro 2>/dev/null || "${knock[@]}" /run/libvirt/virtqemud-sock-ro 2>/dev/null
}

start_by_systemd() {
    local -a units=()
    local name
    # Fedora runs one daemon for each part of libvirt; Debian and Ubuntu one for all.
    if systemctl is-enabled --quiet virtqemud.socket 2>/dev/null || ! systemctl cat libvirtd.socket >/dev/null 2>&1; then
        for name in virtlogd virtqemud virtnetworkd virtnodedevd virtnwfilterd virtsecretd virtstoraged; do
            systemctl cat "$name.socket" >/dev/null 2>&1 && units+=("$name.socket")
        done
    else
        units=(virtlogd.socket libvirtd.socket)
    fi
    need_root "start libvirt" "systemctl start ${units[*]}"
    say "starting libvirt: ${units[*]}"
    as_root systemctl start "${units[@]}" ||
        fail "start libvirt" "systemctl start ${units[*]} failed" "read: journalctl -u ${units[-1]%.socket} -n 50"
}

# Root's question: virtlogd's socket is closed to all others.
daemon_listens() {
    local name=$1
    # The one daemon for everything has the plain name.
    [ "$name" = libvirtd ] && name=libvirt
    as_root "${knock[@]}" "/run/libvirt/$name-sock" 2>/dev/null
}

start_by_hand() {
    local -a daemons=()
    local name
    if command -v libvirtd >/dev/null; then
        daemons=(virtlogd libvirtd)
    else
        for name in virtlogd virtqemud virtnetworkd virtnodedevd virtnwfilterd virtsecretd virtstoraged; do
            command -v "$name" >/dev/null && daemons+=("$name")
        done
    fi
    [ "${#daemons[@]}" -gt 1 ] ||
        fail "start libvirt" "neither libvirtd nor virtqemud is installed" "install libvirt's daemon"
    local line
    line=$(printf '%s -d; ' "${daemons[@]}")
    need_root "start libvirt" "${line%; }"
    for name in "${daemons[@]}"; do
        daemon_listens "$name" && continue
        say "starting $name"
        # Descriptor 9 is the lock taken below; a daemon must not keep it.
        as_root "$name" -d </dev/null >/dev/null 2>&1 9<&- ||
            fail "start libvirt" "$name -d ended with an error" "run it by hand without -d and read what it says"
    done
}

start_libvirt() {
    libvirt_answers && return
    command -v virsh >/dev/null ||
        fail "reach libvirt" "virsh is not installed" "install libvirt's client programs"
    if [ -d /run/systemd/system ]; then
        start_by_systemd
    else
        start_by_hand
    fi
    # The first start looks at every QEMU on the machine, which takes its time on a slow one.
    local tries=0
    until libvirt_answers; do
        tries=$((tries + 1))
        [ "$tries" -lt 240 ] ||
            fail "reach libvirt" "its daemon runs but qemu:///system has not answered for two minutes" \
                "run: virsh -c qemu:///system uri"
        sleep 0.5
    done
}

# ---------------------------------------------------------------------------------------------------------------

install_packages
# Two calls at the same time would install into one .venv and start two daemons: the second waits for the first.
exec 9<packaging/prepare.sh
flock 9
make_venv
[ "$goal" = check ] || open_kvm
# The lab's hosts have daemons of their own.
case $goal in run | test) start_libvirt ;; esac
