"""The first process of a namespace: starts one program if told to, then reaps what others leave.

usage: python3 -I -S init.py vorch-lab LAB ROLE [-- PROGRAM ARGUMENT...]

The words after the file's name are how a lab's processes are found again, whatever happened to
the files that describe it. When this process ends, the kernel ends all of its PID namespace. With
a program it ends together with that; without one it stays until it is killed. Nothing but the
standard library is here, and of that as little as possible: every host of every lab holds one.
"""

import os
import signal
import sys


def main(words: list[str]) -> None:
    program = words[words.index("--") + 1 :] if "--" in words else []
    # Without a handler the kernel does not deliver these to the first process of a namespace.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: os._exit(0))
    # Only so that pause() comes back.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = os.posix_spawnp(program[0], program, os.environ) if program else 0
    while True:
        try:
            # An orphan that nobody reaps stays a zombie, and libvirt waits 40 s for one after each
            # migration.
            gone, status = os.wait()
        except ChildProcessError:
            signal.pause()
            continue
        if gone == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


main(sys.argv[1:])
