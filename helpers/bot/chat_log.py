"""The user's consent that their talks are learned from: given, taken back, and what is handed over under it.

In: an account. Out: a file of conversations with a consent recorded beside it, as 01's `chats` parameter and, after
`anonymise_conversation`, `helpers.train.continual` take them. Off until the user says yes; then only what is said from
then on, and of what she remembers only what came to be remembered from then on. Taking it back marks every exchange,
withdraws the recorded consents and deletes the files, which only their owner can read. Who is known to be under age
cannot give it, and what he gave before that was known is taken back.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from helpers.bot.memory import told
from helpers.bot.store import Account, Memory, Turn
from helpers.conversations import Conversation, Message, Metadata, write_conversations
from helpers.data.consent import FILE, read_consents, record, withdraw
from helpers.data.readers import GAP_HOURS
from helpers.settings import OUTPUTS

MOST_EXCHANGES = 20  # in one conversation


UNDER_AGE = "18歳未満だと聞いたので、会話は学習に使いません。"


class NothingLogged(ValueError):
    """There is nothing that may be handed over; the sentence is for the user, in Japanese."""


class UnderAge(NothingLogged):
    """The user is known to be under age."""


class ChatLog:
    """What `account`'s user allowed to be learned from; files go into a folder of the user's own below `folder`.

    `under_age` says whether the user is known to be. `outputs` is where the runs are from whose data it is deleted
    again.
    """

    def __init__(self, account: Account, folder: Path, under_age: Callable[[], bool], outputs: Path = OUTPUTS):
        self._account, self._folder, self._under_age, self._outputs = account, Path(folder), under_age, outputs

    @property
    def folder(self) -> Path:
        """The user's own."""
        return self._folder / self._account.pseudonym

    def allow(self, now: datetime) -> None:
        """From now on exchanges are logged.

        Raises:
            UnderAge: the user cannot allow it.
        """
        with self._account.store.transaction():
            if self._under_age():
                raise UnderAge(UNDER_AGE)
            if self._account.consent_since is None:
                self._account.consent_since = now

    def allows(self, at: datetime) -> bool:
        """Whether what was said at this time may be learned from, as far as the user is asked."""
        since = self._account.consent_since
        return since is not None and since <= at and not self._under_age()

    def end(self) -> bool:
        """From now on nothing is logged, and nothing of before counts as logged; whether anything was allowed. The
        files stay."""
        with self._account.store.transaction():
            allowed, self._account.consent_since = self._account.consent_since is not None, None
            return self._account.unlog() > 0 or allowed

    def take_back(self) -> list[Path]:
        """Nothing of this user is learned from any more; what of the runs' data and files was changed or deleted."""
        self.end()
        return self.delete_files()

    def delete_files(self) -> list[Path]:
        """Withdraw what was handed over, and delete it; what was changed or deleted. The folder goes last, so that it
        can be repeated after a failure: a consent may be withdrawn already, and stand in the data of a run still."""
        if not (folder := self.folder).exists():
            return []
        given = [consent.id for consent in read_consents(folder)]
        changed = [path for name in given for path in withdraw(folder, name, self._outputs)]
        files = [file for file in folder.iterdir() if file.name != FILE]
        shutil.rmtree(folder)
        return [*dict.fromkeys(changed), *files]

    def export(self) -> Path:
        """Write what is logged with this companion, and record the user's consent to it. Whoever takes it back
        meanwhile, in another window, waits, and then deletes this too.

        Raises:
            NothingLogged: the user did not allow it, or has said nothing since.
            UnderAge: the user cannot allow it; what was handed over before is taken back.
        """
        with self._account.store.transaction():
            if not self._under_age():
                return self._write()
        raise UnderAge(UNDER_AGE + taken_back(self.take_back()))

    def _write(self) -> Path:
        account, folder = self._account, self.folder
        turns, since = [turn for turn in account.turns() if turn.logged], account.consent_since
        if since is None or not turns:
            raise NothingLogged("書き出せる会話がありません。/consent on のあとに話したことだけが対象です。")
        known = {memory.number: memory for memory in account.memories() if memory.at >= since}
        talks = [_conversation(f"{account.persona}-{talk[0].number}", talk, known) for talk in talks_of(turns)]
        path = folder / f"{account.persona}.jsonl"
        for place in (folder.parent, folder):
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(0o700)
        write_conversations(path, talks)
        record(path, account.pseudonym)
        for file in folder.iterdir():
            file.chmod(0o600)
        return path


def taken_back(changed: Sequence[Path]) -> str:
    """What the user is told of what was `changed` or deleted."""
    return (
        f"書き出したものなど{len(changed)}か所から消しました。すでに学習したモデルは、学習し直すまでそのままです。"
        if changed
        else ""
    )


def talks_of(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """Exchanges that belong together: no long pause between them, and she in one mood at one level."""
    talk: list[Turn] = []
    for turn in turns:
        if talk and not _goes_on(talk, turn):
            yield talk
            talk = []
        talk.append(turn)
    if talk:
        yield talk


def _goes_on(talk: list[Turn], turn: Turn) -> bool:
    last = talk[-1]
    together = turn.at - last.at <= timedelta(hours=GAP_HOURS) and turn.number == last.number + 1
    return together and (turn.level, turn.emotion) == (last.level, last.emotion) and len(talk) < MOST_EXCHANGES


def _conversation(name: str, talk: Sequence[Turn], known: Mapping[int, Memory]) -> Conversation:
    """What she remembered then stands in it, in the words of then, of what is `known` and may be handed over: not what
    was forgotten since."""
    memories = [told(known[n], turn.at.date()) for turn in talk for n in turn.memories if n in known]
    said = [(("user", turn.words), ("assistant", turn.reply)) for turn in talk]
    return Conversation(
        id=name,
        messages=[Message(role=role, content=words) for exchange in said for role, words in exchange],
        metadata=Metadata(
            affection_level=talk[0].level,
            emotions=[talk[0].emotion] if talk[0].emotion else [],
            memories=list(dict.fromkeys(memories)),
        ),
    )
