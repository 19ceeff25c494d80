#!/usr/bin/env bash
# What `make test` does once the machine is ready: all tests, in two parts.
#
# usage: packaging/test.sh WORKERS [WORDS FOR PYTEST ...]
#
# Hosts with Xen are whole machines, emulated. Beside other labs they are so late that Xen's own time limits (40 s for a
# disk) run out, so beside what needs them runs what needs no lab.

set -uo pipefail
cd "$(dirname "$0")/.." || exit

workers=$1
shift
found=0
worst=0
# When all of it is to be over, in seconds of the clock: second tries have what is left of it.
over=$(($(date +%s) + 4500))
for part in xen labs; do
    case $part in
        # One worker is Xen's.
        xen) many=2 until=$((over - 1800)) ;;
        labs) many=$workers until=$over ;;
    esac
    VORCH_UNTIL=$until VORCH_PART=$part packaging/test-part.sh "$many" "$@"
    status=$?
    # 5: no test of that part was asked for.
    [ "$status" -eq 5 ] && continue
    found=1
    [ "$status" -gt "$worst" ] && worst=$status
done
[ "$found" -eq 1 ] || exit 5
exit "$worst"
