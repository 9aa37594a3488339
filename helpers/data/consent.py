"""Who allowed what, for chats that people really had; and how somebody's words go away again.

In: chat exports, and `consents.jsonl` beside them. Out: for each export the consent that covers it, or a refusal. A
consent that is withdrawn takes with it everything that came of its export, whoever else agreed to it: `forget` deletes
it from what runs have written, after which every later stage refuses to go on from the old data. A stage that holds it
in memory asks again when all is written (`ask_again`): it was withdrawn before, and is seen there, or it is withdrawn
after, and `forget` finds what is written.

    python -m helpers.data.consent record talk.txt --by mio
    python -m helpers.data.consent withdraw mio-1
"""

import argparse
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path

import pyarrow.parquet
from pydantic import BaseModel, ConfigDict, Field

from helpers.conversations import Conversation
from helpers.data.readers import FORMATS
from helpers.files import abandoned, locked, remove, sha256_file, write_atomically
from helpers.jsonl import BadLine, read_records
from helpers.records import at_work, status
from helpers.settings import OUTPUTS

FILE = "consents.jsonl"


class NoConsent(ValueError):
    """Nobody allowed that this export is learned from, or not any more."""


class Consent(BaseModel):
    """What one person allowed. `id` is also the source of every conversation that came of the export.

    Attributes:
        given_by: a pseudonym; who it is stands elsewhere.
        sha256: of the export as it was when they agreed. Another version needs another consent.
        format: one of `readers.FORMATS` for an export of which it cannot be told by itself.
    """

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1)
    given_by: str = Field(min_length=1)
    given_on: date
    file: str
    sha256: str
    format: str = "auto"
    withdrawn_on: date | None = None


def read_consents(folder: Path) -> list[Consent]:
    """The consents of a folder of exports; none if nobody recorded any.

    Raises:
        ValueError: a line is not sound.
    """
    if not (folder / FILE).exists():
        return []
    consents = []
    for record in read_records([folder / FILE], lambda value, _: Consent.model_validate(value)):
        if isinstance(record, BadLine):
            raise ValueError(f"{record.file}, line {record.line}: {record.reason}.")
        consents.append(record)
    return consents


def consent_for(export: Path) -> Consent:
    """The consent under which `export` may be learned from: the newest, if all who agreed to it still do.

    Raises:
        NoConsent: there is none, it was given for another version of the file, or somebody withdrew theirs.
    """
    consents = read_consents(export.parent)
    named = [c for c in consents if c.file == export.name]
    if not named:
        raise NoConsent(
            f"Nobody's consent is recorded for {export.name}: ask, then "
            f"`python -m helpers.data.consent record {export.name} --by <pseudonym>`."
        )
    digest = sha256_file(export)
    given = [c for c in named if c.sha256 == digest]
    if not given:
        raise NoConsent(
            f"{export.name} has changed since {named[-1].given_by} agreed to it: record a consent for it anew."
        )
    standing = [c for c in given if not c.withdrawn_on]
    if withdrawn := _withdrawn(consents, digest) or (None if standing else given[-1]):
        raise NoConsent(
            f"{withdrawn.given_by} withdrew on {withdrawn.withdrawn_on} what they had allowed for {export.name}: "
            "delete it."
        )
    return standing[-1]


def _withdrawn(consents: Sequence[Consent], sha256: str) -> Consent | None:
    """A withdrawn one among the newest consents that each person gave to an export, in the order of their records."""
    newest = {c.given_by: c for c in consents if c.sha256 == sha256}
    return next((c for c in newest.values() if c.withdrawn_on), None)


def require_consents(conversations: Sequence[Conversation], folder: Path) -> list[str]:
    """The consents in `folder`, or in the folders directly in it (the bot's has one a user), under which the
    conversations may be learned from: each is its conversation's source.

    Raises:
        NoConsent: a conversation came of no consent there; of one that was withdrawn, in whichever folder; or of an
            export to which somebody else withdrew theirs.
    """
    records = _all_records(folder)
    for conversation in conversations:
        source = conversation.metadata.source
        given = [c for consents in records for c in consents if c.id == source]
        if not given:
            raise NoConsent(
                f"Conversation {conversation.id!r} has the source {source!r}, and {folder / FILE} records no such "
                "consent: record one, and make the conversation with `with_source`."
            )
        if withdrawn := _taken_back(given, records):
            raise NoConsent(
                f"Conversation {conversation.id!r} rests on {source!r}, withdrawn on {withdrawn.withdrawn_on}"
                f"{'' if withdrawn in given else f' by {withdrawn.given_by}'}: delete it."
            )
    return sorted({conversation.metadata.source for conversation in conversations})


