#!/bin/sh
# vorch's libvirt hook for networks: overlays (VXLAN) and ports forwarded to guests behind NAT.
#
# Stands in /etc/libvirt/hooks/network.d/vorch (`vorch node hook --install`). libvirt runs it as
#     vorch NETWORK OPERATION SUBOPERATION EXTRA    with the network's XML on standard input
# and it does what that XML says (docs/networks.md). It needs iproute2, awk and flock, for forwards nftables.
#
# What it makes is found again by the network's bridge alone: link vx-… (for bridge vo-…), table vorch_…
# and folder /run/vorch/network/BRIDGE. Every run may be repeated, and brings all of it to what is wanted.
# Networks that are not vorch's are left before anything is read. Words out of the XML are held against
# patterns before they are used, and none is ever run.
set -u
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin:/usr/bin:/bin"
version=1
network=${1-} operation=${2-}

case $network in vorch-*@*) ;; *) exit 0 ;; esac
case $operation in start | started | stopped | updated | port-created | port-deleted) ;; *) exit 0 ;; esac

# Line by line: libvirt writes an element a line, in its own order, with its own quotes.
read_xml() {
    awk -v q="'" '
        function value(key) {
            if (!match(line, " " key "=" q "[^" q "]*" q)) return ""
            return substr(line, RSTART + length(key) + 3, RLENGTH - length(key) - 4)
        }
        function name_ok(s) { return length(s) <= 253 && s ~ /^[A-Za-z0-9][A-Za-z0-9.-]*$/ }
        function link_ok(s) { return length(s) <= 15 && s ~ /^[A-Za-z0-9][A-Za-z0-9._-]*$/ }
        function number_ok(s, low, high) {
            return s ~ /^[0-9]+$/ && length(s) <= 8 && s + 0 >= low && s + 0 <= high
        }
        function mac_ok(s) { return length(s) == 17 && s ~ /^([0-9a-f][0-9a-f]:)+[0-9a-f][0-9a-f]$/ }
        function address_ok(s) { return length(s) <= 15 && s ~ /^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$/ }
        { line = $0; gsub(/"/, q, line) }
        /^ *<networkport>/ { port = 1 }
        /^ *<mac / && port && mac_ok(value("address")) { print "guest", value("address") }
        port { next }
        /^ *<bridge / && link_ok(value("name")) { print "bridge", value("name") }
        /^ *<vorch:network / {
            if (number_ok(value("vni"), 1, 16777214) && number_ok(value("port"), 1, 65535))
                print "vni", value("vni"), value("port")
            if (number_ok(value("mtu"), 68, 65535)) print "mtu", value("mtu")
            if (link_ok(value("trial"))) print "trial", value("trial")
        }
        /^ *<portgroup / {
            n = split(value("name"), word, "/")
            if (word[1] != "vorch") next
            if (n == 3 && word[2] == "local" && name_ok(word[3])) print "local", word[3]
            if (n == 3 && word[2] == "peer" && name_ok(word[3])) print "peer", word[3]
            if (n == 7 && word[2] == "forward" && word[3] ~ /^(tcp|udp)$/ && number_ok(word[4], 1, 65535) \
                && mac_ok(word[5]) && address_ok(word[6]) && number_ok(word[7], 1, 65535))
                print "forward", word[3], word[4], word[5], word[6], word[7]
        }'
}

bridge='' mtu=1450 vni='' port='' local='' peers='' forwards='' guest='' trial=''
while read -r kind one two three four five; do
    case $kind in
        bridge) bridge=$one ;;
        mtu) mtu=$one ;;
        vni) vni=$one port=$two ;;
        trial) trial=$one ;;
        local) local=$one ;;
        peer) peers="$peers $one" ;;
        guest) guest=$one ;;
        forward) forwards="$forwards $one,$two,$three,$four,$five" ;;
    esac
done <<EOF
$(read_xml)
EOF

# What is not as it should be. The first words stand in the journal of the host, too.
problems=''
problem() {
    problems="${problems:+$problems; }$1"
    # Without a daemon that takes it, it is not worth waiting for.
    [ -n "$trial" ] || logger -t vorch-hook "network $network: $1" 2>/dev/null || :
}

# A word by which hosts know each other, as an IPv4 address; nothing when there is none.
address_of() {
    case $1 in
        *[!0-9.]*) getent ahostsv4 "$1" 2>/dev/null | awk 'NR == 1 { print $1 }' ;;
        *) echo "$1" ;;
    esac
}

have() { command -v "$1" >/dev/null 2>&1; }

