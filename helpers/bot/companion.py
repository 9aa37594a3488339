"""The bot: one turn of the talk, from the user's words to what is kept of it.

In: a server's settings, a persona card, a database, a user's name. Out: `Bot.say`, which yields what is to be shown as
it comes: the guard's words first, where it has something to say, then hers, sentence by sentence, each after the guard
has read it. A turn that fails leaves no trace in the talk; what the guard has understood it keeps all the same, and a
summary that was finished.
"""

import unicodedata
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from helpers.bot.chat_log import UNDER_AGE, ChatLog, taken_back
from helpers.bot.event_kinds import kind_of
from helpers.bot.history import Length, Window
from helpers.bot.memory import BadMemory, Memories, told
from helpers.bot.noticing import Fact, by_model, by_rules
from helpers.bot.relationship import relationship
from helpers.bot.store import Event, Memory, Store, StoreError, Turn
from helpers.bot.voices import Voice, Voices
from helpers.persona import LEVELS, Level, PersonaCard, check_emotions, system_prompt
from helpers.replies import Reply
from helpers.safety.crisis import recognise
from helpers.safety.disclosure import STRICTEST, profile
from helpers.safety.guard import PAUSE, Checked, Decision, Guard, GuardState, Register
from helpers.safety.minors import says_minor
from helpers.serve.client import ChatClient, ChatError, ContextOverflow
from helpers.serve.dotenv_file import BotSettings

MAX_WORDS = 2000  # letters in one message
Noticing = Literal["rules", "model", "off"]
_WHERE_HELP_IS = "つらいときの相談先は、/sos でいつでも見られます。"
_CUT = (
    "会話がサーバーに入りきらず、古いやりとりが{}に届かなかったので、次からは短くして送ります。"
    "（.env の COMPANION_CONTEXT に長さを書いておくと、はじめからそうします）"
)
MINORS_MOST: Level = "friend"  # how close she comes to somebody who said that they are under age


class BadWords(ValueError):
    """A message that cannot be sent; the sentence is for the user, in Japanese."""


@dataclass(frozen=True)
class Piece:
    """Something to show: `by` the guard, the companion, or the program itself, the bot."""

    text: str
    by: Literal["guard", "companion", "bot"]


def _now() -> datetime:
    return datetime.now().astimezone()