def _all_records(folder: Path) -> list[list[Consent]]:
    """The consents of `folder` and of each folder directly in it."""
    return [read_consents(place) for place in (folder, *(file.parent for file in sorted(folder.glob(f"*/{FILE}"))))]


def _taken_back(given: Sequence[Consent], records: Sequence[Sequence[Consent]]) -> Consent | None:
    """That one of `given` which was withdrawn, or somebody else's withdrawn one for the same export."""
    for consent in given:
        others = (_withdrawn(consents, consent.sha256) for consents in records)
        if withdrawn := consent if consent.withdrawn_on else next(filter(None, others), None):
            return withdrawn
    return None


def ask_again(asked: Mapping[str, Collection[str]], run: Path) -> None:
    """Ask for consents that a stage of `run` rests on whether they still stand, now that it has written everything.
    What came of an export for which one does not is deleted again from the run.

    Args:
        asked: folder of exports → the ids of the consents there.

    Raises:
        NoConsent: one was withdrawn, or is recorded no more.
    """
    gone = {}
    for folder, sources in asked.items():
        consents = read_consents(Path(folder))
        for source in sources:
            given = [c for c in consents if c.id == source]
            if not given:
                gone[source] = f"{source} stands no more in {Path(folder) / FILE}"
            elif withdrawn := _taken_back(given, [consents]):
                gone[source] = f"{withdrawn.given_by} withdrew {withdrawn.id} on {withdrawn.withdrawn_on}"
    for source in gone:
        _forget(source, run)
    if gone:
        raise NoConsent(
            f"While this ran, a consent was taken back ({'; '.join(dict.fromkeys(gone.values()))}), so what came of it "
            "was deleted again and the stage is not finished: delete the export, then run 01_data anew."
        )


def record(export: Path, given_by: str, format: str = "auto") -> Consent:
    """Write down that `given_by` agreed today to `export` as it now is, which is in `format`."""
    with _alone(export.parent):
        consents = read_consents(export.parent)
        number = sum(c.given_by == given_by for c in consents) + 1
        consent = Consent(
            id=f"{given_by}-{number}",
            given_by=given_by,
            given_on=date.today(),
            file=export.name,
            sha256=sha256_file(export),
            format=format,
        )
        _write(export.parent, [*consents, consent])
    return consent


def withdraw(folder: Path, name: str, outputs: Path = OUTPUTS) -> list[Path]:
    """Mark what the giver of the consent `name` allowed for that export as withdrawn today, and `forget` the export,
    whoever else agreed to it: the files from which something was deleted.

    Raises:
        NoConsent: there is no such consent.
    """
    with _alone(folder):
        consents = read_consents(folder)
        named = next((c for c in consents if c.id == name), None)
        if named is None:
            known = ", ".join(c.id for c in consents) or "none"
            raise NoConsent(f"There is no consent {name!r} in {folder / FILE}; there are: {known}.")
        of_export = [c for c in consents if c.sha256 == named.sha256]
        gone = {c.id for c in of_export if c.given_by == named.given_by and not c.withdrawn_on}
        _write(folder, [c.model_copy(update={"withdrawn_on": date.today()}) if c.id in gone else c for c in consents])
    return list(dict.fromkeys(file for c in of_export for file in forget(c.id, outputs)))


def forget(source: str, outputs: Path = OUTPUTS) -> list[Path]:
    """Delete every conversation of `source` from the data of all runs, and every corpus there that holds one or is not
    finished: it is made anew. With it go the figures of that stage and all executed notebooks of that run, whose tables
    may show it: 01's a talk, 03's a row, 08's a passage; and those of a run on chats whose data is not finished. Models
    that learned from them stay as they are: train them anew.

    Returns what was changed or deleted. See `not_reached`.
    """
    return [path for run in _runs(outputs) for path in _forget(source, run)]


def not_reached(outputs: Path = OUTPUTS) -> list[Path]:
    """The runs on chats or a corpus that are worked on, or whose data is not finished: what they hold in memory can
    still be written, in an executed notebook too. After their end `withdraw` once more."""
    return [run for run in _runs(outputs) if _from_outside(run) and (at_work(run) or _unfinished(run))]


def _runs(outputs: Path) -> list[Path]:
    stages = {*outputs.glob("*/0[12]_*"), *outputs.rglob("0[12]_*")}  # a run's folder may be a link, or in another
    return sorted({stage.parent for stage in stages if stage.is_dir()})


