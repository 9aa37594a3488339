"""Chatting in the terminal: `python -m helpers.bot`, and `make chat` for the companion that was trained last.

In: a `.env` file that names a server, or with --trained the newest finished run, whose merged model (with --experts:
whose adapters) is served as long as the talk lasts. Out: a talk, of which everything is kept in one database.
"""

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from helpers import records
from helpers.bot.commands import Commands, is_command
from helpers.bot.companion import BadWords, Bot
from helpers.bot.store import Store, StoreError
from helpers.files import remove
from helpers.persona import LEVELS, load_persona
from helpers.processes import exit_on_sigterm
from helpers.safety.disclosure import STRICTEST
from helpers.serve.client import ChatError
from helpers.serve.dotenv_file import BotSettings, DotenvError, read_dotenv, temperature, tokens
from helpers.serve.server import ServerError
from helpers.serve.trained import bot_settings, trained_server
from helpers.settings import OUTPUTS, ROOT

DATABASE, LOGS = OUTPUTS / "bot" / "companion.db", OUTPUTS / "bot" / "logs"


def talk(bot: Bot) -> None:
    """A talk on standard input and output, until the user ends it (Ctrl-D, /quit) or interrupts (Ctrl-C). What could
    not be sent, answered or kept is said in a sentence, and the talk goes on."""
    name, commands = bot.card.name, Commands(bot)
    _write(f"{bot.opening()}\n\n")
    _write(f"{name}とのおしゃべり（/help で使い方、Ctrl-D で終わり）\n")
    for line in _lines("あなた> "):
        if line.strip() == "/quit":
            break
        if is_command(line):
            _command(commands, line)
        else:
            _exchange(bot, line)
    _write("またね。\n")


def _command(commands: Commands, line: str) -> None:
    try:
        for piece in commands.run(line):
            _write(piece.text)
    except StoreError as error:
        _write(f"できませんでした。（{error}）\n")


def _exchange(bot: Bot, words: str) -> None:
    speaker = None

    def end(sentence: str = "") -> None:
        _write(("\n" if speaker == "companion" else "") + sentence)

    try:
        for piece in bot.say(words):
            if piece.by != speaker:
                _write("" if piece.by == "guard" else f"{bot.card.name}> ")
                speaker = piece.by
            _write(piece.text)
        end("".join(f"（{notice}）\n" for notice in bot.notices))
    except BadWords as error:
        end(f"{error}\n")
    except ChatError as error:
        end(f"返事を受け取れませんでした。会話はそのまま残っています。（{error}）\n")
    except StoreError as error:
        end(f"いまのやりとりは記録されていません。（{error}）\n")
    except KeyboardInterrupt:
        end("取り消しました。いまの言葉は会話に残りません。\n")


def _lines(prompt: str) -> Iterator[str]:
    """What the user types, line by line, until the end or an interrupt."""
    try:
        while True:
            yield input(prompt)
    except (EOFError, KeyboardInterrupt):
        _write("\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def _server(options: argparse.Namespace) -> Iterator[tuple[BotSettings, str]]:
    """Where she answers, and the name of her persona card."""
    if options.trained is None:
        yield read_dotenv(options.env), options.persona or "sakura"
        return
    exit_on_sigterm()
    logs = LOGS / str(os.getpid())  # two talks at once have a server each; the log of one that failed stays
    with trained_server(options.trained or None, logs, experts=options.experts) as (server, name):
        yield bot_settings(server), options.persona or name
    remove(logs)


def _number(check: Callable[[str], float]) -> Callable[[str], float]:
    """`check` as the type of an option: argparse shows its sentence."""

    def checked(text: str) -> float:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(error) from error

    return checked


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.bot", description="Chat with the companion, who remembers you."
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--env", type=Path, default=ROOT / ".env", help="the .env file that names a server (default: .env)"
    )
    where.add_argument(
        "--trained",
        nargs="?",
        const="",
        metavar="RUN",
        help="serve a run in outputs/ (default: the newest finished one)",
    )
    parser.add_argument(
        "--experts", action="store_true", help="with --trained: an expert for each kind of scene, picked turn by turn"
    )
    parser.add_argument("--user", help="who you are (default: your login name)")
    parser.add_argument("--db", type=Path, default=DATABASE, help="the database (default: outputs/bot/companion.db)")
    parser.add_argument("--persona", help="persona card, by name or path (default: the run's, else sakura)")
    parser.add_argument("--jurisdiction", default=STRICTEST, help="whose law is kept (default: the strictest of all)")
    parser.add_argument(
        "--level", choices=[*LEVELS, "auto"], help="hold the relationship at a level, or let it move again"
    )
    parser.add_argument(
        "--noticing", choices=("rules", "model", "off"), default="rules", help="how she notices what to remember"
    )
    parser.add_argument(
        "--context",
        type=_number(tokens),
        help="tokens of prompt and reply together (default: COMPANION_CONTEXT in .env, else what the server says)",
    )
    parser.add_argument(
        "--temperature",
        type=_number(temperature),
        help="how freely she is sampled, 0 to 2; raise it where replies sound mechanical "
        f"(default: COMPANION_TEMPERATURE in .env, else {BotSettings.temperature})",
    )
    parser.add_argument(
        "--max-tokens",
        type=_number(tokens),
        help="the most tokens of a reply; a longer one is broken off there "
        f"(default: COMPANION_MAX_TOKENS in .env, else {BotSettings.max_tokens})",
    )
    parser.add_argument("--timeout", type=float, default=60, help="seconds of silence until the server is given up")
    options = parser.parse_args(arguments)
    if options.experts and options.trained is None:
        parser.error("--experts goes with --trained; experts on another server are named in COMPANION_EXPERTS in .env")
    return options


class _Unusable(ValueError):
    """What was asked for on the command line does not exist."""


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:  # OSError from Python 3.13 on
        raise _Unusable("This machine knows no login name of yours: say who you are with --user.") from error


def _bot(options: argparse.Namespace, found: BotSettings, persona: str, store: Store) -> Bot:
    try:
        return Bot(
            found,
            load_persona(persona),
            store,
            options.user,
            jurisdiction=options.jurisdiction,
            noticing=options.noticing,
            context=options.context,
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            timeout=options.timeout,
        )
    except (ValueError, FileNotFoundError) as error:
        raise _Unusable(error) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 after a talk, 1 with one sentence on standard error if it could not be held."""
    options = _options(arguments)
    for stream in (sys.stdin, sys.stdout):
        # What is no UTF-8 comes in as half characters, which the bot refuses in a sentence.
        stream.reconfigure(encoding="utf-8", errors="surrogateescape" if stream is sys.stdin else "replace")
    try:
        if options.user is None:
            options.user = _login()
        with _server(options) as (found, persona), Store(options.db) as store:
            bot = _bot(options, found, persona, store)
            if options.level:
                bot.pin(None if options.level == "auto" else options.level)
            bot.client.check(*found.experts.values())
            talk(bot)
    except (
        ChatError,
        DotenvError,
        ServerError,
        StoreError,
        records.MissingStage,
        FileNotFoundError,
        ValueError,
    ) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
