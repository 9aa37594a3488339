"""Dialogues in any number: checked, freed of near duplicates and written as Parquet, in bounded memory.

`python -m helpers.data.corpus big.jsonl --out corpus` does it from the command line. In: files of conversations of any
size. Out: a folder with `data/*.parquet`, one row a dialogue, which `datasets` streams; `quarantine/` and `dropped/`,
where everything else is with its reasons; and `corpus.json`, the counts, written last. The files are cut into pieces,
on which all cores work; a finished piece is a file, so that an interrupted build goes on. What grows in memory is some
150 bytes a dialogue, and the pairs that may be alike.
"""

import argparse
import glob
import hashlib
import json
import os
import shutil
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, astuple, dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow
import pyarrow.parquet
from datasets import Features, List, Value, load_dataset
from tqdm.auto import tqdm

from helpers.conversations import Conversation, conversation_from
from helpers.data.duplicates import SIGNATURE, candidates, equal, jaccard, shingles, sketch
from helpers.data.moderation import moderate
from helpers.data.quality import Reason, Verdict, check, dropped_line, write_dropped
from helpers.data.reserved import NOTHING, Reserved
from helpers.files import sha256_file, sha256_json, whole_file, write_atomically
from helpers.jsonl import Piece, cut, find_files, read_records, sort_out, write_quarantine
from helpers.persona import PersonaCard, check_emotions, load_persona
from helpers.processes import die_with_parent

PIECE_BYTES = 2_000_000
THRESHOLD = 0.5  # similarity from which two dialogues are near duplicates
_BANDS = len(sketch(frozenset(), THRESHOLD)[0])
_PARTS = ("checked", "sketches", "quarantine", "dropped", "data")
_TEXT = Value("string")
FEATURES = Features(
    {
        "id": _TEXT,
        "system": _TEXT,
        "messages": List({"role": _TEXT, "content": _TEXT}),
        "metadata": {
            "affection_level": _TEXT,
            "emotions": List(_TEXT),
            "topics": List(_TEXT),
            "memories": List(_TEXT),
            "source": _TEXT,
            "wording": Value("int32"),
        },
    }
)


@dataclass(frozen=True)
class Corpus:
    """A finished corpus: how many dialogues and bad lines were read, how many dialogues are kept, and how many are left
    out for each reason (one can count under several). `seconds` has each step of the run that finished it."""

    read: int
    kept: int
    left_out: dict[str, int]
    seconds: dict[str, float]


def build(
    files: Sequence[Path],
    folder: Path,
    card: PersonaCard,
    known: Sequence[Conversation] = (),
    reserved: Reserved = NOTHING,
) -> Corpus:
    """Make the corpus of `files` in `folder`, or go on with it; what is there of other files or another card goes.

    Of near duplicates the first stays. A dialogue that is like one of `known`, or shares words with what is `reserved`,
    is left out. One that names no source counts as written as hers, like any in this schema: what comes from elsewhere
    should say so, for its style is checked more strictly. All are moderated, by the letter alone: a classifier would
    take longer than everything else. Files inside `folder` are not read.

    Raises:
        FileExistsError: `folder` holds something that is no corpus.
    """
    files = [file for file in files if folder.resolve() not in file.resolve().parents]
    hashes = [sha256_file(file) for file in files]
    _begin(
        folder,
        sha256_json(
            [hashes, card.model_dump(), [c.model_dump() for c in known], [sorted(words) for words in astuple(reserved)]]
        ),
    )
    if (folder / "corpus.json").exists():
        return Corpus(**json.loads((folder / "corpus.json").read_text(encoding="utf-8")))
    pieces = [
        (f"{number}-" if number else "", piece)
        for number, file in enumerate(files)
        for piece in ([file] if file.suffix == ".json" else cut(file, PIECE_BYTES))
    ]
    seconds: dict[str, float] = {}
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), initializer=die_with_parent) as pool:

        def each(step: str, work: Callable, items: Iterable) -> None:
            began = time.perf_counter()
            list(tqdm(pool.map(partial(work, folder), range(len(pieces)), items), step, len(pieces), unit="piece"))
            seconds[step] = round(time.perf_counter() - began, 2)

        each("start", _nothing, pieces)
        each("check", partial(_check, card, reserved), pieces)
        each("sketch", _sketch, pieces)
        began = time.perf_counter()
        gone = _duplicates(folder, known, len(pieces))
        seconds["compare"] = round(time.perf_counter() - began, 2)
        each("write", _write, gone)
    corpus = Corpus(*_counts(folder), seconds)
    write_atomically(folder / "corpus.json", json.dumps(asdict(corpus), ensure_ascii=False, indent=1))
    for part in _PARTS[:2]:
        shutil.rmtree(folder / part)
    return corpus


