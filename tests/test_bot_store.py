"""The bot's database: nobody sees anybody else's, whatever ends the process leaves it whole, and what is deleted is
gone."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.bot.store import Event, Memory, Store, StoreError, Turn, user_name
from helpers.settings import ROOT

NOW = datetime(2026, 11, 29, 21, 3, tzinfo=timezone(timedelta(hours=9)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "companion.db"


@pytest.fixture
def store(path):
    with Store(path) as store:
        yield store


def fill(account, word="モカ"):
    """A turn, an event and a memory, in one transaction."""
    with account.store.transaction():
        turn = account.add_turn(Turn(NOW, f"{word}と散歩した", f"{word}、元気？", "friend", "happy", (1,), True))
        account.add_event(Event(NOW, "talk"))
        account.add_memory(Memory(NOW, f"犬の名前は{word}", "rules", "犬の名前", NOW.date(), turn.number), b"\x01\x02")
        account.summary = (f"{word}の話をした", turn.number)
    return turn


def everything(account):
    return (
        account.turns(),
        account.events(),
        account.memories(),
        account.vectors(),
        account.summary,
        account.pinned,
        account.guard,
        account.consent_since,
        account.notices,
    )


def on_disk(path):
    return b"".join(file.read_bytes() for file in path.parent.iterdir() if file.name.startswith(path.name))


def test_a_restart_loses_nothing(path):
    with Store(path) as store:
        account = store.account("健太", "sakura", NOW)
        fill(account)
        account.pinned, account.guard, account.consent_since, account.notices = "lover", '{"minor": true}', NOW, False
        before = everything(account)
        pseudonym = account.pseudonym
    with Store(path) as store:
        account = store.account("健太", "sakura", NOW + timedelta(days=1))
        assert everything(account) == before
        assert account.pseudonym == pseudonym
        assert before[0] == [Turn(NOW, "モカと散歩した", "モカ、元気？", "friend", "happy", (1,), True, 1)]
        assert before[2] == [Memory(NOW, "犬の名前はモカ", "rules", "犬の名前", NOW.date(), 1, None, 1)]
        assert account.turns(after=1) == []


def test_numbers_are_never_given_twice(store):
    account = store.account("健太", "sakura", NOW)
    fill(account)
    account.delete_turns([1])
    account.delete_memories([1])
    assert fill(account).number == 2
    assert [memory.number for memory in account.memories()] == [2]


def test_a_failure_in_a_transaction_leaves_no_trace(store):
    account = store.account("健太", "sakura", NOW)
    before = everything(account)
    with pytest.raises(KeyboardInterrupt), store.transaction():
        fill(account)
        account.pinned = "lover"
        raise KeyboardInterrupt
    assert everything(account) == before


def test_threads_take_turns(store):
    accounts = [store.account(user, "sakura", NOW) for user in ("健太", "美緒")]
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda i: fill(accounts[i % 2]), range(40)):
            pass
    for account in accounts:
        assert whole(account) == 20


# Two users.


def test_two_users_and_two_companions_are_kept_apart(store):
    kenta, mio = (store.account(user, "sakura", NOW) for user in ("健太", "美緒"))
    with_seiji = store.account("健太", "seiji", NOW)
    empty = everything(mio)
    fill(kenta)
    kenta.pinned = "lover"
    assert everything(mio) == empty
    assert everything(with_seiji) == empty
    kenta.guard, kenta.consent_since, kenta.notices = '{"minor": true}', NOW, False
    assert everything(mio) == empty
    assert (with_seiji.guard, with_seiji.consent_since, with_seiji.notices) == ('{"minor": true}', NOW, False)
    assert mio.pseudonym != kenta.pseudonym == with_seiji.pseudonym
    fill(mio, "ココ")
    mio.consent_since = NOW
    assert kenta.unlog() == 1
    assert [turn.logged for turn in mio.turns()] == [True]
    kenta.delete_turns([1])
    kenta.delete_memories([1])
    assert len(mio.turns()) == len(mio.memories()) == 1
    assert store.users() == ["健太", "美緒"]


USERS = ("健太", "美緒", "健太'; DROP TABLE turns; --".replace("'", "").replace(";", ""), "Kenta", "kenta", "健 太")
OPERATION = st.tuples(
    st.sampled_from(USERS),
    st.sampled_from(("turn", "event", "memory", "pin", "summary", "guard", "forget", "unlog", "delete")),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12),
)


@settings(max_examples=40, deadline=None)
@given(operations=st.lists(OPERATION, max_size=25))
def test_whatever_users_do_each_sees_their_own(operations, tmp_path_factory):
    folder = tmp_path_factory.mktemp("users")
    with Store(folder / "companion.db") as store:
        expected = {}
        for user, what, word in operations:
            mine = expected.setdefault(user, {"words": [], "events": [], "memories": {}, "pin": None, "guard": None})
            account = store.account(user, "sakura", NOW)
            match what:
                case "turn":
                    account.add_turn(Turn(NOW, word, word, "friend"))
                    mine["words"].append(word)
                case "event":
                    account.add_event(Event(NOW, word))
                    mine["events"].append(word)
                case "memory":
                    mine["memories"][account.add_memory(Memory(NOW, word, "command"), word.encode()).number] = word
                case "pin":
                    account.pinned = mine["pin"] = word
                case "guard":
                    account.guard = mine["guard"] = word
                case "forget":
                    account.delete_memories(list(mine["memories"]))
                    mine["memories"] = {}
                case "unlog":
                    account.unlog()
                case "delete":
                    store.delete(user)
                    del expected[user]
            assert store.users() == sorted(expected)
            for other, kept in expected.items():
                seen = store.account(other, "sakura", NOW)
                assert [turn.words for turn in seen.turns()] == kept["words"]
                assert [event.kind for event in seen.events()] == kept["events"]
                assert {m.number: m.text for m in seen.memories()} == kept["memories"]
                assert {n: v.decode() for n, v in seen.vectors().items()} == kept["memories"]
                assert (seen.pinned, seen.guard) == (kept["pin"], kept["guard"])
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["", " ", "健太\n", "../健太", "a" * 65, "_", "健\x00太", "\ud800", "' OR 1=1"])
def test_what_cannot_be_a_users_name(store, name):
    with pytest.raises(ValueError, match="cannot be a user's name"):
        store.account(name, "sakura", NOW)
    assert user_name("mio@example.com") == "mio@example.com"


# Deleted is gone.


def test_a_deleted_user_leaves_no_byte(path, store):
    account = store.account("健太", "sakura", NOW)
    fill(account)
    fill(store.account("美緒", "sakura", NOW), "ココ")
    account.guard = "モカ"
    assert "モカ".encode() in on_disk(path)
    store.delete("健太")
    assert "モカ".encode() not in on_disk(path)
    assert "健太".encode() not in on_disk(path)
    assert "ココ".encode() in on_disk(path)
    assert store.users() == ["美緒"]
    for use in (account.turns, account.events, account.memories):
        assert use() == []
    for use in (lambda: account.summary, lambda: account.guard, lambda: fill(account)):
        with pytest.raises(StoreError, match="deleted meanwhile"):
            use()
    with pytest.raises(StoreError, match="deleted meanwhile"):
        account.notices = False


def test_a_deleted_memory_leaves_no_byte(path, store):
    account = store.account("健太", "sakura", NOW)
    fill(account)
    account.delete_memories([1])
    account.delete_turns([1])
    account.summary = ("", 1)
    store.scrub()
    assert "モカ".encode() not in on_disk(path)


# Whatever ends the process.

WRITER = """
import sys
from datetime import datetime, timezone
from helpers.bot.store import Event, Memory, Store, Turn
now = datetime(2026, 11, 29, tzinfo=timezone.utc)
store = Store(sys.argv[1])
account = store.account("健太", "sakura", now)
while True:
    with store.transaction():
        turn = account.add_turn(Turn(now, "おはよう" * 50, "おはよ" * 50, "friend"))
        account.add_event(Event(now, "talk"))
        account.add_memory(Memory(now, "犬の名前はモカ", "rules", turn=turn.number), bytes(1536))
        account.summary = ("話した", turn.number)
    print(turn.number, flush=True)
