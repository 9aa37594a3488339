"""Who allowed what, for chats that people really had; and how somebody's words go away again.

In: chat exports, and `consents.jsonl` beside them. Out: for each export the consent that covers it, or a refusal. A
consent that is withdrawn takes with it everything that came of its export, whoever else agreed to it: `forget` deletes
it from what runs have written, after which every later stage refuses to go on from the old data.

    python -m helpers.data.consent record talk.txt --by mio
    python -m helpers.data.consent withdraw mio-1
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pyarrow.parquet
from pydantic import BaseModel, ConfigDict, Field

from helpers.conversations import Conversation
from helpers.data.readers import FORMATS
from helpers.files import sha256_file, write_atomically
from helpers.jsonl import BadLine, read_records
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
    places = [folder, *(file.parent for file in sorted(folder.glob(f"*/{FILE}")))]
    records = [read_consents(place) for place in places]
    consents: dict[str, list[Consent]] = {}
    for consent in (c for given in records for c in given):
        consents.setdefault(consent.id, []).append(consent)
    for conversation in conversations:
        source = conversation.metadata.source
        if source not in consents:
            raise NoConsent(
                f"Conversation {conversation.id!r} has the source {source!r}, and {folder / FILE} records no such "
                "consent: record one, and make the conversation with `with_source`."
            )
        for consent in consents[source]:
            others = (_withdrawn(given, consent.sha256) for given in records)
            if withdrawn := consent if consent.withdrawn_on else next(filter(None, others), None):
                raise NoConsent(
                    f"Conversation {conversation.id!r} rests on {source!r}, withdrawn on {withdrawn.withdrawn_on}"
                    f"{'' if withdrawn is consent else f' by {withdrawn.given_by}'}: delete it."
                )
    return sorted({conversation.metadata.source for conversation in conversations})


def record(export: Path, given_by: str, format: str = "auto") -> Consent:
    """Write down that `given_by` agreed today to `export` as it now is, which is in `format`."""
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
    finished: it is made anew. Models that learned from them stay as they are: train them anew."""
    changed = []
    for corpus in sorted(outputs.glob("*/0[12]_*/corpus")):
        if not (corpus / "corpus.json").exists() or _holds(corpus, source):
            shutil.rmtree(corpus)
            changed.append(corpus)
    for file in sorted(outputs.glob("*/0[12]_*/*.jsonl")):
        lines = _lines(file)
        kept = [line for line in lines if not _is_from(line, source)]
        if len(kept) < len(lines):
            write_atomically(file, "".join(kept))
            changed.append(file)
    return changed


def _holds(corpus: Path, source: str) -> bool:
    tables = (pyarrow.parquet.read_table(file, columns=["metadata"]) for file in corpus.rglob("*.parquet"))
    if any(row["metadata"]["source"] == source for table in tables for row in table.to_pylist()):
        return True
    return any(_is_from(line, source) for file in corpus.rglob("*.jsonl") for line in _lines(file))


def _lines(file: Path) -> list[str]:
    with file.open(encoding="utf-8", newline="\n") as lines:
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
            print("Delete the export, and train anew what was trained on it.")
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