class Bot:
    """One user's talk with the companion, which goes on where it ended.

    Args:
        settings: with experts in it, each turn is answered by the one that the router picks; without, all by herself.
        jurisdiction: whose law the guard keeps, a name in `data/safety/jurisdictions.yaml`.
        emotion: her mood, a key of the card's emotions; None leaves it out of her prompt. It is not guessed from the
            user's words: the mood of the nearest training dialogues was the right one in 21 % of them, the most
            frequent mood in 18 %.
        noticing: how memories are made of what the user says without being asked: by "rules", by the "model" (where
            the server knows structured output; else by rules, and the user is told), or not ("off").
        most_memories: how many memories she is told at a time.
        context: tokens of prompt and reply together; None takes the settings', and without one there asks the server.
        max_tokens, temperature: the most tokens of a reply, and how freely it is sampled; None takes the settings'.
        timeout: seconds of silence after which the server is given up.

    Attributes:
        notices: what the user should know of the last turn, in Japanese: what she remembers from now on, that the two
            are closer, that she no longer sees the oldest exchanges.

    Raises:
        ValueError: no name for a user, or no such emotion or jurisdiction.
        StoreError: here and in all methods.
    """

    def __init__(
        self,
        settings: BotSettings,
        card: PersonaCard,
        store: Store,
        user: str,
        *,
        jurisdiction: str = STRICTEST,
        emotion: str | None = None,
        noticing: Noticing = "rules",
        most_memories: int = 3,
        context: int | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int = 0,
        timeout: float = 60,
        clock: Callable[[], datetime] = _now,
    ):
        if emotion is not None:
            check_emotions(card, [emotion])
        self.card, self.clock = card, clock
        self.client = ChatClient(settings.url, settings.api_key, settings.name, timeout=timeout)
        self._voices = Voices(settings.experts, recognise) if settings.experts else None
        self._profile = profile(jurisdiction)
        self._meet(store, user)
        self.notices: list[str] = []
        self._emotion, self._noticing, self._most_memories = emotion, noticing, most_memories
        self._context, self._length = settings.context if context is None else context, None
        self._max_tokens = settings.max_tokens if max_tokens is None else max_tokens
        self._temperature = settings.temperature if temperature is None else temperature
        self._seed = seed

    def _meet(self, store: Store, user: str, minor: bool = False) -> None:
        """Begin with a user; `minor` is what this talk alone knows, and is not kept."""
        self.account = store.account(user, self.card.reading, self.clock())
        self.memories = Memories(self.account)
        self.log = ChatLog(self.account, store.path.parent / "exports", lambda: self.under_age)
        self._guard, self._minor = Guard(self.card, self._profile, self.clock), minor
        self._read = self._guard.state  # what the guard was told of the user, or what of it was kept since

    @property
    def level(self) -> Level:
        """How close the two are: the level that the user pinned, else where their talk has led; with somebody who said
        that they are under age, at most `MINORS_MOST`."""
        level = self.account.pinned or relationship(self.account.events()).level
        return min(level, MINORS_MOST, key=LEVELS.index) if self.under_age else level

    @property
    def under_age(self) -> bool:
        """Whether the user said to be under age, in whichever window."""
        return self._minor or self._kept_state().minor

    @property
    def points(self) -> float:
        """Where the talk has led, in points, see `relationship`."""
        return relationship(self.account.events()).points

    @property
    def voice(self) -> Voice | None:
        """Which expert answered last, and why; None without experts, or before the first exchange."""
        turns = self.account.turns(most=Voices.most)
        return self._voices.of(turns) if self._voices and turns else None

    def opening(self) -> str:
        """What is shown before the first turn: that she is an AI, as the law asks, and where help is to be found."""
        self._tell_guard()
        notices = [self._guard.opening(), _WHERE_HELP_IS]
        with suppress(StoreError):  # It is shown whether or not it can be kept that it was.
            notices.append(self._keep_guards_state())
        return "\n".join(filter(None, notices))

    def help_lines(self) -> str:
        """All help lines, for whoever asks for them."""
        self._tell_guard()
        return self._guard.help_lines()

    def pin(self, level: Level | None) -> None:
        """Hold the relationship at `level`; None lets it move again.

        Raises:
            ValueError: there is no such level.
        """
        if level is not None and level not in LEVELS:
            raise ValueError(f"Unknown relationship level {level!r}; use one of {', '.join(LEVELS)}.")
        self.account.pinned = level

    def say(self, words: str) -> Generator[Piece, None, Reply]:
        """Say something to her; yields what is to be shown, and returns her whole reply.

        Raises:
            BadWords: nothing said, too much, or no text.
            ChatError: the server could not be asked, or the message does not fit into its context.
        """
        self.notices = []
        if readable(words):
            decision = yield from self.hear(words)
        words, now = clean(words), self.clock()
        if len(words) > MAX_WORDS:
            raise BadWords(f"{len(words):,}文字は一度に送れません。{MAX_WORDS:,}文字までに分けてください。")
        if not decision.ask:
            return Reply(decision.first, True, 0)
        told_now = self.memories.recall(self._about(words), now.date(), self._most_memories)
        turn = Turn(now, words, "", self.level, self._emotion, tuple(memory.number for memory in told_now))
        window = self._window(turn, [told(memory, now.date()) for memory in told_now], decision)
        reply, changed = yield from self._answer(window, self._speaker(turn))
        if notice := self._keep_guards_state():
            self.notices.append(notice)
        ordinary = not changed and decision.crisis is None
        facts = self._facts(turn) if decision.crisis is None else []
        self._keep(replace(turn, reply=reply.text, logged=ordinary), window, facts, decision)
        return reply

    def hear(self, words: str, turn: bool = True) -> Generator[Piece, None, Decision]:
        """Have the guard read what the user writes, whatever it is for; yields what it has to say, and returns what it
        decides. It reads what is whole in the words, and of very long ones the beginning and the end. `turn` is whether
        she will answer them.

        Who is known to be under age from now on, or was so and allowed that his talks are learned from: what he allowed
        is taken back, and he is told.
        """
        register: Register = "polite"
        with suppress(StoreError):  # Help comes first; what is asked of the database next says what is wrong with it.
            self._tell_guard()
            register = self._register
        words = readable(words)
        if len(words) > 2 * MAX_WORDS:
            words = f"{words[:MAX_WORDS]}\n{words[-MAX_WORDS:]}"
        if says_minor(words, self._guard.state.asked_age) is not None:
            self._minor = False  # said anew, and kept again
        decision = self._guard.before(words, register, turn)
        try:
            if decision.first:
                yield Piece(f"{decision.first}\n", "guard")
        finally:
            notice = self._keep_guards_state()
        if notice:
            yield Piece(f"{notice}\n", "guard")
        return decision

    def forget(self, number: int) -> list[Memory]:
        """Forget a memory, see `memory`; what was handed over for learning is taken back, since it may tell of it. The
        user can ask again if that fails.

        Raises:
            BadMemory: no memory has this number.
        """
        self.memories.history(number)
        self.log.delete_files()
        # Again, for what another window has handed over since: all windows wait now, so that it should not take long.
        return self.memories.forget(number, self.log.delete_files)

    def delete(self) -> bool:
        """Delete all that is kept of the user, with every companion, and begin anew. Whether they said that they are
        under age: until this talk ends she treats them so, and nothing of it is kept."""
        store, user, minor = self.account.store, self.account.user, self.under_age
        self.log.take_back()
        try:
            store.delete(user)
        finally:  # though what is deleted could not be overwritten yet
            self._meet(store, user, minor)
        return minor

    # -- One turn --------------------------------------------------------------------------------------------------

    @property
    def _register(self) -> Register:
        return self.card.levels[self.level].register_

    def _kept_state(self) -> GuardState:
        kept = self.account.guard
        return GuardState.model_validate_json(kept) if kept else GuardState()

    def _tell_guard(self) -> None:
        """Tell the guard what is kept of the user, from other windows too. If she asked for his age in this one, it is
        in this one that he answers."""
        self._read = self._kept_state()
        known = {
            "minor": self._read.minor or self._minor,
            "asked_age": self._read.asked_age or self._guard.state.asked_age,
        }
        self._guard.state = self._read.model_copy(update=known)

    def _keep_guards_state(self) -> str:
        """Keep what the guard has understood since it was told what is kept, beside what other windows kept meanwhile.
        A sentence for the user if, since he is under age, what he allowed was taken back; else empty."""
        now = self._guard.state
        if self._minor:
            now = now.model_copy(update={"minor": self._read.minor})
        with self.account.store.transaction():
            kept = _joined(self._kept_state(), self._read, now)
            self.account.guard = kept.model_dump_json()
            minor = kept.minor or self._minor
            allowed = minor and self.log.end()
        self._read = now.model_copy(update={"minor": kept.minor})
        self._guard.state = now.model_copy(update={"minor": minor})
        return self._take_back(allowed) if minor else ""

    def _take_back(self, allowed: bool) -> str:
        """Delete what a minor has handed over. A sentence for the user, if there was any or it was `allowed`."""
        try:
            changed = self.log.delete_files()
        except (OSError, ValueError) as error:
            return f"{UNDER_AGE}書き出したものは消せませんでした。/consent off でもう一度消せます。（{error}）"
        return f"{UNDER_AGE}これまでの分も取り消しました。{taken_back(changed)}" if allowed or changed else ""

    def _about(self, words: str) -> str:
        """What is talked about: these words and the user's words before them."""
        return "\n".join([*(turn.words for turn in self.account.turns(most=1)), words])

    def _window(self, turn: Turn, memories: Sequence[str], decision: Decision) -> Window:
        """What she reads of the talk before this turn, made to fit."""

        def prompt(summary: str) -> str:
            before = [f"これまでの話では、{summary}"] if summary else []
            system = system_prompt(self.card, turn.level, turn.emotion, [*memories, *before])
            return f"{system}\n{decision.system}" if decision.system else system

        window = Window(self.client, self.card, self.account, turn.words, prompt)
        if self._length is None:
            self._length = Length(self.client, self._context)
        window.fit(self._length, self._max_tokens)
        return window

    def _speaker(self, turn: Turn) -> str | None:
        """The name of the expert that is asked; None for herself."""
        if self._voices is None:
            return None
        return self._voices.of([*self.account.turns(most=Voices.most - 1), turn]).name

    def _answer(self, window: Window, speaker: str | None) -> Generator[Piece, None, tuple[Reply, bool]]:
        """The reply of the `speaker`, and whether the guard changed it."""
        while True:
            chat, replies = window.chat(), []
            try:
                screened = self._guard.screen(self._stream(chat, replies, speaker), self._register)
                checked = yield from _pieces(screened)
                break
            except ContextOverflow:
                window.shorten()
        reply = replies[0] if replies else Reply(checked.text, True, 0)
        if self._length.learn(chat, reply.prompt_tokens):
            window.notices.append(_CUT.format(self.card.name))
        if not checked.text.strip():
            raise ChatError("She said nothing: say it again, or in other words.")
        return replace(reply, text=checked.text.strip()), checked.reason is not None

    def _stream(
        self, chat: Sequence[dict[str, str]], replies: list[Reply], speaker: str | None
    ) -> Generator[str, None, None]:
        """The pieces of her reply; the whole is put into `replies` at the end."""
        sampled = {"max_tokens": self._max_tokens, "temperature": self._temperature, "seed": self._seed + len(chat)}
        with closing(self.client.stream(chat, model=speaker, **sampled)) as stream:
            replies.append((yield from self._watched(stream)))

    def _watched(self, stream: Generator[str, None, Reply]) -> Generator[str, None, Reply]:
        """`stream`; before each piece of it is read the guard learns whether the user has said in another window, while
        she was asked, that he is under age."""
        while True:
            try:
                piece = next(stream)
            except StopIteration as end:
                return end.value
            if self.under_age:
                self._guard.state = self._guard.state.model_copy(update={"minor": True})
            yield piece

    def _facts(self, turn: Turn) -> list[tuple[Fact, str]]:
        """What is worth remembering of the user's words, each with how it was found."""
        if self._noticing == "off" or not self.account.notices:
            return []
        if self._noticing == "model":
            try:
                return [(fact, "model") for fact in by_model(self.client, turn.words)]
            except ChatError:
                self.notices.append("サーバーが記憶の抜き出しに応じないので、決まった言い方だけを覚えます。")
        return [(fact, "rules") for fact in by_rules(turn.words, turn.at.date(), self.card.name)]

    def _keep(self, turn: Turn, window: Window, facts: Sequence[tuple[Fact, str]], decision: Decision) -> None:
        """All that is kept of a turn, at once. What the user allowed may have changed while she was asked: it is logged
        only if that is allowed now, and was so when the user spoke."""
        account = self.account
        earlier = account.turns(most=5)
        said = [one.words for one in earlier]
        heard = earlier[-1].reply if earlier and turn.at - earlier[-1].at < PAUSE else ""
        with account.store.transaction():
            kept = account.add_turn(replace(turn, logged=turn.logged and self.log.allows(turn.at)))
            if decision.crisis is None:
                account.add_event(Event(turn.at, kind_of(turn.words, said, self.card, heard)))
            window.keep()
            noticed = facts if account.notices else []
            new = [memory for fact, source in noticed if (memory := self._remember(fact, source, kept))]
        self.notices += window.notices
        self.notices += [f"覚えました：{memory.text}" for memory in new]
        if (level := self.level) != turn.level:
            self.notices.append(f"関係が「{self.card.levels[level].label}」になりました。")

    def _remember(self, fact: Fact, source: str, turn: Turn) -> Memory | None:
        """The new memory, if it is one and can be one."""
        known = {memory.number for memory in self.memories.all()}
        try:
            memory = self.memories.add(fact, source, turn.at, turn.number)
        except BadMemory:
            return None
        return None if memory.number in known else memory