def stream(folder: Path) -> Iterator[Conversation]:
    """The dialogues of a finished corpus, one by one, through `datasets`.

    Raises:
        FileNotFoundError: there is none in `folder`.
    """
    if not (folder / "corpus.json").is_file():
        raise FileNotFoundError(f"There is no finished corpus in {folder}: build it, or let its build end.")
    files = sorted(glob.escape(str(file)) for file in (folder / "data").glob("*.parquet"))
    for row in load_dataset("parquet", data_files=files, split="train", streaming=True) if files else ():
        yield Conversation.model_validate(row)


# -- The steps, each for one piece; a piece whose file is there is done ------------------------------------------------


def _check(card: PersonaCard, reserved: Reserved, folder: Path, number: int, source: tuple[str, Piece | Path]) -> None:
    done = folder / "checked" / f"{number:05}.parquet"
    if done.exists():
        return
    prefix, piece = source
    # Lines without an id are named after file and line; the prefix tells apart two files of one name.
    records = read_records([piece], lambda value, name: conversation_from(value, prefix + name))
    conversations, bad = sort_out(records)
    verdicts = [Verdict(c, _against(c, card, reserved)) for c in conversations]
    write_quarantine(folder / "quarantine" / f"{number:05}.jsonl", bad)
    write_dropped(folder / "dropped" / f"{number:05}.jsonl", verdicts)
    _write_rows(done, [v.conversation.model_dump() for v in verdicts if v.passes])


def _against(conversation: Conversation, card: PersonaCard, reserved: Reserved) -> list[Reason]:
    try:
        check_emotions(card, conversation.metadata.emotions)
    except ValueError as error:
        return [Reason("emotion", str(error))]
    return reserved.against(conversation) or check(conversation, card) or moderate(conversation)


def _sketch(folder: Path, number: int, _: object) -> None:
    done = folder / "sketches" / f"{number:05}.npy"
    if not done.exists():
        _write_sketches(done, _rows(folder / "checked" / f"{number:05}.parquet"))


def _write(folder: Path, number: int, gone: np.ndarray) -> None:
    done = folder / "data" / f"{number:05}.parquet"
    if not done.exists():
        left_out = set(gone.tolist())
        rows = enumerate(_rows(folder / "checked" / f"{number:05}.parquet"))
        if kept := [row for place, row in rows if place not in left_out]:  # datasets cannot read an empty file
            _write_rows(done, kept)


# -- The one step that looks at all pieces together --------------------------------------------------------------------


