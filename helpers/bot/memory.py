"""What she remembers of a user: added, corrected, forgotten, and recalled when it fits what is said.

In: an account and, for recall, the user's words. Out: memories, and `told`, the short sentences of Japanese that
`persona.system_prompt(memories=…)` takes.
A correction takes the older memory's place and the older one stays as its history. A summary of the talk, which could
tell the older one, is dropped: she reads the exchanges again, until they are summed up anew. To forget is to delete:
the memory, its history, their vectors, the exchanges in which they were said and the summary of the talk, which could
tell of them; what was said again in other exchanges stays until the user deletes everything.
"""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime

import numpy as np

from helpers.bot.noticing import MAX_CHARS, Fact
from helpers.bot.store import Account, Memory
from helpers.control_tokens import defuse
from helpers.embeddings import embed
from helpers.japanese import bare
from helpers.safety.injection import keep_memory

_ALWAYS = ("呼び名", "名前")  # the first of these topics that there is, is recalled whatever is said
_UNSEEN = ("Cc", "Cf", "Cs", "Co")  # controls, invisible signs, half characters, private use
_HALF_LIFE = 30  # days in which a memory loses half of what its recency counts
_RECENCY, _NEAR = 0.5, 1.5  # in standard deviations of the similarities


class BadMemory(ValueError):
    """A text that cannot be a memory, or a number that no memory has."""


class Memories:
    """A user's memories. `embed` gives a unit vector (float32) for each text.

    Raises:
        StoreError: in all methods.
    """

    def __init__(self, account: Account, embed: Callable[[Sequence[str]], np.ndarray] = embed):
        self._account, self._embed = account, embed

    def all(self) -> list[Memory]:
        """What is remembered now, oldest first."""
        found = self._account.memories()
        replaced = {memory.replaces for memory in found}
        return [memory for memory in found if memory.number not in replaced]

    def corrected(self, most: int = 10) -> list[Memory]:
        """What is remembered now in an earlier memory's place, oldest first; the last `most` of it."""
        return [memory for memory in self.all() if memory.replaces is not None][-most:]

    def history(self, number: int) -> list[Memory]:
        """What stood in this memory's place before, oldest first, and the memory itself.

        Raises:
            BadMemory: no memory has this number now.
        """
        found = {memory.number: memory for memory in self._account.memories()}
        versions = [self._current(number)]
        while (older := versions[-1].replaces) is not None:
            versions.append(found[older])
        return versions[::-1]

    def add(self, fact: Fact, source: str, now: datetime, turn: int | None = None) -> Memory:
        """Remember `fact`. What is remembered already is not added again; a fact with a topic takes the place of the
        memory with that topic.

        Raises:
            BadMemory: it is empty, or longer than MAX_CHARS.
        """
        text = as_memory(fact.text)
        current = self.all()
        for memory in current:
            if bare(memory.text) == bare(text) and memory.day == fact.day:
                return memory
        older = next((m.number for m in current if fact.topic is not None and m.topic == fact.topic), None)
        return self._put(Memory(now, text, source, fact.topic, fact.day, turn, older))

    def correct(self, number: int, text: str, now: datetime) -> Memory:
        """Put `text` in the place of a memory.

        Raises:
            BadMemory: no memory has this number now, or the text cannot be one.
        """
        older, text = self._current(number), as_memory(text)
        return self._put(Memory(now, text, "command", older.topic, older.day, None, number))

    def forget(self, number: int, take_back: Callable[[], object] = lambda: None) -> list[Memory]:
        """Delete a memory and all that came of it (see above), and return what was deleted. `take_back` takes it from
        where it was handed to: if it fails, nothing is deleted, and the user can ask again.

        Raises:
            BadMemory: no memory has this number now.
        """
        account = self._account
        with account.store.transaction():
            versions = self.history(number)
            take_back()
            account.delete_memories([memory.number for memory in versions])
            account.delete_turns([memory.turn for memory in versions if memory.turn is not None])
            account.summary = ("", account.summary[1])
        account.store.scrub()
        return versions

    def recall(self, words: str, today: date, most: int = 3) -> list[Memory]:
        """At most `most` memories that fit `words`: what the user is called, then by likeness of meaning, recency, and
        whether it happens yesterday, today or tomorrow. Likeness is compared among the memories, not to a threshold,
        since the cosines of Japanese texts are bunched."""
        memories = self.all()
        if len(memories) > most:
            called = next((m for topic in _ALWAYS for m in memories if m.topic == topic), None)
            others = [memory for memory in memories if memory is not called]
            order = np.argsort(-self._scores(others, words, today), kind="stable")
            memories = ([called] if called else []) + [others[i] for i in order]
        return memories[:most]

    def _scores(self, memories: Sequence[Memory], words: str, today: date) -> np.ndarray:
        vectors = self._account.vectors()
        matrix = np.stack([np.frombuffer(vectors[m.number], dtype=np.float32) for m in memories])
        likeness = matrix @ self._embed([words])[0]
        likeness = (likeness - likeness.mean()) / (likeness.std() + 1e-6)
        ages = np.array([(today - m.at.date()).days for m in memories])
        near = np.array([m.day is not None and abs((m.day - today).days) <= 1 for m in memories])
        return likeness + _RECENCY * 0.5 ** (ages.clip(0) / _HALF_LIFE) + _NEAR * near

    def _put(self, memory: Memory) -> Memory:
        vector = self._embed([memory.text])[0].astype(np.float32).tobytes()
        with self._account.store.transaction():
            if memory.replaces is not None and self._account.summary[0]:
                self._account.summary = ("", 0)
            return self._account.add_memory(memory, vector)

    def _current(self, number: int) -> Memory:
        for memory in self.all():
            if memory.number == number:
                return memory
        raise BadMemory(f"{number}番の記憶はありません。番号は /memories で見られます。")


def as_memory(text: str) -> str:
    """`text` as it can stand in a system prompt among other memories and be taken for nothing else there: `as_line`,
    without the sign that divides memories.

    Raises:
        BadMemory: nothing is left of it, or more than MAX_CHARS, or it gives her orders.
    """
    line = as_line(text)
    if not line:
        raise BadMemory("覚える言葉がありません。")
    if len(line) > MAX_CHARS:
        raise BadMemory(f"{len(line)}文字は長すぎます。{MAX_CHARS}文字までの一文にしてください。")
    try:
        return keep_memory(line)
    except ValueError as error:
        raise BadMemory("指示のように読めるので、覚えられません。あなたのことを書いてください。") from error


def as_line(text: str) -> str:
    """`text` on one line, without control tokens, invisible characters, and the sign that divides memories."""
    seen = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) not in _UNSEEN)
    return " ".join(defuse(seen).replace("／", "・").split())


def told(memory: Memory, today: date) -> str:
    """The memory in words that are right today: an event tomorrow is "明日", one that is over is in the past."""
    if memory.day is None:
        return memory.text
    text = memory.text
    if memory.day < today and text.endswith("がある"):
        text = text.removesuffix("がある") + "があった"
    return f"{_when(memory.day, today)}、{text}"


def _when(day: date, today: date) -> str:
    near = {-1: "昨日", 0: "今日", 1: "明日", 2: "明後日"}
    return near.get((day - today).days, f"{day.month}月{day.day}日")


def listed(memories: Iterable[Memory]) -> list[str]:
    """A line for each memory, as it is shown to the user: its number, what it says, and the date it is about."""
    return [
        f"{memory.number}. {memory.text}" + (f"（{memory.day.month}月{memory.day.day}日）" if memory.day else "")
        for memory in memories
    ]
