"""The chat as a widget in a notebook: who talks, the talk, what she remembers, how close the two are.

In: what a bot is made of. Out: `ChatWidget`, to be displayed, which a program can drive as a person does: fill in
`message` and click `send`. Every user in the dropdown has a bot of their own; what one has said, another never sees.
A database that cannot be used is one sentence in the talk.
"""

import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import ipywidgets as widgets

from helpers.bot.commands import Commands, is_command
from helpers.bot.companion import BadWords, Bot
from helpers.bot.memory import listed
from helpers.bot.store import StoreError
from helpers.figures import ACCENT, INK, SOFT, WARN
from helpers.serve.client import ChatError

_SHOWN = 60  # exchanges on the screen
_BUBBLE = "max-width:75%;padding:6px 12px;border-radius:12px;white-space:pre-wrap;font-size:14px;line-height:1.5"
_LOOKS = {
    "user": f"align-self:flex-end;background:{SOFT}33",
    "companion": f"align-self:flex-start;background:{ACCENT}1f",
    "guard": f"align-self:stretch;max-width:none;background:{WARN}26;border-left:4px solid {WARN}",
    "bot": "align-self:center;background:none;font-size:12px;color:#666",
}
_WIDE = widgets.Layout(width="auto")


class ChatWidget(widgets.VBox):
    """The chat of several users with one companion.

    Args:
        bot_for: makes a user's bot.
        users: their names; the first talks at first. A new name can be typed in.

    Attributes:
        users, message, send: whom to talk as, what to say, and the button that says it.
        talk: the talk as HTML.
        memories, memory, correct, forget: the list of memories, the words of the chosen one, and the buttons that put
            other words in its place or delete it.
        level: the level of the relationship: a dropdown that pins it, or lets it move.
    """

    def __init__(self, bot_for: Callable[[str], Bot], users: list[str]):
        self._bot_for, self._bots, self._shown = bot_for, {}, []
        self.users = widgets.Dropdown(options=users, description="ユーザー", layout=widgets.Layout(width="14em"))
        self._name = widgets.Text(placeholder="新しい名前", layout=widgets.Layout(width="9em"))
        self._add = widgets.Button(description="追加", layout=widgets.Layout(width="5em"))
        self.level = widgets.Dropdown(description="関係", layout=widgets.Layout(width="22em"))
        self._points = widgets.HTML()
        self.talk = widgets.HTML(layout=widgets.Layout(width="100%"))
        self.message = widgets.Text(placeholder="メッセージ（/help で使い方）", layout=widgets.Layout(flex="1"))
        self.send = widgets.Button(description="送る", button_style="primary", layout=widgets.Layout(width="6em"))
        self.memories = widgets.Select(rows=10, layout=_WIDE)
        self.memory = widgets.Text(layout=_WIDE)
        self.correct = widgets.Button(description="直す", layout=widgets.Layout(width="48%"))
        self.forget = widgets.Button(description="忘れる", layout=widgets.Layout(width="48%"))
        self._refreshing = False
        top = widgets.HBox([self.users, self._name, self._add, self.level, self._points])
        left = widgets.VBox([self.talk, widgets.HBox([self.message, self.send])], layout=widgets.Layout(width="68%"))
        right = widgets.VBox(
            [
                widgets.HTML("<b>覚えていること</b>"),
                self.memories,
                self.memory,
                widgets.HBox([self.correct, self.forget]),
            ],
            layout=widgets.Layout(width="28%", margin="0 0 0 12px"),
        )
        super().__init__([top, widgets.HBox([left, right])])
        self._connect()
        self._safely(self._open)()

    @property
    def bot(self) -> Bot:
        """The bot of the user who talks."""
        return self.bot_of(self.users.value)

    def bot_of(self, user: str) -> Bot:
        """The bot of a user."""
        if user not in self._bots:
            self._bots[user] = self._bot_for(user)
        return self._bots[user]

    def _connect(self) -> None:
        for chosen, action in ((self.users, self._open), (self.level, self._pin), (self.memories, self._choose)):
            chosen.observe(self._safely(action), "value")
        for button, action in (
            (self._add, self._add_user),
            (self.send, self._say),
            (self.correct, self._correct),
            (self.forget, self._forget),
        ):
            button.on_click(self._safely(action))
        self.message.on_submit(self._safely(self._say))

    def _safely(self, action: Callable[[], None]) -> Callable[..., None]:
        """`action`, of which a database that cannot be used makes one sentence in the talk."""

        def act(*_: object) -> None:
            try:
                action()
            except StoreError as error:
                self._show("bot", f"できませんでした。（{error}）")

        return act

    def _add_user(self) -> None:
        name = self._name.value.strip()
        try:
            self._bots[name] = self._bot_for(name)
        except ValueError as error:
            self._show("bot", str(error))
            return
        self._name.value = ""
        self.users.options = [*dict.fromkeys([*self.users.options, name])]
        self.users.value = name

    def _open(self) -> None:
        """Show the talk of the user who was chosen, where it ended."""
        self._shown = []
        self._clear()
        bot = self.bot
        self._shown.append(("guard", bot.opening()))
        for turn in bot.account.turns(most=_SHOWN // 2):
            self._shown += [("user", turn.words), ("companion", turn.reply)]
        self._draw()
        self._refresh()

    def _open_again(self, begun: int) -> None:
        """After something was deleted. What is shown since `begun` stays on the screen, and what the guard has said:
        help lines may be among it."""
        said = [one for i, one in enumerate(self._shown) if i >= begun or (i and one[0] == "guard")]
        try:
            self._open()
        finally:
            self._shown += said
            self._draw()

    def _kept(self) -> list[int]:
        """The exchanges that there are; none, if the database cannot be read."""
        with suppress(StoreError):
            return [turn.number for turn in self.bot.account.turns(most=_SHOWN)]
        return []

    def _say(self) -> None:
        words, self.message.value = self.message.value, ""
        begun = len(self._shown)
        self._show("user", words)
        if is_command(words):
            self._command(words, begun)
            return
        self.send.disabled = True
        try:
            self._answer(words)
        finally:
            self.send.disabled = False

    def _command(self, line: str, begun: int) -> None:
        """Show what a command answers. Exchanges that it deletes vanish from the screen; what is shown since `begun`
        stays."""
        before = self._kept()
        try:
            for piece in Commands(self.bot).run(line):
                self._show(piece.by, piece.text)
        finally:
            if self._kept() != before:
                self._open_again(begun)
        self._refresh()

    def _answer(self, words: str) -> None:
        begun = len(self._shown)
        try:
            for piece in self.bot.say(words):
                if len(self._shown) > begun and self._shown[-1][0] == piece.by:
                    self._shown[-1] = (piece.by, self._shown[-1][1] + piece.text)
                else:
                    self._shown.append((piece.by, piece.text))
                self._draw()
        except BadWords as error:
            self._show("bot", str(error))
        except ChatError as error:
            self._take_back(begun)
            self._show("bot", f"返事を受け取れませんでした。会話はそのまま残っています。（{error}）")
        except StoreError as error:
            self._take_back(begun)
            self._show("bot", f"いまのやりとりは記録されていません。（{error}）")
            return
        else:
            for notice in self.bot.notices:
                self._show("bot", notice)
        self._refresh()

    def _take_back(self, begun: int) -> None:
        """Take from the screen what she has said since `begun`."""
        self._shown = [one for i, one in enumerate(self._shown) if i < begun or one[0] == "guard"]

    def _pin(self) -> None:
        if self.level.value is not None and not self._refreshing:
            try:
                self.bot.pin(None if self.level.value == "auto" else self.level.value)
            finally:
                self._refresh()

    def _choose(self) -> None:
        if not self._refreshing:
            chosen = {memory.number: memory.text for memory in self.bot.memories.all()}
            self.memory.value = chosen.get(self.memories.value, "")

    def _correct(self) -> None:
        if (number := self.memories.value) is not None:
            self._command(f"/correct {number} {self.memory.value}", len(self._shown))

    def _forget(self) -> None:
        if (number := self.memories.value) is not None:
            self._command(f"/forget {number}", len(self._shown))

    def _refresh(self) -> None:
        """Show what is remembered now, and how close the two are."""
        bot = self.bot
        found, pinned, points = bot.memories.all(), bot.account.pinned, bot.points
        labels = [(stage.label, level) for level, stage in bot.card.levels.items()]
        moving = f"会話しだい（{bot.card.levels[bot.level].label}）"
        with self._filling():
            self.memories.options = [(line, m.number) for line, m in zip(listed(found), found, strict=True)]
            self.memories.value = found[-1].number if found else None
            self.memory.value = found[-1].text if found else ""
            self.level.options = [(moving, "auto"), *labels]
            self.level.value = pinned or "auto"
            self._points.value = f"<small>{points:.1f}点</small>"

    def _clear(self) -> None:
        """Show nothing of the user before, whatever can be read of the next."""
        with self._filling():
            self.memories.options = self.level.options = ()
            self.memory.value = self._points.value = ""

    @contextmanager
    def _filling(self) -> Iterator[None]:
        """While the program fills in the fields, it is not the user who chooses."""
        self._refreshing = True
        try:
            yield
        finally:
            self._refreshing = False

    def _show(self, who: str, text: str) -> None:
        self._shown.append((who, text))
        self._draw()

    def _draw(self) -> None:
        bubbles = "".join(
            f'<div style="{_BUBBLE};{_LOOKS[who]}">{html.escape(text.strip())}</div>'
            for who, text in self._shown[-_SHOWN:]
        )
        # The last is at the top of a column that runs upwards, so that the newest words are in sight.
        self.talk.value = (
            '<div style="height:420px;overflow-y:auto;display:flex;flex-direction:column-reverse;border:1px solid #ddd;'
            f'border-radius:8px;padding:10px;color:{INK}"><div style="display:flex;flex-direction:column;gap:6px">'
            f"{bubbles}</div></div>"
        )