def _forget(source: str, run: Path) -> list[Path]:
    changed, shown = [], _from_outside(run) and _unfinished(run)
    for stage in sorted(run.glob("0[12]_*")):
        left, files, corpus = abandoned(stage), [], stage / "corpus"
        whole = (corpus / "corpus.json").exists()
        found = whole and _holds(corpus, source)
        if found or (corpus.exists() and not whole):
            left.append(corpus)
        for file in sorted(stage.glob("*.jsonl")):
            lines = _lines(file)
            kept = [line for line in lines if not _is_from(line, source)]
            if len(kept) < len(lines):
                write_atomically(file, "".join(kept))
                files.append(file)
        found = found or bool(files)
        if found and (stage / "figures").exists():
            left.append(stage / "figures")
        remove(*left)
        changed += left + files
        shown = shown or found
    notebooks = sorted(run.rglob("*.ipynb")) if shown else []
    remove(*notebooks)
    return changed + notebooks


def _from_outside(run: Path) -> bool:
    """Whether 01 was given chats or a corpus."""
    settings = status(run)[0].get("settings", {})
    return bool(settings.get("chats") or settings.get("corpus"))


def _unfinished(run: Path) -> bool:
    return any(record["status"] == "running" for record in status(run)[:2])


def _holds(corpus: Path, source: str) -> bool:
    tables = (pyarrow.parquet.read_table(file, columns=["metadata"]) for file in corpus.rglob("*.parquet"))
    if any(row["metadata"]["source"] == source for table in tables for row in table.to_pylist()):
        return True
    return any(_is_from(line, source) for file in corpus.rglob("*.jsonl") for line in _lines(file))


def _lines(file: Path) -> list[str]:
    with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        return list(lines)


def _is_from(line: str, source: str) -> bool:
    try:
        value = json.loads(line)
    except ValueError:  # a line that an interrupted run has not finished
        value = {"text": line}
    if not isinstance(value, dict):
        return False
    if value.get("source") == source:  # of what was left out of an export
        return True
    if isinstance(value.get("text"), str):  # of a bad line, which may hold no JSON
        return f'"source":"{source}"' in value["text"].replace('": "', '":"')
    conversation = value.get("conversation") or value
    metadata = conversation.get("metadata") if isinstance(conversation, dict) else None
    return isinstance(metadata, dict) and metadata.get("source") == source


def _alone(folder: Path) -> AbstractContextManager[None]:
    """Nobody else changes the consents of `folder` meanwhile: of two who had read the same list, the one who wrote last
    would undo what the other wrote."""
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    return locked(folder)


def _write(folder: Path, consents: list[Consent]) -> None:
    write_atomically(folder / FILE, "".join(f"{c.model_dump_json(exclude_defaults=True)}\n" for c in consents))


def with_source(conversation: Conversation, consent: Consent, number: int) -> Conversation:
    """The conversation as the `number`-th that came of the consent's export."""
    metadata = conversation.metadata.model_copy(update={"source": consent.id})
    return conversation.model_copy(update={"id": f"{consent.id}-{number}", "metadata": metadata})


def main(arguments: list[str] | None = None) -> int:
    """The command line: see the module's docstring. 0, or 1 after a sentence that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m helpers.data.consent", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    given = commands.add_parser("record", help="write down that somebody agreed")
    given.add_argument("export", type=Path)
    given.add_argument("--by", required=True, help="a pseudonym")
    given.add_argument("--format", choices=FORMATS, default="auto", help="of the export, if it cannot be told")
    taken = commands.add_parser("withdraw", help="take a consent back, and delete what came of it")
    taken.add_argument("id")
    taken.add_argument("--folder", type=Path, default=Path("."), help=f"where {FILE} is")
    taken.add_argument("--outputs", type=Path, default=OUTPUTS, help="where the runs are")
    given_arguments = parser.parse_args(arguments)
    try:
        if given_arguments.command == "record":
            consent = record(given_arguments.export, given_arguments.by, given_arguments.format)
            print(f"Recorded as {consent.id}.")
        else:
            changed = withdraw(given_arguments.folder, given_arguments.id, given_arguments.outputs)
            print(f"Withdrawn. Deleted from {len(changed)} files: {', '.join(map(str, changed)) or 'no run had it'}.")
            if changed:
                print("Executed notebooks of these runs and the figures of that data went whole, for they may show it.")
            print("A notebook that you ran in JupyterLab shows it until you clear its outputs.")
            if left := not_reached(given_arguments.outputs):
                print(
                    f"At work or not finished: {', '.join(map(str, left))}. What such a run holds in memory it may "
                    f"still write: withdraw {given_arguments.id} once more when it has ended."
                )
            print("Delete the export, and train anew what was trained on it.")
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
