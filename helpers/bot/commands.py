"""What a user can ask of the bot besides talking: lines that begin with a slash.

In: such a line. Out: what is shown for it, in Japanese. Nothing of it goes to the server, nor into the talk; but the
guard reads the words in it as it reads those that are said to her.
"""

import re
from collections.abc import Callable, Iterator

from helpers.bot.chat_log import UNDER_AGE, NothingLogged, taken_back
from helpers.bot.companion import Bot, Piece
from helpers.bot.memory import BadMemory, listed
from helpers.bot.noticing import Fact
from helpers.bot.relationship import explain
from helpers.persona import LEVELS, Level
from helpers.safety.guard import Decision

HELP = """\
/remember 言葉　　覚えてもらう（例：/remember 犬の名前はモカ）
/memories　　　　覚えていることの一覧
/correct 番号 言葉　覚えていることを直す
/history 番号　　直す前に何と覚えていたか
/forget 番号　　　忘れてもらう（それを話したやりとりと、会話のあらすじも消えます）
/notice on・off　話の中から自分で覚えるかどうか
/level　　　　　　いまの関係（/level 友達 で固定、/level auto で元に戻す）
/why　　　　　　　なぜその関係なのか（声がいくつもあるときは、最後に答えた声も）
/consent on・off　会話を学習に使ってよいかどうか（はじめは off。off にすると、それまでの分も使われません）
/export　　　　　学習用に会話を書き出す（/consent on のあとの会話だけ。18歳未満の方の分は書き出しません）
/delete　　　　　あなたの記録をすべて消す
/sos　　　　　　　つらいときの電話相談先
/quit　　　　　　終わる"""

_COMMAND = re.compile(r"/([a-z]+)(?:[\s　]+(.*))?", re.DOTALL)
_SURE = "はい"
_STILL_MINOR = "18歳未満だと聞いたことだけは、記録に残さずに、このおしゃべりが終わるまで守ります。"
_NUMBERED = ("correct", "history", "forget")  # A memory's number comes first, and is nobody's age.
_NUMBER = re.compile(r"\A\d+[.番]?(?:\s+|\Z)")
_REMEMBERING = ("remember", "correct")


def is_command(line: str) -> bool:
    """Whether a line is a command; "/(^o^)/" and "/今日" are talk."""
    return bool(_COMMAND.fullmatch(line.strip()))


