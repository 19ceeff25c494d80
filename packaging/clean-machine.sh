#!/usr/bin/env bash
# Try a make target in a fresh Debian that has make and git and nothing else, in namespaces of its own.
#
# usage: packaging/clean-machine.sh [run|lab|test|check]      (as root)
#
# run    brings the service up, asks its health, ends it as Ctrl-C would, kills libvirtd, and does it all again.
# other  runs the target to its end.
#
# What is tried is a clean clone of the last commit; WORKTREE=1 takes the files as they are now. The Debian comes from
# debootstrap, once, and is kept as an archive under ~/.cache/vorch. Nothing of the outer system is to be seen inside:
# it has its own mounts, /run, /dev, processes, host name and network; the way out goes through slirp4netns. Settings
# that a download may need (apt's sources, pip's configuration, certificates, proxies) are carried over. At the end
# nothing is left running, mounted or lying about.

set -euo pipefail

target=${1:-run}
patience_s=${PATIENCE_S:-1800}

fail() {
    echo "make clean-machine: cannot $1: $2; $3" >&2
    exit 1
}
say() { echo "clean machine: $*"; }

case $target in
    run | lab | test | check) ;;
    *)
        echo "usage: packaging/clean-machine.sh [run|lab|test|check]" >&2
        exit 2
        ;;
esac
[ "$(id -u)" -eq 0 ] || fail "start" "namespaces and mounts need root" "run: sudo make clean-machine"
for program in debootstrap git nsenter slirp4netns tar unshare; do
    command -v "$program" >/dev/null ||
        fail "start" "$program is missing" "run: apt-get install debootstrap git slirp4netns tar util-linux"
done
[ -c /dev/net/tun ] || fail "start" "/dev/net/tun is missing, slirp4netns needs it" "run: modprobe tun"

repository=$(cd "$(dirname "$0")/.." && pwd -P)
work=$(mktemp -d "${TMPDIR:-/var/tmp}/vorch-clean-machine.XXXXXX")
root=$work/root
machine='' network=''

# All mounts live in the machine's own namespace, so they end with its processes.
finish() {
    trap - EXIT
    local pid
    for pid in $machine $network; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# --- a Debian -------------------------------------------------------------------------------------------------

suite=${SUITE:-bookworm}
# shellcheck disable=SC2016 # apt's own placeholder
mirror=${MIRROR:-$(apt-get indextargets --format '$(SITE)' 2>/dev/null | grep '/debian/*$' | head -n 1)}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/vorch
archive=$cache/clean-machine-$suite-$(dpkg --print-architecture).tar
if [ ! -s "$archive" ]; then
    say "building a minimal Debian $suite (once)"
    mkdir -p "$cache"
    debootstrap --variant=minbase --include=ca-certificates,git,make "$suite" "$root" ${mirror:+"$mirror"} \
        >"$work/debootstrap.log" 2>&1 || {
        tail -n 20 "$work/debootstrap.log" >&2
        fail "build a Debian" "debootstrap ended with an error, see above" "check the network and apt's sources"
    }
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    tar -C "$root" --numeric-owner -cf "$archive.new" .
    mv "$archive.new" "$archive"
else
    mkdir "$root"
    tar -C "$root" --numeric-owner -xf "$archive"
fi

# --- what downloads need --------------------------------------------------------------------------------------

# The sources only fit when the outer system is of the same suite.
if grep -qs "VERSION_CODENAME=$suite\$" /etc/os-release; then
    rm -rf "$root/etc/apt"
    cp -a /etc/apt "$root/etc/apt"
    cp -a /usr/share/keyrings/. "$root/usr/share/keyrings/"
fi
rm -rf "$root/etc/ssl" && cp -a /etc/ssl "$root/etc/ssl"
if [ -d /usr/local/share/ca-certificates ]; then
    cp -a /usr/local/share/ca-certificates "$root/usr/local/share/"
fi
cp -L /etc/hosts "$root/etc/hosts"
# A resolver on the outer loopback cannot be reached from inside; slirp4netns has one of its own.
if grep -Eq '^nameserver +(127\.|::1)' /etc/resolv.conf; then
    echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
else
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
fi
echo clean-machine >"$root/etc/hostname"
echo '127.0.1.1 clean-machine' >>"$root/etc/hosts"

# pip reads these files; folders that they or pip's variables name are shown inside, read-only, under the same name.
: >"$work/shown"
for file in /etc/pip.conf /etc/xdg/pip/pip.conf "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf" \
    "${PIP_CONFIG_FILE:-}"; do
    [ -f "$file" ] || continue
    inside=$file
    case $file in "$HOME"/*) inside=/root/${file#"$HOME"/} ;; esac
    mkdir -p "$root$(dirname "$inside")"
    cp -L "$file" "$root$inside"
    grep -Eo '(file://|[ =])/[^ ]+' "$file" >>"$work/shown" || true
done
env | grep -E '^PIP_(FIND_LINKS|INDEX_URL|EXTRA_INDEX_URL)=' | grep -Eo '(file://|[ =])/[^ ]+' >>"$work/shown" || true
folders=()
while read -r folder; do
    folder=${folder#file://}
    folder=/${folder#*/}
    # An index points to its files by relative paths, next to itself.
    [ "$(basename "$folder")" = simple ] && folder=$(dirname "$folder")
    [ -d "$folder" ] && [ "$folder" != / ] && folders+=("$folder")
done < <(sort -u "$work/shown")

