#!/usr/bin/env bash
# What `make test` does once the machine is ready: all tests, in two parts, and a second try for the few on real parts
# that failed.
#
# usage: [VORCH_PARTS="xen labs"] packaging/test.sh WORKERS [WORDS FOR PYTEST ...]
#
# Hosts with Xen are whole machines, emulated. Beside other labs they are so late that Xen's own time limits (40 s for a
# disk) run out, so beside what needs them runs what needs no lab.
#
# An emulated guest may die of the emulator, and three labs on two cores make each other late. So whatever fails of the
# tests that are marked `lab` or `real` is run once more, alone, when all others are done. What passes then is named in
# the last lines: it is a defect of the test or of vorch that wants to be found, though not one that holds everybody else
# up. What fails twice has failed, and so has any other test that fails once.

set -uo pipefail
cd "$(dirname "$0")/.." || exit

workers=$1
shift
# Of a run within a run, whose failures are none of the outer one's.
unset VORCH_FAILED_TESTS VORCH_CRASHES
# More than so many are no accident.
most=10
# When all of it is to be over, in seconds of the clock; a second try has so many at the least.
over=$(($(date +%s) + 4500))
shortest=120

kept=$(mktemp)
crashes=$(mktemp -d)
# What one process has compiled, the many that come after it need not: each worker, and each command that a test runs.
compiled=$(mktemp -d)
trap 'rm -rf "$kept" "$crashes" "$compiled"' EXIT
unset PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX=$compiled
found=0
worst=0
for part in ${VORCH_PARTS:-xen labs}; do
    # In the first, one worker is Xen's.
    VORCH_PART=$part VORCH_FAILED_TESTS=$kept VORCH_CRASHES=$crashes \
        .venv/bin/python -m pytest -n "$workers" --durations=30 --durations-min=20 "$@"
    status=$?
    # 5: no test of that part was asked for.
    [ "$status" -eq 5 ] && continue
    found=1
    [ "$status" -gt "$worst" ] && worst=$status
done
[ "$found" -eq 1 ] || exit 5
for crash in "$crashes"/*; do
    if [ -s "$crash" ]; then
        echo "make test: a test process died:"
        grep -v /site-packages/ "$crash" | head -40
    fi
done
# 1 is the one status that means: tests were run, and some failed.
[ "$worst" -eq 1 ] || exit "$worst"

mapfile -t failed < <(sort -u "$kept")
if [ "${#failed[@]}" -eq 0 ] || [ "${#failed[@]}" -gt "$most" ]; then
    exit "$worst"
fi
# Status 5: none was found, so all that failed are on real parts.
.venv/bin/python -m pytest -n 0 -q --collect-only -m 'not lab and not real' "${failed[@]}" >/dev/null 2>&1
[ $? -eq 5 ] || exit "$worst"

left=$((over - $(date +%s)))
[ "$left" -ge "$shortest" ] || left=$shortest
echo "make test: ${#failed[@]} on real parts failed beside others; once more, alone, for $left s at most"
timeout --foreground --kill-after=60 "$left" .venv/bin/python -m pytest -n 0 "${failed[@]}" || exit "$worst"
echo "make test: unsteady, to be looked into (failed beside others, passed alone):"
printf 'make test:   %s\n' "${failed[@]}"
