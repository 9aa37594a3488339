"""Memory that PyTorch frees on a CPU stays with the process.

In: nothing. Out: fewer page faults. glibc gives every large block back to the kernel at once and gets it back zeroed,
page by page; in a training step that asks for the same blocks again and again this took a quarter of the time (23.5 →
17.4 s a step for Gemma 3 270M, 8 dialogues, 2 cores, measured 2026-11-22).
"""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep freed blocks. Returns whether it took it; other C libraries ignore it."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
