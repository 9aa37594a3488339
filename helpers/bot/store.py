"""All that is kept of the users, in one SQLite file.

In: the path of a database. Out: `Store`, and for one user with one companion an `Account`, through which nothing of
anybody else can be reached. A write is whole or did not happen, whatever ends the process; what is deleted is
overwritten in the file.
"""

import json
import os
import re
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

VERSION = 1  # of the schema, in the database's user_version
_APPLICATION = 0x5A6B7201  # in its application_id: ours, and no other program's

_SCHEMA = """
CREATE TABLE users (
    id TEXT PRIMARY KEY, pseudonym TEXT NOT NULL UNIQUE, created TEXT NOT NULL,
    consent_since TEXT, notices INTEGER NOT NULL DEFAULT 1, guard TEXT
) STRICT;
CREATE TABLE talks (
    user TEXT NOT NULL REFERENCES users ON DELETE CASCADE, persona TEXT NOT NULL,
    pinned TEXT, summary TEXT NOT NULL DEFAULT '', summarised INTEGER NOT NULL DEFAULT 0,
    turns_made INTEGER NOT NULL DEFAULT 0, memories_made INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user, persona)
) STRICT;
CREATE TABLE turns (
    user TEXT NOT NULL, persona TEXT NOT NULL, number INTEGER NOT NULL,
    at TEXT NOT NULL, words TEXT NOT NULL, reply TEXT NOT NULL, level TEXT NOT NULL, emotion TEXT,
    memories TEXT NOT NULL, logged INTEGER NOT NULL,
    PRIMARY KEY (user, persona, number), FOREIGN KEY (user, persona) REFERENCES talks ON DELETE CASCADE
) STRICT;
CREATE TABLE events (
    user TEXT NOT NULL, persona TEXT NOT NULL, number INTEGER NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL,
    PRIMARY KEY (user, persona, number), FOREIGN KEY (user, persona) REFERENCES talks ON DELETE CASCADE
) STRICT;
CREATE TABLE memories (
    user TEXT NOT NULL, persona TEXT NOT NULL, number INTEGER NOT NULL,
    at TEXT NOT NULL, text TEXT NOT NULL, source TEXT NOT NULL, topic TEXT, day TEXT, turn INTEGER, replaces INTEGER,
    vector BLOB NOT NULL,
    PRIMARY KEY (user, persona, number), FOREIGN KEY (user, persona) REFERENCES talks ON DELETE CASCADE
) STRICT;
"""

_DELETED = "This user was deleted meanwhile: begin the chat anew."


class StoreError(RuntimeError):
    """The database cannot be read or written; one sentence says why, and what to do."""


@dataclass(frozen=True)
class Turn:
    """One exchange, numbered from 1. `level`, `emotion` and `memories` (their numbers) are what she was told when she
    answered; `logged` is whether the user allowed that it is learned from."""

    at: datetime
    words: str
    reply: str
    level: str
    emotion: str | None = None
    memories: tuple[int, ...] = ()
    logged: bool = False
    number: int = 0


@dataclass(frozen=True)
class Memory:
    """What she remembers of the user, numbered from 1.

    Attributes:
        source: "command" (the user asked for it), "rules" or "model" (noticed in the user's words).
        topic: what it is about, if only one such memory can hold, as "名前"; a later one takes its place.
        day: the date it is about.
        turn: the exchange in which it was said.
        replaces: the memory in whose place it came.
    """

    at: datetime
    text: str
    source: str
    topic: str | None = None
    day: date | None = None
    turn: int | None = None
    replaces: int | None = None
    number: int = 0


@dataclass(frozen=True)
class Event:
    """Something that moves the relationship; `kind` as in `relationship`."""

    at: datetime
    kind: str