# --- the project ----------------------------------------------------------------------------------------------

place=/srv/vorch
if [ "${WORKTREE:-}" = 1 ]; then
    mkdir -p "$root$place"
    (cd "$repository" && git ls-files -z --cached --others --exclude-standard |
        tar --null --ignore-failed-read -T - -cf - 2>/dev/null) | tar -C "$root$place" --no-same-owner -xf -
    git -C "$root$place" init -q
else
    git clone -q --no-hardlinks "file://$repository" "$root$place" ||
        fail "clone the project" "git clone failed" "commit something first, or set WORKTREE=1"
fi

# --- inside ---------------------------------------------------------------------------------------------------

# First process of the machine, still with the outer system in sight: builds the mounts, then turns its back on it.
cat >"$work/enter.sh" <<'ENTER'
set -euo pipefail
root=$1 patience_s=$2 target=$3
shift 3
hostname clean-machine
mount --bind "$root" "$root"
cd "$root"
for folder in "$@"; do
    mkdir -p ".$folder"
    mount --bind "$folder" ".$folder"
    mount -o remount,bind,ro ".$folder"
done
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/net
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
# Fresh nodes with the kernel's own modes: the outer ones must not be changed from in here.
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    IFS=: read -r name major minor <<<"$node"
    mknod -m 666 "dev/$name" c "$major" "$minor"
done
mknod -m 600 dev/net/tun c 10 200
[ -c /dev/kvm ] && mknod -m 600 dev/kvm c 10 232
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mkdir .outside
pivot_root . .outside
umount -l /.outside
rmdir /.outside
exec /bin/bash /try.sh "$patience_s" "$target"
ENTER

# The rest of that process's life, with nothing but the fresh Debian around it.
cat >"$root/try.sh" <<'TRY'
set -uo pipefail
patience_s=$1 target=$2
cd /srv/vorch || exit 1
for _ in {1..100}; do
    [ -e /sys/class/net/tap0 ] && break
    sleep 0.1
done
say() { echo "clean machine: $*"; }

if [ "$target" != run ]; then
    timeout "$patience_s" make "$target" </dev/null
    status=$?
    say "make $target ended with status $status after $SECONDS s"
    exit "$status"
fi

# The answer of the service to GET /health, or nothing.
health() {
    local address=$1
    {
        exec 3<>"/dev/tcp/${address%:*}/${address#*:}" || return
        printf 'GET /health HTTP/1.0\r\nHost: %s\r\n\r\n' "$address" >&3
        cat <&3
        exec 3>&-
    } 2>/dev/null
}

# attempt NAME: make run, wait for its health, end it by SIGINT.
attempt() {
    local name=$1 log=/root/$1.log make address='' answer='' started=$SECONDS
    # Job control, or the shell would make everything below deaf to SIGINT.
    set -m
    : >"$log"
    make run </dev/null >"$log" 2>&1 &
    make=$!
    set +m
    tail -n +1 -f --pid="$make" "$log" 2>/dev/null &
    while kill -0 "$make" 2>/dev/null && [ $((SECONDS - started)) -lt "$patience_s" ]; do
        address=$(grep -Eo 'http://127\.0\.0\.1:[0-9]+' "$log" | head -n 1)
        if [ -n "$address" ]; then
            answer=$(health "${address#http://}")
            case $answer in "HTTP/1."?" 200"*) break ;; esac
        fi
        sleep 0.2
    done
    case $answer in
        "HTTP/1."?" 200"*) say "$name: $address/health answers after $((SECONDS - started)) s: ${answer##*$'\n'}" ;;
        *)
            say "$name: no answer from /health after $((SECONDS - started)) s"
            return 1
            ;;
    esac
    # The service is the one child of make by then.
    kill -INT $(cat "/proc/$make/task/$make/children")
    wait "$make"
    local status=$?
    say "$name: ended by SIGINT, make's status is $status"
    return "$status"
}

attempt first-run || exit
# A daemon that crashed leaves its pid file and its socket behind; that must not fool the next run.
kill -KILL "$(cat /run/libvirtd.pid)" && say "libvirtd killed"
attempt second-run
TRY

# --- go -------------------------------------------------------------------------------------------------------

say "make $target in a fresh Debian $suite"
# Of the outer environment only what a download may need.
environment=(HOME=/root USER=root LOGNAME=root SHELL=/bin/bash TERM=dumb
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
while read -r name; do
    environment+=("$name=${!name}")
done < <(compgen -e | grep -E '^(PIP_|SSL_CERT_|CURL_CA_|REQUESTS_CA_|GIT_SSL_)|_(proxy|PROXY)$' || true)
env -i "${environment[@]}" unshare --mount --pid --ipc --uts --net --fork --kill-child --propagation private \
    bash "$work/enter.sh" "$root" "$patience_s" "$target" ${folders[@]+"${folders[@]}"} </dev/null &
machine=$!
first=''
for _ in {1..100}; do
    read -r first _ <"/proc/$machine/task/$machine/children" 2>/dev/null || true
    [ -n "$first" ] && break
    sleep 0.05
done
[ -n "$first" ] || fail "start the machine" "unshare has no child" "read the message above"
slirp4netns --configure --mtu=65520 --disable-host-loopback "$first" tap0 >"$work/network.log" 2>&1 &
network=$!

status=0
wait "$machine" || status=$?
machine=''
finish
if [ "$status" -eq 0 ]; then
    say "make $target: all well"
fi
exit "$status"
