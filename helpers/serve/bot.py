"""The companion's chat client: finds her through `.env`, speaks to her as her persona card says, remembers the talk.

In: a `.env` file and a persona card. Out: `Bot`, and `python -m helpers.serve.bot`, a talk in the terminal.
"""

import argparse
import sys
from collections.abc import Generator, Sequence
from pathlib import Path

from helpers.persona import LEVELS, Level, PersonaCard, load_persona, system_prompt
from helpers.replies import Reply
from helpers.serve.client import ChatClient, ChatError, ContextOverflow
from helpers.serve.dotenv_file import BotSettings, DotenvError, read_dotenv
from helpers.settings import ROOT


class Bot:
    """One talk with the companion.

    `history` holds the turns so far, without the system prompt. When the talk outgrows the server's context, its oldest
    exchange is forgotten.
    """

    def __init__(
        self,
        settings: BotSettings,
        card: PersonaCard,
        *,
        level: Level = "friend",
        emotion: str | None = None,
        memories: Sequence[str] = (),
        max_tokens: int = 120,
        temperature: float = 0.7,
        seed: int = 0,
    ):
        self.client = ChatClient(settings.url, settings.api_key, settings.name)
        self.system = {"role": "system", "content": system_prompt(card, level, emotion, memories)}
        self.history: list[dict[str, str]] = []
        self.max_tokens, self.temperature, self.seed = max_tokens, temperature, seed

    def say(self, words: str) -> Generator[str, None, Reply]:
        """Say something to her; yields her reply in pieces, and returns it whole. A failed turn leaves no trace.

        Raises:
            ChatError: nothing said, or the server could not be asked.
        """
        turns = [*self.history, {"role": "user", "content": words}]
        while True:
            try:
                reply = yield from self.client.stream(
                    [self.system, *turns],
                    max_tokens=self.max_tokens,
                    temperature=self.temperature,
                    seed=self.seed + len(self.history),
                )
                break
            except ContextOverflow:
                if len(turns) == 1:
                    raise
                turns = turns[2:]
        self.history = [*turns, {"role": "assistant", "content": reply.text}]
        return reply


def talk(bot: Bot, card: PersonaCard) -> None:
    """A talk on the terminal, until the user ends the input (Ctrl-D) or interrupts (Ctrl-C).

    Raises:
        ChatError: the server went away.
    """
    sys.stdout.write(f"{card.name}とのおしゃべり（Ctrl-D で終わり）\n")
    try:
        while True:
            if not (words := input("あなた> ").strip()):
                continue
            sys.stdout.write(f"{card.name}> ")
            for piece in bot.say(words):
                sys.stdout.write(piece)
                sys.stdout.flush()
            sys.stdout.write("\n")
    except (EOFError, KeyboardInterrupt):
        sys.stdout.write("\nまたね。\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 after a talk, 1 with one sentence on standard error if it could not be held."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.serve.bot", description="Chat with the companion named in .env."
    )
    parser.add_argument("--env", type=Path, default=ROOT / ".env", help="the .env file (default: the project's)")
    parser.add_argument("--persona", default="sakura", help="persona card, by name or path")
    parser.add_argument("--level", choices=LEVELS, default="friend", help="how close the two are")
    options = parser.parse_args(arguments)
    try:
        card = load_persona(options.persona)
        bot = Bot(read_dotenv(options.env), card, level=options.level)
        bot.client.check()
        talk(bot, card)
    except (ChatError, DotenvError, FileNotFoundError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