# --- on trial -----------------------------------------------------------------------------------
# The network is no real one. What this host cannot do is said in the error with which it does not start.

try_overlay() {
    have bridge || { problem "the program bridge is missing (package iproute2)" && return; }
    here=$(address_of "$local")
    if [ -z "$here" ]; then
        problem "its own address ${local:-(none)} is not known to it as IPv4"
        return
    fi
    ip -4 -o address | grep -qF " $here/" || problem "$here is not an address of it"
    words=$(ip link add "vt$$" type vxlan id 16777215 local "$here" dstport "$port" 2>&1) ||
        problem "its kernel makes no VXLAN (${words:-no reason given})"
    ip link del "vt$$" 2>/dev/null
    for peer in $peers; do
        there=$(address_of "$peer")
        [ -n "$there" ] || { problem "it does not know the address of $peer" && continue; }
        way=$(ip -4 route get "$there" 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p;q')
        [ -n "$way" ] || { problem "it has no route to $there" && continue; }
        room=$(cat "/sys/class/net/$way/mtu" 2>/dev/null || echo 0)
        [ "$room" -ge $((mtu + 50)) ] ||
            problem "its way to $there carries $room bytes, and $((mtu + 50)) are needed"
    done
}

try_forwards() {
    have nft || { problem "the program nft is missing (package nftables)" && return; }
    nft list tables >/dev/null 2>&1 || problem "its kernel has no nftables"
    for forward in $forwards; do
        protocol=${forward%%,*} rest=${forward#*,}
        flag=-t && [ "$protocol" = udp ] && flag=-u
        [ -z "$(ss -H -l -n $flag "sport = :${rest%%,*}" 2>/dev/null)" ] ||
            problem "port ${rest%%,*}/$protocol is in use on it by a program of its own"
    done
}

if [ -n "$trial" ]; then
    [ "$operation" = start ] || exit 0
    have ip || problem "the program ip is missing (package iproute2)"
    have flock || problem "the program flock is missing (package util-linux)"
    [ -z "$vni" ] || try_overlay
    [ -z "$forwards" ] || try_forwards
    read -r left 2>/dev/null <"/run/vorch/network/$trial/problem" && problem "$left"
    echo "vorch-hook $version: ${problems:-well}" >&2
    exit 1
fi

[ -n "$bridge" ] || exit 0
folder=/run/vorch/network/$bridge
# vorch's own bridges are vo-…; what hangs on one is called after it.
link=vx-${bridge#vo-}
table=vorch_$(printf %s "$bridge" | tr -c 'A-Za-z0-9' _)

# --- forwards -----------------------------------------------------------------------------------

# libvirt lets nobody in to a NAT network. What was forwarded comes in before it is asked.
let_in() {
    yes=$1
    if have iptables; then
        set -- FORWARD -o "$bridge" -m conntrack --ctstate DNAT -m comment --comment vorch -j ACCEPT
        if [ "$yes" = yes ]; then
            iptables -w -C "$@" 2>/dev/null || iptables -w -I "$@" || return 1
        else
            while iptables -w -D "$@" 2>/dev/null; do :; done
        fi
    fi
    # Since 10.4 libvirt may have a table of its own.
    have nft && nft list chain ip libvirt_network forward >/dev/null 2>&1 || return 0
    nft -a list chain ip libvirt_network forward |
        sed -n "s/.*oifname \"$bridge\" .*comment \"vorch\" # handle \([0-9]*\)\$/\1/p" |
        while read -r handle; do nft delete rule ip libvirt_network forward handle "$handle"; done
    [ "$yes" = no ] ||
        nft "insert rule ip libvirt_network forward oifname \"$bridge\" ct status dnat accept comment \"vorch\""
}

# The ports of guests that are here, and no others: all in one, so that there is never half of it.
table_text() {
    echo "table ip $table"
    echo "delete table ip $table"
    [ -n "$1" ] || return
    echo "table ip $table {"
    for hook in prerouting output; do
        echo "chain $hook { type nat hook $hook priority -100; policy accept;"
        for forward in $1; do
            IFS=, read -r protocol outside mac address inside <<EOF
$forward
EOF
            echo "fib daddr type local $protocol dport $outside dnat to $address:$inside"
        done
        echo "}"
    done
    # A guest that asks its own network's host for a port gets there, too, and is not told by that host
    # that it could have gone straight there.
    echo "chain shortcuts { type filter hook output priority 0; policy accept;"
    echo "oifname \"$bridge\" icmp type redirect drop"
    echo "}"
    echo "chain postrouting { type nat hook postrouting priority 99; policy accept;"
    echo "iifname \"$bridge\" oifname \"$bridge\" ct status dnat masquerade"
    echo "}"
    echo "}"
}

forward_ports() {
    here=''
    for forward in $forwards; do
        mac=${forward#*,*,} mac=${mac%%,*}
        [ ! -e "$folder/guests/${mac#??:}" ] || here="$here $forward"
    done
    # Most networks have none, and need no nft.
    [ -n "$here" ] || [ -e "$folder/forwards" ] || return 0
    if ! have nft; then
        problem "ports are not forwarded: the program nft is missing (package nftables)"
        return
    fi
    words=$(table_text "$here" | nft -f - 2>&1) || problem "ports are not forwarded: ${words%%
*}"
    if [ -n "$here" ]; then
        : >"$folder/forwards"
        let_in yes || problem "ports are not forwarded: the firewall takes no rule"
    else
        let_in no
        rm -f "$folder/forwards"
    fi
}

# --- overlay ------------------------------------------------------------------------------------

set_up_overlay() {
    here=$(address_of "$local")
    if [ -z "$here" ]; then
        problem "no overlay: its own address ${local:-(none)} is not known to it as IPv4"
        return
    fi
    # One with other numbers is left of another time.
    ip -d link show "$link" 2>/dev/null | grep -q " id $vni local $here .*dstport $port " ||
        ip link del "$link" 2>/dev/null
    if ! [ -e "/sys/class/net/$link" ]; then
        words=$(ip link add "$link" type vxlan id "$vni" local "$here" dstport "$port" 2>&1) ||
            { problem "no overlay: $words" && return; }
    fi
    words=$(ip link set "$link" mtu "$mtu" master "$bridge" up 2>&1) || problem "no overlay: $words"
    wanted=' '
    for peer in $peers; do
        there=$(address_of "$peer")
        if [ -n "$there" ]; then wanted="$wanted$there "; else problem "it does not know the address of $peer"; fi
    done
    present=$(bridge fdb show dev "$link" | awk '$1 == "00:00:00:00:00:00" {
        for (i = 2; i < NF; i++) if ($i == "dst") print $(i + 1) }')
    for there in $present; do
        case $wanted in
            *" $there "*) ;;
            # With what was learned of guests there.
            *) bridge fdb show dev "$link" | awk -v there="$there" '{
                    for (i = 2; i < NF; i++) if ($i == "dst" && $(i + 1) == there) print $1 }' |
                while read -r mac; do bridge fdb del "$mac" dev "$link" dst "$there"; done ;;
        esac
    done
    for there in $wanted; do
        echo "$present" | grep -qxF "$there" ||
            words=$(bridge fdb append 00:00:00:00:00:00 dev "$link" dst "$there" 2>&1) ||
            problem "no way to $there: $words"
    done
}

