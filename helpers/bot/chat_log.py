"""The user's consent that their talks are learned from: given, taken back, and what is handed over under it.

In: an account. Out: a file of conversations with a consent recorded beside it, as 01's `chats` parameter and, after
`anonymise_conversation`, `helpers.train.continual` take them. Off until the user says yes; then only what is said from
then on. Taking it back marks every exchange, withdraws the recorded consents and deletes the files, which only their
owner can read.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from helpers.bot.memory import told
from helpers.bot.store import Account, Memory, Turn
from helpers.conversations import Conversation, Message, Metadata, write_conversations
from helpers.data.consent import FILE, read_consents, record, withdraw
from helpers.data.readers import GAP_HOURS
from helpers.settings import OUTPUTS

MOST_EXCHANGES = 20  # in one conversation


class NothingLogged(ValueError):
    """There is nothing that may be handed over."""


class ChatLog:
    """What `account`'s user allowed to be learned from; files go into a folder of the user's own below `folder`.

    `outputs` is where the runs are from whose data it is deleted again.
    """

    def __init__(self, account: Account, folder: Path, outputs: Path = OUTPUTS):
        self._account, self._outputs = account, outputs
        self.folder = Path(folder) / account.pseudonym

    def allow(self, now: datetime) -> None:
        """From now on exchanges are logged."""
        if self._account.consent_since is None:
            self._account.consent_since = now

    def take_back(self) -> list[Path]:
        """Nothing of this user is learned from any more; what of the runs' data and files was changed or deleted."""
        with self._account.store.transaction():
            self._account.consent_since = None
            self._account.unlog()
        return self.delete_files()

    def delete_files(self) -> list[Path]:
        """Withdraw what was handed over, and delete it; what was changed or deleted."""
        if not self.folder.exists():
            return []
        given = [consent.id for consent in read_consents(self.folder) if consent.withdrawn_on is None]
        changed = [path for name in given for path in withdraw(self.folder, name, self._outputs)]
        files = [file for file in self.folder.iterdir() if file.name != FILE]
        shutil.rmtree(self.folder)
        return [*dict.fromkeys(changed), *files]

    def export(self) -> Path:
        """Write what is logged with this companion, and record the user's consent to it.

        Raises:
            NothingLogged: the user did not allow it, or has said nothing since.
        """
        turns = [turn for turn in self._account.turns() if turn.logged]
        if self._account.consent_since is None or not turns:
            raise NothingLogged("書き出せる会話がありません。/consent on のあとに話したことだけが対象です。")
        persona, pseudonym = self._account.persona, self._account.pseudonym
        known = {memory.number: memory for memory in self._account.memories()}
        talks = [_conversation(f"{persona}-{talk[0].number}", talk, known) for talk in talks_of(turns)]
        path = self.folder / f"{persona}.jsonl"
        for folder in (self.folder.parent, self.folder):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        write_conversations(path, talks)
        record(path, pseudonym)
        for file in self.folder.iterdir():
            file.chmod(0o600)
        return path


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
    """What she remembered then stands in it, without what was forgotten since."""
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
