"""Files that are whole or not there, one process's at a time, and hashes of what they hold."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name; it takes its place at `path` only if the block ends without an error, so
    that a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, text: str, mode: int | None = None) -> None:
    """Write UTF-8 `text`, whole or not at all; with a `mode`, such as 0o600, nobody whom it shuts out can ever read it,
    not even while it is written."""
    with whole_file(path) as temporary:
        if mode is not None:
            temporary.touch(mode)
            temporary.chmod(mode)
        temporary.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name; it takes its place at `path` only if the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(path: Path, busy: Exception | None = None) -> Iterator[None]:
    """Nobody else holds this file, or folder, in this way meanwhile. The kernel lets go of it with the process, however
    it ends. A file that is not there is made. `busy` is what is raised if somebody else does; None waits."""
    handle = os.open(path, os.O_RDONLY | (0 if path.is_dir() else os.O_CREAT), 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError as error:
            raise busy from error
        yield
    finally:
        os.close(handle)


def abandoned(folder: Path) -> list[Path]:
    """What processes that are no more have left half-written in `folder`, under the temporary names of this module."""
    parts = [(part, part.name.split(".")[-2]) for part in sorted(folder.glob(".*.part"))]
    return [part for part, process in parts if process.isdigit() and not psutil.pid_exists(int(process))]


def remove(*paths: Path) -> None:
    """Delete files and whole folders; what is not there need not be."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(path: Path, patterns: Iterable[str] = ("*",)) -> str:
    """One SHA-256 over the names and contents of the files directly in `path` that match, whatever their order."""
    files = sorted({f for pattern in patterns for f in path.glob(pattern) if f.is_file()})
    return sha256_json({f.name: sha256_file(f) for f in files})


def sha256_json(value: object) -> str:
    """SHA-256 of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