class Commands:
    """The commands of one bot."""

    def __init__(self, bot: Bot):
        self._bot = bot
        self._known: dict[str, Callable[[str], str]] = {
            "help": lambda _: HELP,
            "remember": self._remember,
            "memories": self._memories,
            "correct": self._correct,
            "history": self._history,
            "forget": self._forget,
            "notice": self._notice,
            "level": self._level,
            "why": self._why,
            "consent": self._consent,
            "export": self._export,
            "delete": self._delete,
            "sos": lambda _: self._bot.help_lines(),
        }

    def run(self, line: str) -> Iterator[Piece]:
        """Yields what is shown for a command: what the guard has to say of the words in it, and the answer, which for a
        command that is wrong says how it is right. Words of a crisis are not remembered, nor what a minor asks in vain.

        Raises:
            StoreError: the database cannot be used.
        """
        name, rest = _COMMAND.fullmatch(line.strip()).groups()
        rest = (rest or "").strip()
        words = _NUMBER.sub("", rest) if name in _NUMBERED else rest
        decision = (yield from self._bot.hear(words, turn=False)) if words else None
        refused = _refusal(decision) if decision and name in _REMEMBERING else ""
        yield Piece(f"{refused or self._answer(name, rest)}\n", "bot")

    def _answer(self, name: str, rest: str) -> str:
        if name not in self._known:
            return f"/{name} という命令はありません。/help で一覧が見られます。"
        try:
            return self._known[name](rest)
        except (BadMemory, NothingLogged) as error:
            return str(error)

    def _remember(self, text: str) -> str:
        memory = self._bot.memories.add(Fact(text), "command", self._bot.clock())
        return f"覚えました：{memory.text}"

    def _memories(self, _: str) -> str:
        lines = listed(self._bot.memories.all())
        return "\n".join(lines) if lines else "まだ何も覚えていません。"

    def _correct(self, text: str) -> str:
        number, *words = text.split(maxsplit=1) or [""]
        memory = self._bot.memories.correct(_number(number), "".join(words), self._bot.clock())
        return f"直しました：{memory.number}. {memory.text}"

    def _history(self, text: str) -> str:
        versions = self._bot.memories.history(_number(text))
        return "\n".join(f"{m.at.month}月{m.at.day}日から：{m.text}" for m in versions)

    def _forget(self, text: str) -> str:
        forgotten = self._bot.forget(_number(text))
        return (
            f"忘れました：{forgotten[-1].text}\n"
            "それを話したやりとりと会話のあらすじも消しました。ほかの会話に出てきた言葉は残ります。"
        )

    def _notice(self, text: str) -> str:
        if text not in ("on", "off"):
            state = "覚えます（on）" if self._bot.account.notices else "覚えません（off）"
            return f"いまは、話の中から自分で{state}。/notice on か /notice off で変えられます。"
        self._bot.account.notices = text == "on"
        return "話の中から自分で覚えます。" if text == "on" else "頼まれたことだけを覚えます。"

    def _level(self, text: str) -> str:
        card = self._bot.card
        labels = {card.levels[level].label: level for level in LEVELS} | {level: level for level in LEVELS}
        if text == "auto":
            self._bot.pin(None)
        elif text in labels:
            self._bot.pin(labels[text])
        elif text:
            return f"「{text}」という関係はありません。{self._choices()}"
        return f"いまの関係は「{self._label(self._bot.level)}」です。{'' if text else self._choices()}"

    def _choices(self) -> str:
        return f"/level のあとに {'・'.join(self._label(level) for level in LEVELS)}・auto のどれかを書けます。"

    def _label(self, level: Level) -> str:
        return self._bot.card.levels[level].label

    def _why(self, _: str) -> str:
        account, voice = self._bot.account, self._bot.voice
        lines = explain(account.events(), self._bot.card, account.pinned)
        return "\n".join([*lines, voice.explained] if voice else lines)

    def _consent(self, text: str) -> str:
        if text == "on":
            self._bot.log.allow(self._bot.clock())
            return (
                "これからの会話を学習に使ってよいものとして記録します。書き出すのは /export のときだけです。\n"
                "名前などは学習の前に置き換えられますが、/consent off でいつでもやめられます。\n"
                "18歳未満だと分かったときは、それまでの分も取り消します。"
            )
        if text == "off":
            return "会話は学習に使われません。" + taken_back(self._bot.log.take_back())
        if self._bot.under_age:
            return UNDER_AGE
        since = self._bot.account.consent_since
        state = f"{since.month}月{since.day}日から使ってよいことになっています" if since else "使われません"
        return f"いま、会話は学習に{state}。/consent on か /consent off で変えられます。"

    def _export(self, _: str) -> str:
        path = self._bot.log.export()
        return f"書き出しました：{path}\n同意の記録も同じフォルダーにあります。"

    def _delete(self, text: str) -> str:
        if text != _SURE:
            return (
                "会話、記憶、関係、同意、書き出した会話がすべて消え、元に戻せません。"
                f"消すには /delete {_SURE} と書いてください。"
            )
        return "あなたの記録をすべて消しました。" + (_STILL_MINOR if self._bot.delete() else "")


def _refusal(decision: Decision) -> str:
    """Why words are not remembered after what the guard has said of them; empty if they may be."""
    if decision.crisis:
        return "この言葉は、覚えることには加えませんでした。話したいことがあれば、そのまま書いてください。"
    return "" if decision.ask else "これは覚えません。"


def _number(text: str) -> int:
    digits = text.strip().rstrip(".番")
    if not digits.isdecimal() or len(digits) > 9:
        raise BadMemory("番号を書いてください。番号は /memories で見られます。")
    return int(digits)
