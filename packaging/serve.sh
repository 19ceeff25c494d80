#!/usr/bin/env bash
# What `make run` does once the machine is ready: make the embedded cluster if there is none, then serve it until Ctrl-C.

set -uo pipefail
cd "$(dirname "$0")/.." || exit

.venv/bin/vorch init
status=$?
if [ "$status" -ne 0 ]; then
    echo "make run: cannot make the embedded cluster: vorch init ended with status $status, its message is above;" \
        "mend that, then run make run again" >&2
    exit 1
fi

if [ ! -t 0 ]; then
    exec .venv/bin/vorch serve
fi

# In a terminal the service gets a process group of its own: Ctrl-C then ends the service and not make, and make ends
# without an error as well. If make is killed, the service must not stay behind, so it asks for a signal in that case.
set -m
setpriv --pdeathsig TERM .venv/bin/vorch serve
status=$?
# Ctrl-C is the way to end it, whatever the service makes of it.
[ "$status" -eq 130 ] && exit 0
exit "$status"
