"""Runs a command that cannot outlive its owner: `python -m helpers.serve.watchdog --grace 10 -- command …`.

In: a command, and a pipe from the owner as standard input. Out: the command's exit code. When the pipe closes (the
owner ended in any way, kill -9 too) or on SIGTERM, the command's whole process group is ended: TERM first, KILL after
the grace period. If the watchdog itself is killed -9, a second process that it keeps, the guard, kills the group.
"""

import argparse
import contextlib
import os
import select
import signal
import subprocess
import sys
import time

from helpers.processes import adopt_orphans, die_with_parent


def watch(command: list[str], grace: float) -> int:
    """Run `command` until it ends or the owner is gone.

    Args:
        grace: seconds between TERM and KILL.

    Returns:
        The command's exit code; negative: the signal that ended it.
    """
    owner = os.getppid()
    adopt_orphans()
    alive, guarded = os.pipe()
    wake = _listen_for_signals()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent,  # one thread only: safe
    )
    group = process.pid
    _fork_guard(group, alive, guarded)

    ended: dict[int, int] = {}
    while group not in ended:
        # The owner's process id is looked at as well: a process that the owner forked may hold the pipe open.
        ready, _, _ = select.select([0, wake], [], [], 1.0)
        signals = os.read(wake, 64) if wake in ready else b""
        if signal.SIGTERM in signals or (0 in ready and not os.read(0, 64)) or os.getppid() != owner:
            break
        ended |= _reap(group)
    ended |= _end_group(group, grace)
    os.write(guarded, b"done")
    return ended.get(group, -signal.SIGKILL)


def _listen_for_signals() -> int:
    wake, signalled = os.pipe()
    os.set_blocking(signalled, False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(signalled)
    return wake


def _fork_guard(group: int, alive: int, guarded: int) -> None:
    """A process that kills the group if the watchdog ends without a word."""
    if os.fork():
        os.close(alive)
        return
    os.setsid()
    signal.set_wakeup_fd(-1)
    for descriptor in (0, guarded):
        os.close(descriptor)
    if not os.read(alive, 4):
        _signal_group(group, signal.SIGKILL)
    os._exit(0)


def _end_group(group: int, grace: float) -> dict[int, int]:
    """TERM, then KILL what is left after the grace period; returns exit codes by process id."""
    ended: dict[int, int] = {}
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + seconds
        _signal_group(group, number)
        while time.monotonic() < deadline:
            ended |= _reap(group)
            if not _signal_group(group, 0):
                return ended
            time.sleep(0.05)
    return ended


def _reap(group: int) -> dict[int, int]:
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-group, os.WNOHANG))[0]:
            ended[found[0]] = os.waitstatus_to_exitcode(found[1])
    return ended


def _signal_group(group: int, number: int) -> bool:
    """Signal the group; whether anybody is left in it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def main() -> int:
    """Exit code as a shell gives it: 128 and the signal's number for a command that a signal ended."""
    parser = argparse.ArgumentParser(prog="python -m helpers.serve.watchdog")
    parser.add_argument("--grace", type=float, default=10, help="seconds between TERM and KILL")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    code = watch(options.command, options.grace)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