def _pieces(screened: Generator[str, None, Checked]) -> Generator[Piece, None, Checked]:
    while True:
        try:
            yield Piece(next(screened), "companion")
        except StopIteration as end:
            return end.value


def _joined(kept: GuardState, read: GuardState, now: GuardState) -> GuardState:
    """What is to be kept of the user after the guard of this window, told `read`, has come to `now`, while those of
    others may have `kept` more: what this one changed. But of two times the later counts, who is under age stays so,
    and his question if she is an AI holds for as long as the window says in which he asked last."""
    changed = {name: value for name, value in now if value != getattr(read, name)}
    for name in ("told", "reminded", "spoke"):
        if name in changed and (there := getattr(kept, name)) is not None:
            changed[name] = max(changed[name], there)
    if "helped" in changed:
        last = now if kept.helped is None or kept.helped <= now.helped else kept
        changed |= {"helped": last.helped, "kind": last.kind}
    if "asking" in changed and kept.asking > read.asking:
        changed["asking"] = max(now.asking, kept.asking)
    return kept.model_copy(update=changed | {"minor": kept.minor or changed.get("minor", False)})


def readable(words: str) -> str:
    """What can be read of a message: no broken bytes, no control characters, and no white space around it."""
    whole = words.encode("utf-8", "ignore").decode("utf-8")
    return "".join(c for c in whole if c in "\n\t" or unicodedata.category(c) != "Cc").strip()


def clean(words: str) -> str:
    """A message as it is sent, see `readable`.

    Raises:
        BadWords: nothing is left, or it is no whole text.
    """
    try:
        words.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadWords("文字が壊れていて読めません。文字コードをUTF-8にして、もう一度送ってください。") from error
    if not (words := readable(words)):
        raise BadWords("メッセージが空です。何か書いて送ってください。")
    return words
