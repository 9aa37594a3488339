"""The server of the companion that was trained last: `python -m helpers.serve.trained` keeps it up for other programs.

In: the newest finished run, or one by name. Out: a server of its merged model (of a run that has learned on line, or
with experts, of its base with her current adapter, under the same name, and with the experts), and in `bot.env` of the
run where it is; both go away with the caller, with Ctrl-C or with SIGTERM. A run is served only if 07 has compared a
server of its weights with transformers; an adapter that was learned on line is younger, and there because it passed its
trial on a server of the same base. Kept up, a server with adapters takes the one that becomes current meanwhile; a
merged model has no adapter that could give way, and is served until the next start.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from helpers import records
from helpers.files import locked
from helpers.persona import load_persona
from helpers.processes import exit_on_sigterm
from helpers.serve.dotenv_file import BotSettings, write_dotenv
from helpers.serve.on_line import ONLINE, Standing, became_current, learned_on_line, standing
from helpers.serve.server import MOST_OF_A_GPU, SIZES, ServerError, VLLMServer
from helpers.settings import OUTPUTS, resolve

_ANOTHER = "{} answers as before, for the run has another base model or chat template now: start the server anew."
STAGE, EXPERTS_STAGE, PARITY_STAGE = "06_merge_quantize", "03_lora", "07_serve_vllm"


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


@contextmanager
def trained_server(
    run_name: str | None, folder: Path, outputs: Path = OUTPUTS, experts: bool = False, **more
) -> Iterator[tuple[VLLMServer, str]]:
    """A server of a run's companion, of the sizes that 07 was run with, and the name of the persona card that she was
    trained for.

    Args:
        run_name: a run in `outputs`; None for the newest finished one.
        folder: where the log goes; every server that runs has one of its own.
        experts: whether her experts are served beside her.
        more: what else `VLLMServer` takes.

    Raises:
        records.MissingStage, records.Mismatch: there is no such run, it has no experts, an adapter was changed, what
            was learned on line went on from another, or 07 has not compared these weights, or not on this base.
        ServerError: the server did not start.
    """
    merge = records.load(outputs / run_name if run_name else newest_run(outputs), STAGE)
    settings = merge.record["settings"]
    name = load_persona(settings["persona"]).reading
    adapters = served_adapters(merge, name, experts)
    compared = check_compared(merge, adapters.values())
    serving = resolve(PARITY_STAGE, compared.record["settings"])
    sizes = {size: getattr(serving, size) for size in SIZES} | more
    if adapters:
        from helpers.base_model import resolve_base_model  # the bot should not load transformers for its import

        base = resolve_base_model(settings["base_model"])
        if base.sha256 != merge.record.get("base_sha256"):
            run = merge.folder.parent.name
            raise records.Mismatch(f"Run {run!r} was trained on another {base.name!r} than is here now.")
        server = VLLMServer(base.path, f"{name}-base", folder, adapters=adapters, **sizes)
    else:
        server = VLLMServer(merge / "merged", name, folder, **sizes)
    with server:
        yield server, settings["persona"]


def check_compared(merge: records.Artifacts, adapters: Iterable[Path]) -> records.Artifacts:
    """What 07 left, if it came to its end, which it does only where a server reads and answers as training left her, on
    what 06 has made since and with these `adapters`, but for those that were learned on line.

    Raises:
        records.MissingStage, records.Mismatch: it did not.
    """
    run = merge.folder.parent
    again = f"run `python -m helpers.course run --only {PARITY_STAGE.split('_')[0]} --run-name {run.name}`."
    try:
        compared = records.load(run, PARITY_STAGE)
    except records.MissingStage as error:
        raise records.MissingStage(
            f"She is not served before {PARITY_STAGE} of run {run.name!r} has compared a server of these weights with "
            f"transformers, to its end: {again}"
        ) from error
    known = compared.record["metrics"].get("compared_adapters", {}).values()
    trained = [folder for folder in adapters if not folder.is_relative_to(run / ONLINE)]
    unknown = [str(folder.relative_to(run)) for folder in trained if records.artifact_sha256(folder) not in known]
    if compared.record["inputs"].get(STAGE) != merge.sha256:
        unknown.append(STAGE)
    if unknown:
        raise records.Mismatch(
            f"{PARITY_STAGE} of run {run.name!r} compared other weights with transformers than {unknown[0]} has now: "
            f"{again}"
        )
    return compared


def served_adapters(merge: records.Artifacts, name: str, experts: bool) -> dict[str, Path]:
    """The adapters that are served on her base, by their names: her own first, under `name`; none where she is the
    merged model.

    Raises:
        records.MissingStage, records.Mismatch: the run has no experts, or an adapter is not that of what 06 merged, or
            not learned on top of it.
    """
    run = merge.folder.parent
    current = learned_on_line(run)
    if not experts:
        return {name: current} if current else {}
    lora = records.load(run, EXPERTS_STAGE)
    folders = lora.record["metrics"].get("experts")
    if not folders:
        raise records.MissingStage(
            f"{EXPERTS_STAGE} of run {run.name!r} trained no experts; its parameter is expert_rows."
        )
    differs = [what for note, what in records.SHARED.items() if lora.record.get(note) != merge.record.get(note)]
    if differs:
        raise records.Mismatch(
            f"The experts of run {run.name!r} were made with another {' and another '.join(differs)} than what {STAGE} "
            f"merged: run {EXPERTS_STAGE} to {STAGE} again."
        )
    own = {name: current or _merged_adapter(merge)}
    return own | {f"{name}-{scene}": lora / folder for scene, folder in folders.items()}


def _merged_adapter(merge: records.Artifacts) -> Path:
    run, stage = merge.folder.parent, merge.record["settings"]["adapter"]
    trained = records.load(run, stage)
    if trained.sha256 != merge.record["inputs"][stage]:
        raise records.Mismatch(f"{stage} of run {run.name!r} was run again since {STAGE} merged it: run {STAGE} again.")
    return trained.adapter


def name_of(server: VLLMServer) -> str:
    """The name by which she is asked for: her adapter's if she is one, else the model's."""
    return next(iter(server.adapters), server.name)


def bot_settings(server: VLLMServer) -> BotSettings:
    """What a bot needs to talk to her, and to the experts that are served beside her."""
    name = name_of(server)
    experts = {other.removeprefix(f"{name}-"): other for other in server.adapters if other != name}
    return BotSettings(server.base_url, name, server.api_key, experts)


def keep_up(server: VLLMServer, run: Path, before: Standing) -> None:
    """Keep the server up until Ctrl-C or SystemExit, with the adapter that is current in `run`; `before` is how the run
    stood when it was chosen what to serve. Meanwhile `bot.env` of the run says where the server is; it goes away with
    the key.

    Raises:
        ServerError: the server ended by itself.
    """
    env, followed = run / "bot.env", before.current
    shown = os.path.relpath(env)
    try:
        write_dotenv(env, bot_settings(server))
        sys.stdout.write(
            f"{name_of(server)} answers at {server.base_url}. Her name and the server's key are in {shown}; Ctrl-C "
            f"ends.\nTo talk to her: python -m helpers.bot --env {shown}\n"
        )
        sys.stdout.flush()
        while server.running:
            if (newest := became_current(run)) != followed:
                followed = newest
                anew = standing(run).trained_on != before.trained_on
                sys.stdout.write(f"{_ANOTHER.format(name_of(server)) if anew else take_over(server, run)}\n")
                sys.stdout.flush()
            time.sleep(1)
        raise ServerError(f"The server ended by itself; the end of its log:\n{server.log_tail()}")
    except KeyboardInterrupt:
        pass
    finally:
        env.unlink(missing_ok=True)


def take_over(server: VLLMServer, run: Path) -> str:
    """Have her answer with the adapter that is current in `run`, if she is one; says in a sentence what came of it."""
    name = name_of(server)
    if name not in server.adapters:
        return f"{name}, as she was merged, stays until the next start: learning on line has begun beside her."
    try:
        current = learned_on_line(run)
        if current is None:
            return f"{name} answers as before: nothing is current that was learned on top of what the run has now."
        if current.resolve() == server.adapters[name].resolve():
            return f"{name} answers with {current.parent.name} already."
        server.switch(name, current)
    except (ServerError, records.MissingStage, records.Mismatch) as error:
        return f"{name} answers as before. {error}"
    return f"{name} answers with {current.parent.name} from now on."


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 after Ctrl-C, 143 after SIGTERM, 1 with one sentence on standard error if she could not be served."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.serve.trained", description="Serve the companion of a run until Ctrl-C."
    )
    parser.add_argument("--run-name", help="a run in outputs/ (default: the newest finished one)")
    parser.add_argument("--experts", action="store_true", help="serve 03's experts beside her, for the bot to route to")
    parser.add_argument(
        "--gpu-memory-utilization",
        type=float,
        default=MOST_OF_A_GPU,
        help="share of a GPU's memory at most; less leaves room for learning on line beside it (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    exit_on_sigterm()
    try:
        run = OUTPUTS / options.run_name if options.run_name else newest_run()
        if not run.is_dir():
            raise records.MissingStage(f"There is no run {run.name!r}: `python -m helpers.course run` makes one.")
        # Its log and bot.env are one server's.
        busy = ServerError(f"Run {run.name!r} is served already, as its bot.env says: end that first.")
        with locked(run / ".served", busy):
            before = standing(run)
            more = {"experts": options.experts, "gpu_memory_utilization": options.gpu_memory_utilization}
            with trained_server(run.name, run / "logs", **more) as (server, _):
                keep_up(server, run, before)
    except (ServerError, records.MissingStage, records.Mismatch) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