"""


def whole(account):
    """The number of exchanges, each of which has its event and its memory."""
    turns, summary = account.turns(), account.summary
    assert [turn.number for turn in turns] == list(range(1, len(turns) + 1))
    assert [memory.turn for memory in account.memories()] == [turn.number for turn in turns]
    assert len(account.events()) == len(account.vectors()) == len(turns) == summary[1]
    return len(turns)


def test_kill_9_between_any_two_writes_loses_at_most_the_turn_that_was_not_sent(path):
    kept = 0
    for round in range(16):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        written = int(writer.stdout.readline())
        assert written == kept + 1
        time.sleep(0.007 * round)
        os.kill(writer.pid, signal.SIGKILL)
        written = ([written] + [int(line) for line in writer.stdout if line.endswith("\n")])[-1]
        writer.wait()
        with Store(path) as store:
            kept = whole(store.account("健太", "sakura", NOW))
        assert written <= kept <= written + 1


def test_kill_9_at_any_step_of_a_write_leaves_all_of_it_or_nothing(path):
    with Store(path) as store:
        fill(store.account("健太", "sakura", NOW))
    outcomes = []
    for step in range(1, 400, 7):
        if not (child := os.fork()):
            store = Store(path)
            account = store.account("健太", "sakura", NOW)
            left = [step]

            def count(left=left):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

            store._db.set_progress_handler(count, 1)
            fill(account)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        with Store(path) as store:
            before, now = sum(outcomes) + 1, whole(store.account("健太", "sakura", NOW))
        outcomes.append(now - before)
        if os.WIFEXITED(status):
            break
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0 and outcomes[-1] == 1
    assert len(outcomes) > 15 and set(outcomes[:-1]) == {0}


# A database that cannot be used: one sentence.


def refused(path, sentence, **how):
    with pytest.raises(StoreError, match=sentence) as error:
        Store(path, **how)
    assert "\n" not in str(error.value)


def test_a_newer_schema_is_not_touched(path):
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=2")
    before = path.read_bytes()
    refused(path, "has schema version 2 and this program knows 1")
    assert path.read_bytes() == before


def test_another_programs_database_is_not_touched(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    db.close()
    before = path.read_bytes()
    refused(path, "another program's database")
    assert path.read_bytes() == before


def test_a_damaged_database(path):
    with Store(path) as store:
        for user in range(40):
            fill(store.account(f"user{user}", "sakura", NOW))
    whole_file = path.read_bytes()
    path.write_bytes(b"no database at all" * 300)
    refused(path, "is damaged .*move it away")
    path.write_bytes(whole_file[: len(whole_file) // 2])
    refused(path, "is damaged .*move it away")
    path.write_bytes(whole_file[:4096] + bytes(range(256)) * 64 + whole_file[4096 + 256 * 64 :])
    refused(path, "is damaged .*move it away")


def test_a_path_that_cannot_be_opened(tmp_path):
    refused(tmp_path, "cannot be opened: Is a directory")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file" / "companion.db", "cannot be opened: (Not a directory|File exists)")


def test_a_locked_database(path):
    store = Store(path, timeout=0.1)
    account = store.account("健太", "sakura", NOW)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another process has locked it"):
        fill(account)
    other.execute("ROLLBACK")
    fill(account)
    assert whole(account) == 1
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM turns").fetchone()
    with pytest.raises(StoreError, match="another process"):
        store.delete("健太")
    other.close()
    assert store.users() == []
    store.close()


def test_a_full_disk_leaves_what_was_there(path):
    with Store(path) as store:
        account = store.account("健太", "sakura", NOW)
        fill(account)
        pages = store._pragma("page_count")
        store._db.execute(f"PRAGMA max_page_count={pages + 1}")
        with pytest.raises(StoreError, match="the disk is full; free some space"), store.transaction():
            for _ in range(50):
                fill(account, "モカ" * 500)
        assert whole(account) == 1
        store._db.execute("PRAGMA max_page_count=100000")
        fill(account)
        assert whole(account) == 2


def test_only_the_owner_may_read_the_file(path, store):
    assert path.stat().st_mode & 0o077 == 0
