"""What a run has learned on line, and whether it was learned on top of what the run has now.

In: a run. Out: the adapter that is current, or a refusal. `<run>/online/origin.json` says what learning began from: the
base model, the chat template, and the adapter that 06 merged. Once one of them is another, what was learned on top fits
nothing; where nothing was learned yet, nothing is lost and learning begins anew.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers import records
from helpers.files import write_atomically

ONLINE = Path("online", "adapters")  # in a run: where `helpers.online` keeps its adapters
ORIGIN = "origin.json"
EXPORT = "06_merge_quantize"
_WHAT = records.SHARED | {"adapter_sha256": "starting adapter"}


def begin(run: Path, adapter: Path) -> None:
    """Have learning on line begin from `adapter`, which 06 merged, with nothing learned.

    Raises:
        MissingStage, Mismatch: see `records.load`, of the stage that trained the adapter.
    """
    from helpers.train import continual

    continual.begin(run / ONLINE, adapter)
    # Last: killed before it, the next call finds that nothing was learned, and begins again.
    write_atomically(_file(run), json.dumps(_origin(run), indent=1))


def learned_on_line(run: Path) -> Path | None:
    """The adapter that is current in a run that has learned on line, None in another, or where nothing was learned on
    top of an origin that the run no longer has.

    Raises:
        MissingStage: 06, or the stage whose adapter it merged, was not run to its end.
        Mismatch: something was learned on top of another origin, or the adapter was changed.
    """
    from helpers.train import continual

    folder = run / ONLINE
    if not (folder / continual.CURRENT).exists():
        return None
    if why := _differs(run):
        if len(continual.learned_exchanges(folder)) == 1:
            return None
        raise records.Mismatch(
            f"What run {run.name!r} has learned on line {why}: to begin anew from what it has now, move the folder "
            f"{run.name}/{ONLINE.parent} out of the run."
        )
    return continual.current_adapter(folder)


@dataclass(frozen=True)
class Standing:
    """What a server of a run builds on: when the adapter that is current became so, in nanoseconds (None where nothing
    ever was), and the hashes of the base model and the chat template."""

    current: int | None
    trained_on: Mapping[str, str | None]


def standing(run: Path) -> Standing:
    """How it stands now."""
    export = _export(run)
    return Standing(became_current(run), {note: export.get(note) for note in records.SHARED})


def became_current(run: Path) -> int | None:
    """See `Standing.current`."""
    from helpers.train import continual

    file = run / ONLINE / continual.CURRENT
    return file.stat().st_mtime_ns if file.exists() else None


def _differs(run: Path) -> str | None:
    """In what the origin is another than the run has now, or None."""
    if not _file(run).exists():
        return "has no record of the base model and the adapter that it began from"
    began, now = json.loads(_file(run).read_text(encoding="utf-8")), _origin(run)
    what = [name for note, name in _WHAT.items() if began.get(note, now[note]) != now[note]]
    return f"began from another {' and another '.join(what)} than it has now" if what else None


def _origin(run: Path) -> dict[str, str | None]:
    """What the run has now. 06's record alone is read: its artifacts are large, and who serves them checks them."""
    export = _export(run)
    if export["status"] != "complete":
        raise records.MissingStage(f"Stage {EXPORT} of run {run.name!r} was not run to its end: run it first.")
    trained = records.load(run, export["settings"]["adapter"])
    notes = {note: export.get(note) for note in records.SHARED}
    return notes | {"adapter_sha256": records.artifact_sha256(trained.adapter)}


def _export(run: Path) -> dict:
    return next(record for record in records.status(run) if record["stage"] == EXPORT)


def _file(run: Path) -> Path:
    return run / ONLINE.parent / ORIGIN
