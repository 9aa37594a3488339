"""`make bench`: a corpus of 1,000 to 200,000 dialogues, with time, memory and dialogues a second for each step.

The dialogues are made from Sakura's: exchanges of one level put together anew, their nouns exchanged, and of twenty one
told a second time with a word changed. Each size is built in a process of its own. Then the build of 10,000 is killed
half way and goes on: the rows must be the same. Ends with 1 if they are not, or time or memory grow too much.
"""

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from sudachipy import Dictionary

from helpers.conversations import Conversation, read_conversations
from helpers.data import anonymise, corpus
from helpers.persona import load_persona
from helpers.records import PeakMemory
from helpers.settings import ROOT

SIZES = (1_000, 10_000, 50_000, 200_000)
STEPS = ("check", "sketch", "compare", "write")
TOLD_AGAIN = 20  # one dialogue in so many
MOST_TIME, MOST_MEMORY = 1.15, 1.2  # of 200,000 dialogues, to that of 10,000


class Maker:
    """Dialogues without end, made from real ones."""

    def __init__(self, written: list[Conversation], seed: int):
        self._chance = random.Random(seed)
        split = Dictionary(dict="core").create().tokenize
        self._exchanges: dict[str, list[list[list[tuple[str, bool]]]]] = {}
        self._nouns: list[str] = []
        for talk in written:
            turns = [
                [(m.surface(), m.part_of_speech()[:2] == ("名詞", "普通名詞")) for m in split(message.content)]
                for message in talk.messages
            ]
            self._nouns += [word for turn in turns for word, is_noun in turn if is_noun and len(word) > 1]
            pairs = [list(pair) for pair in zip(turns[::2], turns[1::2], strict=True)]
            self._exchanges.setdefault(talk.metadata.affection_level, []).extend(pairs)

    def lines(self, number: int) -> Iterator[str]:
        """`number` lines of JSON."""
        messages, level = [], "friend"
        for n in range(number):
            if n % TOLD_AGAIN or not messages:
                level = self._chance.choice(list(self._exchanges))
                exchanges = self._chance.sample(self._exchanges[level], self._chance.randint(4, 6))
                messages = [self._said(turn) for exchange in exchanges for turn in exchange]
            else:
                messages = [*messages[:-1], messages[-1] + "。ね"]
            turns = [{"role": ("user", "assistant")[i % 2], "content": said} for i, said in enumerate(messages)]
            yield json.dumps({"messages": turns, "metadata": {"affection_level": level}}, ensure_ascii=False) + "\n"

    def _said(self, turn: list[tuple[str, bool]]) -> str:
        return "".join(self._chance.choice(self._nouns) if is_noun else word for word, is_noun in turn)


def build(source: Path, folder: Path) -> None:
    """One build, in this process: its counts and its peak memory in bytes as JSON."""
    memory = PeakMemory(0.1)
    memory.start()
    made = corpus.build([source], folder, load_persona())
    print(json.dumps(asdict(made) | {"peak": memory.highest()}))


def in_a_process(source: Path, folder: Path) -> dict:
    """`build` in a process of its own."""
    command = [sys.executable, __file__, "--source", str(source), "--folder", str(folder)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def rows_of(folder: Path) -> str:
    """A hash of all rows in `folder`, in order."""
    hashed = hashlib.sha256()
    for conversation in corpus.stream(folder):
        hashed.update(conversation.model_dump_json().encode())
    return hashed.hexdigest()


def kill_half_way(source: Path, folder: Path, pieces: int) -> int:
    """Kill a build with -9 when half of its pieces are checked; how many were."""
    command = [sys.executable, __file__, "--source", str(source), "--folder", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while (done := len(list((folder / "checked").glob("*.parquet")))) < pieces / 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return done


def broken(slower: float, larger: float, same: bool) -> str:
    """What is wrong with this growth of time and of memory, and with rows that are not the `same`; "" if nothing is."""
    wrong = {
        f"a dialogue takes {slower:.2f} times as long": slower > MOST_TIME,
        f"peak memory is {larger:.2f} times as large": larger > MOST_MEMORY,
        "a build that was killed and went on has other rows": not same,
    }
    return "; ".join(what for what, is_so in wrong.items() if is_so)


def main() -> None:
    written = read_conversations(ROOT / "data" / "dialogues" / "sakura").conversations
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        print(f"{'dialogues':>9} {'kept':>8}" + "".join(f"{step:>9}" for step in (*STEPS, "all")) + "   peak")
        per_dialogue, peaks = {}, {}
        for size in SIZES:
            with (work / f"{size}.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(Maker(written, seed=size).lines(size))
            made = in_a_process(work / f"{size}.jsonl", work / str(size))
            seconds = [made["seconds"][step] for step in STEPS]
            per_dialogue[size], peaks[size] = sum(seconds) / size, made["peak"]
            rates = "".join(f"{size / s:>7,.0f}/s" for s in (*seconds, sum(seconds)))
            print(f"{size:>9,} {made['kept']:>8,}{rates} {made['peak'] / 2**20:>5,.0f} MiB", flush=True)
        small, large = 10_000, SIZES[-1]
        growth = per_dialogue[large] / per_dialogue[small], peaks[large] / peaks[small]
        print("{:,} to {:,}: time a dialogue {:.2f}, peak memory {:.2f}".format(large, small, *growth))
        source = work / f"{small}.jsonl"
        done = kill_half_way(source, work / "killed", -(-source.stat().st_size // corpus.PIECE_BYTES))
        in_a_process(source, work / "killed")
        same = rows_of(work / "killed") == rows_of(work / str(small))
        print(f"killed after {done} pieces, went on: rows {'the same' if same else 'DIFFERENT'}")
    began = time.perf_counter()
    anonymise.anonymise_conversation(written[0])
    started, talks = time.perf_counter(), written[:100]
    for talk in talks:
        anonymise.anonymise_conversation(talk)
    seconds = time.perf_counter() - started
    print(f"anonymising real chats: {len(talks) / seconds:.0f} dialogues/s on one core (start {started - began:.0f} s)")
    sys.exit(broken(*growth, same) or None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", type=Path)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    build(given.source, given.folder) if given.source else main()
