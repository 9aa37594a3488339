"""What processes would leave behind when they are killed: shared memory, semaphores, temporary files.

In: a process group, looked at while it runs. Out: a list of what it created in /dev/shm, each by path and inode, which
`remove` deletes, with the folder that the group had for temporary files. Nothing is touched that another program made:
only what was not there before, and what a process of the group has in its memory map, is listed.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SHARED = Path("/dev/shm")  # POSIX shared memory and, as sem.*, semaphores, on Linux; elsewhere nothing is found


class Leftovers:
    """The marks of one process group, made before it starts.

    Attributes:
        temporary: a new folder for the group's TMPDIR. Its name is short: sockets are put there, whose paths must not
            exceed 107 bytes.
        shared: inode by path of what the group created in /dev/shm.
    """

    def __init__(self):
        self.temporary = Path(tempfile.mkdtemp(prefix="vllm-"))
        self.shared: dict[str, int] = {}
        self._others, self._unclaimed = _names(), set()

    def look(self, group: int) -> dict[str, int]:
        """Note what `group` has created since the last look, and return it."""
        unknown = _names() - self._others - self.shared.keys()
        inodes = {name: inode for name in unknown if (inode := _inode(name))}
        mapped = {inode for pid in _members(group) for inode in _mapped(pid)} if inodes else set()
        found = {name: inode for name, inode in inodes.items() if inode in mapped}
        self.shared |= found
        # Who creates something has it in its map at once: what two looks find in nobody's map is another program's.
        self._others |= (unknown - found.keys()) & self._unclaimed
        self._unclaimed = unknown - found.keys()
        return found

    def remove(self) -> None:
        """Delete what is noted and still the same. For when no process of the group is left."""
        for path, inode in self.shared.items():
            if _inode(path) == inode:
                os.unlink(path)
        shutil.rmtree(self.temporary, ignore_errors=True)


def _names() -> set[str]:
    return {str(path) for path in SHARED.iterdir()} if SHARED.is_dir() else set()


def _inode(path: str) -> int:
    """0 if there is no such file, or no longer."""
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def _members(group: int) -> Iterator[int]:
    for name in os.listdir("/proc"):
        with suppress(ProcessLookupError):
            if name.isdigit() and os.getpgid(int(name)) == group:
                yield int(name)


def _mapped(pid: int) -> Iterator[int]:
    """The inodes of the files below /dev/shm in the memory map of a process, none for one that has ended. Their names
    there may be others: glibc creates a semaphore under a temporary one."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            # address, permissions, offset, device, inode, path
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith(f"{SHARED}/"):
                yield int(fields[4])
