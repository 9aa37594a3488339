"""Processes that cannot outlive the one that started them and clear up when they are ended, and which of several at one
task this is."""

import ctypes
import os
import signal
import sys

# prctl(2) of Linux; elsewhere the calls do nothing.
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def die_with_parent() -> None:
    """Have Linux kill this process when the thread that started it ends, kill -9 too."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def exit_on_sigterm() -> None:
    """Have SIGTERM (systemd, `docker stop`) raise SystemExit here, with the shell's exit code for it, 143: what is open
    is closed, where Python by itself would end at once."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def program_path() -> str:
    """PATH for a child, with the programs of this environment first: libraries call `ninja` by its name, and nobody may
    have activated the environment that it is in."""
    return os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])


def rank() -> int:
    """This process's number, from 0, among those that train one model together (RANK, which torchrun sets)."""
    return int(os.environ.get("RANK", "0"))


def adopt_orphans() -> None:
    """Have Linux make this process the parent of those of its descendants whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
