"""Chatting with the companion that was trained last: `python -m helpers.serve.chat`, which is `make chat`.

In: the newest finished run. Out: a talk in the terminal with its merged model, or with --serve a server for other
programs. The server goes away with the talk, or with Ctrl-C.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from helpers import records
from helpers.persona import LEVELS, load_persona
from helpers.serve.bot import Bot, talk
from helpers.serve.client import ChatError
from helpers.serve.dotenv_file import BotSettings, write_dotenv
from helpers.serve.server import ServerError, VLLMServer
from helpers.settings import OUTPUTS, PARAMETERS, PROFILES

STAGE = "06_merge_quantize"


def newest_run(outputs: Path = OUTPUTS) -> Path:
    """The run whose merge finished last, those of profile smoke (random weights) left out.

    Raises:
        records.MissingStage: there is none.
    """
    finished = {}
    for run in outputs.iterdir() if outputs.is_dir() else ():
        record = next(r for r in records.status(run) if r["stage"] == STAGE)
        if record["status"] == "complete" and record["settings"]["profile"] != "smoke":
            finished[run] = record["finished"]
    if not finished:
        raise records.MissingStage("No companion has been trained here yet: run `make course` first.")
    return max(finished, key=finished.get)


def serve(server: VLLMServer, found: BotSettings, env: Path) -> None:
    """Keep the server up until Ctrl-C. Meanwhile `env` says where it is; it goes away with the server's key.

    Raises:
        ServerError: the server ended by itself.
    """
    write_dotenv(env, found)
    shown = os.path.relpath(env)
    sys.stdout.write(
        f"{found.name} answers at {found.url}. Her name and the server's key are in {shown}; Ctrl-C ends.\n"
        f"To talk to her: python -m helpers.serve.bot --env {shown}\n"
    )
    sys.stdout.flush()
    try:
        while server.running:
            time.sleep(1)
        raise ServerError(f"The server ended by itself; the end of its log:\n{server.log_tail()}")
    except KeyboardInterrupt:
        pass
    finally:
        env.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 after a talk, 1 with one sentence on standard error if it could not be held."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.serve.chat", description="Chat with the companion of a run."
    )
    parser.add_argument("--run-name", help="a run in outputs/ (default: the newest finished one)")
    parser.add_argument("--level", choices=LEVELS, default="friend", help="how close the two are")
    parser.add_argument("--serve", action="store_true", help="no talk: keep the server up for other programs")
    options = parser.parse_args(arguments)
    try:
        merge = records.load(OUTPUTS / options.run_name if options.run_name else newest_run(), STAGE)
        settings = merge.record["settings"]
        card = load_persona(settings["persona"])
        serving = PARAMETERS["07_serve_vllm"]
        values = {name: serving[name][PROFILES.index(settings["profile"])] for name in ("port", "max_model_len")}
        with (
            tempfile.TemporaryDirectory() as folder,
            VLLMServer(merge / "merged", card.reading, Path(folder), **values) as server,
        ):
            found = BotSettings(server.base_url, server.name, server.api_key)
            if options.serve:
                serve(server, found, merge.folder.parent / "bot.env")
            else:
                talk(Bot(found, card, level=options.level), card)
    except (ChatError, ServerError, records.MissingStage, records.Mismatch) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