# --- what libvirt tells of ----------------------------------------------------------------------

if ! [ -d "$folder" ]; then
    [ "$operation" != stopped ] || [ -n "$vni" ] || exit 0
    mkdir -p "$folder/guests" || exit 0
    # Guests that were here before the hook was: libvirt gives their links their address, but for the first
    # byte, which is why guests are known by the other five.
    for tap in /sys/class/net/"$bridge"/brif/*; do
        [ -e "$tap" ] || continue
        read -r mac <"/sys/class/net/${tap##*/}/address"
        case $mac in fe:*) : >"$folder/guests/${mac#fe:}" ;; esac
    done
fi
exec 9>>"$folder/lock"
flock -w 20 9

case $operation in
    start)
        # What a crash may have left of it.
        rm -f "$folder"/guests/* "$folder/problem"
        ;;
    stopped)
        ip link del "$link" 2>/dev/null
        rm -f "$folder"/guests/*
        forwards=''
        forward_ports
        rm -rf "$folder"
        ;;
    started | updated)
        [ -z "$vni" ] || set_up_overlay
        forward_ports
        ;;
    port-created | port-deleted)
        [ -n "$guest" ] || exit 0
        guest=${guest#??:}
        if [ "$operation" = port-created ]; then : >"$folder/guests/$guest"; else rm -f "$folder/guests/$guest"; fi
        forward_ports
        ;;
esac
[ ! -d "$folder" ] || printf '%s' "${problems:+$problems
}" >"$folder/problem"
# A network that begins without what makes it one must not begin. A guest does not die of a port.
case $operation in
    started) [ -z "$problems" ] || { echo "vorch-hook $version: $problems" >&2 && exit 1; } ;;
esac
exit 0
