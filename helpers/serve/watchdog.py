"""Runs a command that can neither outlive its owner nor leave anything behind.

`python -m helpers.serve.watchdog --grace 10 -- command …`. In: a command, and a pipe from the owner as standard input.
Out: the command's exit code. When the pipe closes (the owner ended in any way, kill -9 too), on SIGTERM, or when the
command ends, its whole process group is ended: TERM to the command, TERM to the group, KILL, with a grace period
between. Then what the group created in shared memory is removed, and its temporary files. If the watchdog itself is
killed -9, a second process that it keeps, the guard, kills the group and tidies up.
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
from helpers.serve.leftovers import Leftovers

LOOK = 0.25  # seconds between two looks at what the group has created


def watch(command: list[str], grace: float) -> int:
    """Run `command`, with a TMPDIR of its own, until it ends or the owner is gone.

    Args:
        grace: seconds that the command has to end after TERM, and as many for what is left of its group.

    Returns:
        The command's exit code; negative: the signal that ended it.
    """
    owner = os.getppid()
    adopt_orphans()
    wake = _listen_for_signals()
    leftovers = Leftovers()
    guard = _Guard(leftovers, inherited=(0, wake))
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(leftovers.temporary)},
        start_new_session=True,
        preexec_fn=die_with_parent,  # one thread only: safe
    )
    group = process.pid
    guard.tell(f"group {group}")

    def look() -> None:
        for path, inode in leftovers.look(group).items():
            guard.tell(f"{inode} {path}")

    ended: dict[int, int] = {}
    while group not in ended:
        # The owner's process id is looked at as well: a process that the owner forked may hold the pipe open.
        ready, _, _ = select.select([0, wake], [], [], LOOK)
        signals = os.read(wake, 64) if wake in ready else b""
        if signal.SIGTERM in signals or (0 in ready and not os.read(0, 64)) or os.getppid() != owner:
            break
        look()
        ended |= _reap(group)
    ended |= _end_group(group, grace, look, leader_runs=group not in ended)
    leftovers.remove()
    guard.tell("done")
    return ended.get(group, -signal.SIGKILL)


class _Guard:
    """A process that kills the group and removes its leftovers if the watchdog ends without a word."""

    def __init__(self, leftovers: Leftovers, inherited: tuple[int, ...]):
        told, self._words = os.pipe()
        if os.fork():
            os.close(told)
            return
        os.setsid()
        signal.set_wakeup_fd(-1)
        for descriptor in (self._words, *inherited):
            os.close(descriptor)
        with os.fdopen(told, encoding="utf-8") as words:
            self._keep(leftovers, words.read().splitlines())
        os._exit(0)

    def tell(self, words: str) -> None:
        """One line to the guard; it may have been killed."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._words, f"{words}\n".encode())

    @staticmethod
    def _keep(leftovers: Leftovers, told: list[str]) -> None:
        if told[-1:] == ["done"]:
            return
        for line in told:
            what, _, rest = line.partition(" ")
            if what != "group":
                leftovers.shared[rest] = int(what)
                continue
            group = int(rest)
            leftovers.look(group)
            deadline = time.monotonic() + 5
            while _signal_group(group, signal.SIGKILL) and time.monotonic() < deadline:
                time.sleep(0.05)
        leftovers.remove()


def _listen_for_signals() -> int:
    wake, signalled = os.pipe()
    os.set_blocking(signalled, False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(signalled)
    return wake


def _end_group(group: int, grace: float, look, leader_runs: bool) -> dict[int, int]:
    """TERM to the leader, which ends its own children in order; TERM to whoever is left; KILL. Returns exit codes by
    process id."""
    ended: dict[int, int] = {}
    steps = [(os.kill, signal.SIGTERM, grace)] if leader_runs else []
    steps += [(os.killpg, signal.SIGTERM, grace), (os.killpg, signal.SIGKILL, 5.0)]
    for send, number, seconds in steps:
        deadline = time.monotonic() + seconds
        look()
        with contextlib.suppress(ProcessLookupError):
            send(group, number)
        while time.monotonic() < deadline and not (send is os.kill and group in ended):
            ended |= _reap(group)
            if not _signal_group(group, 0):
                return ended
            look()
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