class Store:
    """An open database. Several processes may have the same one open; threads of one take turns, since JupyterLab
    calls a widget in another thread than the cells.

    `timeout` is how many seconds a write waits for another process.

    Raises:
        StoreError: here and in all methods, its accounts' too.
    """

    def __init__(self, path: Path, timeout: float = 5):
        self.path, self._lock = Path(path), threading.RLock()
        with self._one_sentence():
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            except OSError as error:
                raise StoreError(f"The database {self.path} cannot be opened: {error.strerror}.") from error
            self._db = sqlite3.connect(self.path, timeout=timeout, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise

    def _open(self) -> None:
        for pragma in ("foreign_keys=ON", "secure_delete=ON", "synchronous=FULL"):
            self._db.execute(f"PRAGMA {pragma}")
        if self._pragma("application_id") == 0:
            with self.transaction():
                # Another process may have been faster.
                if self._pragma("application_id") == 0 and not self._one("SELECT count(*) FROM sqlite_schema")[0]:
                    for statement in _SCHEMA.split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version={VERSION}")
                    self._db.execute(f"PRAGMA application_id={_APPLICATION}")
        if self._pragma("application_id") != _APPLICATION:
            raise StoreError(f"{self.path} is another program's database: give a path of its own.")
        if (version := self._pragma("user_version")) > VERSION:
            raise StoreError(
                f"{self.path} has schema version {version} and this program knows {VERSION}: use the program that "
                "wrote it, or give another path."
            )
        if (found := self._pragma("quick_check")) != "ok":
            raise sqlite3.DatabaseError(found)
        self._db.execute("PRAGMA journal_mode=WAL")

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def users(self) -> list[str]:
        """All users, by name."""
        with self._one_sentence():
            return [user for (user,) in self._db.execute("SELECT id FROM users ORDER BY id")]

    def account(self, user: str, persona: str, now: datetime) -> "Account":
        """What is kept of `user` with the companion `persona`; nothing yet, if they are new.

        Raises:
            ValueError: no name for a user.
        """
        user = user_name(user)
        with self.transaction():
            new = (user, f"user-{secrets.token_hex(4)}", now.isoformat())
            self._db.execute("INSERT OR IGNORE INTO users (id, pseudonym, created) VALUES (?, ?, ?)", new)
            self._db.execute("INSERT OR IGNORE INTO talks (user, persona) VALUES (?, ?)", (user, persona))
        return Account(self, user, persona)

    def delete(self, user: str) -> None:
        """Delete all that is kept of `user`, with every companion, and overwrite it in the file."""
        with self.transaction():
            self._db.execute("DELETE FROM users WHERE id = ?", (user_name(user),))
        with self._one_sentence():
            self._db.execute("VACUUM")
        self.scrub()

    def scrub(self) -> None:
        """Overwrite in the file what was deleted.

        Raises:
            StoreError: another process reads the database at this moment.
        """
        with self._one_sentence():
            if self._one("PRAGMA wal_checkpoint(TRUNCATE)")[0]:
                raise StoreError(
                    f"It is deleted, but another process has {self.path} open, and what is deleted may stand in "
                    f"{self.path.name}-wal until that one ends."
                )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes in the block, or none. A block within a block is part of it."""
        with self._one_sentence():
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._db.rollback()
                raise

    def _one(self, sql: str, values: Sequence = ()) -> tuple | None:
        return self._db.execute(sql, values).fetchone()

    def _pragma(self, name: str) -> object:
        return self._one(f"PRAGMA {name}")[0]

    @contextmanager
    def _one_sentence(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.IntegrityError as error:
            raise StoreError(_DELETED) from error
        except sqlite3.OperationalError as error:
            reason = str(error)
            if "locked" in reason:
                reason = "another process has locked it; try again when that one is done"
            elif "full" in reason:
                reason = "the disk is full; free some space and try again"
            raise StoreError(f"The database {self.path} cannot be used: {reason}.") from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:
                raise
            raise StoreError(
                f"The database {self.path} is damaged ({' '.join(str(error).split())}): move it away to begin anew, or "
                "put a copy in its place."
            ) from error


class Account:
    """What is kept of one user with one companion. Made by `Store.account`; its methods raise what the store's do."""

    def __init__(self, store: Store, user: str, persona: str):
        self.store, self.user, self.persona = store, user, persona

    # What holds for the user, whoever the companion is.

    @property
    def pseudonym(self) -> str:
        """What stands for the user in whatever leaves the database."""
        return self._user("pseudonym")

    @property
    def consent_since(self) -> datetime | None:
        """Since when the user allows that their talks are learned from; None if they do not."""
        since = self._user("consent_since")
        return datetime.fromisoformat(since) if since else None

    @consent_since.setter
    def consent_since(self, since: datetime | None) -> None:
        self._set_user("consent_since", since.isoformat() if since else None)

    @property
    def notices(self) -> bool:
        """Whether memories are made of what the user says without being asked to."""
        return bool(self._user("notices"))

    @notices.setter
    def notices(self, on: bool) -> None:
        self._set_user("notices", int(on))

    @property
    def guard(self) -> str | None:
        """What the guard keeps of the user, as its own JSON."""
        return self._user("guard")

    @guard.setter
    def guard(self, state: str) -> None:
        self._set_user("guard", state)

    def unlog(self) -> int:
        """Take back the user's consent for every exchange, with every companion; the number of exchanges."""
        sql = "UPDATE turns SET logged = 0 WHERE user = ? AND logged"
        with self.store.transaction():
            return self.store._db.execute(sql, (self.user,)).rowcount

    # The talk with this companion.

    @property
    def pinned(self) -> str | None:
        """The level that the user chose; None if it moves with the talk."""
        return self._talk("pinned")[0]

    @pinned.setter
    def pinned(self, level: str | None) -> None:
        self._write("UPDATE talks SET pinned = ? WHERE user = ? AND persona = ?", level)

    @property
    def summary(self) -> tuple[str, int]:
        """What was said up to an exchange, and that one's number; ("", 0) at first."""
        return self._talk("summary, summarised")

    @summary.setter
    def summary(self, value: tuple[str, int]) -> None:
        self._write("UPDATE talks SET summary = ?, summarised = ? WHERE user = ? AND persona = ?", *value)

    def turns(self, after: int = 0, most: int = -1) -> list[Turn]:
        """The exchanges with a number greater than `after`, in order; if `most` is not negative, the last of them."""
        sql = (
            "SELECT number, at, words, reply, level, emotion, memories, logged FROM turns "
            "WHERE user = ? AND persona = ? AND number > ? ORDER BY number DESC LIMIT ?"
        )
        return [
            Turn(
                datetime.fromisoformat(at), words, reply, level, emotion, tuple(json.loads(told)), bool(logged), number
            )
            for number, at, words, reply, level, emotion, told, logged in reversed(self._read(sql, after, most))
        ]

    def add_turn(self, turn: Turn) -> Turn:
        """Keep an exchange; it gets the next number."""
        with self.store.transaction():
            turn = replace(turn, number=self._next("turns_made"))
            told = json.dumps(turn.memories)
            values = (turn.number, turn.at.isoformat(), turn.words, turn.reply, turn.level, turn.emotion, told)
            self._insert("turns", "number, at, words, reply, level, emotion, memories, logged", *values, turn.logged)
        return turn

    def delete_turns(self, numbers: Sequence[int]) -> None:
        with self.store.transaction():
            for number in numbers:
                self._write("DELETE FROM turns WHERE number = ? AND user = ? AND persona = ?", number)

    def events(self) -> list[Event]:
        """All events, in order."""
        sql = "SELECT at, kind FROM events WHERE user = ? AND persona = ? ORDER BY number"
        return [Event(datetime.fromisoformat(at), kind) for at, kind in self._read(sql)]

    def add_event(self, event: Event) -> None:
        with self.store.transaction():
            sql = "SELECT coalesce(max(number), 0) + 1 FROM events WHERE user = ? AND persona = ?"
            ((number,),) = self._read(sql)
            self._insert("events", "number, at, kind", number, event.at.isoformat(), event.kind)

    def memories(self) -> list[Memory]:
        """All memories, in order, also those in whose place others came."""
        sql = (
            "SELECT number, at, text, source, topic, day, turn, replaces FROM memories "
            "WHERE user = ? AND persona = ? ORDER BY number"
        )
        return [
            Memory(
                datetime.fromisoformat(at),
                text,
                source,
                topic,
                date.fromisoformat(day) if day else None,
                turn,
                replaces,
                number,
            )
            for number, at, text, source, topic, day, turn, replaces in self._read(sql)
        ]

    def vectors(self) -> dict[int, bytes]:
        """The memories' embeddings by number, as they were given."""
        return dict(self._read("SELECT number, vector FROM memories WHERE user = ? AND persona = ?"))

    def add_memory(self, memory: Memory, vector: bytes) -> Memory:
        """Keep a memory; it gets the next number."""
        with self.store.transaction():
            memory = replace(memory, number=self._next("memories_made"))
            day = memory.day.isoformat() if memory.day else None
            values = (memory.number, memory.at.isoformat(), memory.text, memory.source, memory.topic, day)
            columns = "number, at, text, source, topic, day, turn, replaces, vector"
            self._insert("memories", columns, *values, memory.turn, memory.replaces, vector)
        return memory

    def delete_memories(self, numbers: Sequence[int]) -> None:
        with self.store.transaction():
            for number in numbers:
                self._write("DELETE FROM memories WHERE number = ? AND user = ? AND persona = ?", number)

    # Every statement on this class's tables goes through these, and each names the user.

    def _read(self, sql: str, *values: object) -> list[tuple]:
        with self.store._one_sentence():
            return self.store._db.execute(sql, (self.user, self.persona, *values)).fetchall()

    def _write(self, sql: str, *values: object) -> None:
        with self.store.transaction():
            self.store._db.execute(sql, (*values, self.user, self.persona))

    def _insert(self, table: str, columns: str, *values: object) -> None:
        marks = ", ".join("?" * (len(values) + 2))
        sql = f"INSERT INTO {table} ({columns}, user, persona) VALUES ({marks})"
        self.store._db.execute(sql, (*values, self.user, self.persona))

    def _next(self, counter: str) -> int:
        sql = f"UPDATE talks SET {counter} = {counter} + 1 WHERE user = ? AND persona = ? RETURNING {counter}"
        if not (rows := self._read(sql)):
            raise StoreError(_DELETED)
        return rows[0][0]

    def _user(self, column: str) -> object:
        with self.store._one_sentence():
            row = self.store._one(f"SELECT {column} FROM users WHERE id = ?", (self.user,))
        if row is None:
            raise StoreError(_DELETED)
        return row[0]

    def _set_user(self, column: str, value: object) -> None:
        with self.store.transaction():
            done = self.store._db.execute(f"UPDATE users SET {column} = ? WHERE id = ?", (value, self.user))
            if not done.rowcount:
                raise StoreError(_DELETED)

    def _talk(self, columns: str) -> tuple:
        if not (rows := self._read(f"SELECT {columns} FROM talks WHERE user = ? AND persona = ?")):
            raise StoreError(_DELETED)
        return rows[0]


_NAME = re.compile(r"[^\W_](?:[\w .・@-]{0,62}[\w.・@-])?")


def user_name(name: str) -> str:
    """`name`, if it can be a user's: up to 64 letters, digits, spaces and . - _ @, beginning with a letter or digit.

    Raises:
        ValueError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} cannot be a user's name: use up to 64 letters, digits and . - _ @, beginning with a letter "
            "or a digit."
        )
    return name