def _duplicates(folder: Path, known: Sequence[Conversation], pieces: int) -> list[np.ndarray]:
    """For each piece the places in it of dialogues that say what an earlier or a known one says, or have its id."""
    _write_sketches(folder / "sketches" / "known.npy", [c.model_dump() for c in known])
    names = [f"{n:05}" for n in range(pieces)]
    files = [folder / "sketches" / f"{name}.npy" for name in ("known", *names)]
    ends = np.cumsum([np.load(file, mmap_mode="r").shape[1] for file in files])
    bands = (_line(files, n) for n in range(_BANDS))
    signatures = np.stack([_line(files, _BANDS + n) for n in range(SIGNATURE // 8)], axis=1).view(np.uint8)
    pairs = {*candidates(bands, signatures, THRESHOLD), *equal(_line(files, -1))}
    wanted = np.unique(np.array(list(pairs), dtype=np.int64))
    parts = (pyarrow.parquet.read_table(folder / "checked" / f"{name}.parquet") for name in names)
    with (
        closing(_shelf(chain([_table([c.model_dump() for c in known])], parts), wanted)) as shelf,
        whole_file(folder / "dropped" / "duplicates.jsonl") as temporary,
        temporary.open("w", encoding="utf-8") as dropped,
    ):
        stays = _compare(sorted(pairs, key=lambda pair: pair[::-1]), ends[0], shelf, dropped)
    places = np.array(sorted(stays), dtype=np.int64)
    cuts = np.searchsorted(places, ends)
    return [places[i:j] - at for i, j, at in zip(cuts, cuts[1:], ends, strict=False)]


def _compare(
    pairs: Iterable[tuple[int, int]], first: int, shelf: sqlite3.Connection, dropped: TextIO
) -> dict[int, int]:
    """The places of what goes, each with the place of what stays for it. Of a pair whose earlier one is gone, the later
    one is compared with what stayed for it."""
    stays: dict[int, int] = {}
    for a, b in pairs:
        if b < first or b in stays:
            continue
        kept = stays.get(a, a)
        one, other = _fetch(shelf, kept), _fetch(shelf, b)
        if reason := _same(one, other):
            stays[b] = kept
            dropped.write(dropped_line(Verdict(Conversation.model_validate(other), [reason])))
    return stays


def _same(one: dict, other: dict) -> Reason | None:
    if one["id"] == other["id"]:
        return Reason("id", f"the id {other['id']!r} was used before")
    similarity = jaccard(_shingles(one), _shingles(other))
    if similarity >= THRESHOLD:
        return Reason("near duplicate", f"is like {one['id']} ({similarity:.2f})")
    return None


def _shelf(parts: Iterable[pyarrow.Table], wanted: np.ndarray) -> sqlite3.Connection:
    """A database on disk, gone when it is closed, with the rows at the places `wanted`, counted over all parts."""
    shelf = sqlite3.connect("")
    shelf.execute("CREATE TABLE talk (place INTEGER PRIMARY KEY, row TEXT)")
    at = 0
    for part in parts:
        here = wanted[np.searchsorted(wanted, at) : np.searchsorted(wanted, at + len(part))]
        rows = zip(here.tolist(), part.take(here - at).to_pylist(), strict=True)
        shelf.executemany("INSERT INTO talk VALUES (?, ?)", ((place, json.dumps(row)) for place, row in rows))
        at += len(part)
    return shelf


def _fetch(shelf: sqlite3.Connection, place: int) -> dict:
    return json.loads(shelf.execute("SELECT row FROM talk WHERE place = ?", (place,)).fetchone()[0])


# -- Rows, sketches, counts --------------------------------------------------------------------------------------------


def _rows(file: Path) -> list[dict]:
    return pyarrow.parquet.read_table(file).to_pylist()


def _table(rows: list[dict]) -> pyarrow.Table:
    return pyarrow.Table.from_pylist(rows, FEATURES.arrow_schema)


def _write_rows(path: Path, rows: list[dict]) -> None:
    with whole_file(path) as temporary:
        pyarrow.parquet.write_table(_table(rows), temporary)


def _shingles(row: dict) -> frozenset[str]:
    return shingles("\n".join(message["content"] for message in row["messages"]))


def _write_sketches(path: Path, rows: list[dict]) -> None:
    """An array of 64-bit numbers, one column a row: its bands, its signature in eights of bytes, a hash of its id."""
    columns = []
    for row in rows:
        bands, signature = sketch(_shingles(row), THRESHOLD)
        columns.append([*bands, *signature.view(np.uint64), _hash(row["id"])])
    array = np.array(columns, dtype=np.uint64).reshape(-1, _BANDS + SIGNATURE // 8 + 1)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(array.T))


def _line(files: Sequence[Path], number: int) -> np.ndarray:
    """One line of the arrays in `files`, over all their columns."""
    return np.concatenate([np.load(file, mmap_mode="r")[number] for file in files])


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


def _counts(folder: Path) -> tuple[int, int, dict[str, int]]:
    """How many were read, how many are kept, and how many left out by reason."""
    kept = sum(pyarrow.parquet.read_metadata(file).num_rows for file in (folder / "data").glob("*.parquet"))
    reasons, out = Counter(), 0
    for file in (folder / "dropped").glob("*.jsonl"):
        for line in file.open(encoding="utf-8"):
            out += 1
            reasons.update(reason["rule"] for reason in json.loads(line)["reasons"])
    bad = sum(sum(1 for _ in file.open(encoding="utf-8")) for file in (folder / "quarantine").glob("*.jsonl"))
    if bad:
        reasons["bad line"] = bad
    return kept + out + bad, kept, dict(reasons.most_common())


# -- Beginning, and the command line -----------------------------------------------------------------------------------


def _begin(folder: Path, plan: str) -> None:
    marker = folder / "corpus.plan"
    if not marker.exists() and folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds something that is no corpus: name a new folder.")
    if marker.exists() and marker.read_text(encoding="utf-8") == plan:
        return
    (folder / "corpus.json").unlink(missing_ok=True)
    for part in _PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
    write_atomically(marker, plan)


def _nothing(folder: Path, number: int, _: object) -> None:
    """Starting the workers takes seconds that belong to no step."""


def main(arguments: list[str] | None = None) -> int:
    """The command line: see the module's docstring. 0, or 1 after a sentence that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m helpers.data.corpus", description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, help="a .jsonl or .json file, or a folder of them")
    parser.add_argument("--out", type=Path, required=True, help="the corpus's own folder")
    parser.add_argument("--persona", default="sakura", help="the card whose rules are checked")
    given = parser.parse_args(arguments)
    try:
        files = find_files(given.source, "conversations", (".jsonl", ".json"))
        corpus = build(files, given.out, load_persona(given.persona))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{corpus.read:,} read, {corpus.kept:,} kept in {given.out}; left out: {corpus.left_out or 'none'}")
    print("seconds:", ", ".join(f"{step} {seconds}" for step, seconds in corpus.seconds.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
