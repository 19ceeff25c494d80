#!/usr/bin/env bash
# One part of `make test`: its tests, and a second try for the few on real parts that failed.
#
# usage: [VORCH_PART=xen|labs] [VORCH_UNTIL=SECONDS] packaging/test-part.sh WORKERS [WORDS FOR PYTEST ...]
#
# An emulated guest may die of the emulator, and three labs on two cores make each other late. So whatever fails of the
# tests that are marked `lab` or `real` is run once more, alone. What passes then is named in the last lines: it is a
# defect of the test or of vorch that wants to be found, though not one that holds everybody else up. What fails twice
# has failed, and so has any other test that fails once.

set -uo pipefail
cd "$(dirname "$0")/.." || exit

workers=$1
shift
# Of a run within a run, whose failures are none of the outer one's.
unset VORCH_FAILED_TESTS VORCH_CRASHES
# More than so many are no accident.
most=10
# The second try has an end, in seconds.
longest=900
shortest=120

kept=$(mktemp)
crashes=$(mktemp -d)
trap 'rm -rf "$kept" "$crashes"' EXIT
VORCH_FAILED_TESTS=$kept VORCH_CRASHES=$crashes .venv/bin/python -m pytest -n "$workers" --durations=30 --durations-min=20 "$@"
status=$?
for crash in "$crashes"/*; do
    if [ -s "$crash" ]; then
        echo "make test: a test process died:"
        grep -v /site-packages/ "$crash" | head -40
    fi
done
# 1 is the one status that means: tests were run, and some failed.
[ "$status" -eq 1 ] || exit "$status"

mapfile -t failed < <(sort -u "$kept")
if [ "${#failed[@]}" -eq 0 ] || [ "${#failed[@]}" -gt "$most" ]; then
    exit "$status"
fi
# Status 5: none was found, so all that failed are on real parts.
.venv/bin/python -m pytest -n 0 -q --collect-only -m 'not lab and not real' "${failed[@]}" >/dev/null 2>&1
[ $? -eq 5 ] || exit "$status"

left=$((${VORCH_UNTIL:-$(($(date +%s) + longest))} - $(date +%s)))
[ "$left" -ge "$longest" ] || longest=$left
[ "$longest" -ge "$shortest" ] || longest=$shortest
echo "make test: ${#failed[@]} on real parts failed beside others; once more, alone"
timeout --foreground --kill-after=60 "$longest" .venv/bin/python -m pytest -n 0 "${failed[@]}" || exit "$status"
echo "make test: unsteady, to be looked into (failed beside others, passed alone):"
printf 'make test:   %s\n' "${failed[@]}"
