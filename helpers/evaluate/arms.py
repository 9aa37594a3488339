"""Arms: what is compared. Each plays every scenario turn by turn, and answers questions of fact by themselves and the
persona card's probes.

In: arms, scenarios and a function that answers a chat (`helpers.serve.client.ChatClient.reply`). Out: one `Transcript`
a scenario or probe, and sample, in `<folder>/transcripts/<arm>.jsonl`, rewritten whole as replies come, so that an
evaluation which was interrupted repeats no turn that was answered; one that was killed, those since the last writing.
The user's side is the script, or a model that says it in its own words (`simulated_user`).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Lock
from time import monotonic
from typing import Literal, Protocol

from tqdm import tqdm

from helpers.evaluate.scenarios import Scenario, asked_alone
from helpers.evaluate.simulated_user import SimulatedUser
from helpers.files import sha256_json, write_atomically
from helpers.jsonl import values_in
from helpers.persona import Level, PersonaCard, system_prompt
from helpers.replies import Reply

PROBE_LEVELS: tuple[Level, ...] = ("friend", "stranger")
AT_ONCE = 48  # talks; as many as our server answers at the same time on a CPU
SAVED_EVERY = 1.0  # seconds, or more seldom


class Ask(Protocol):
    """Answers a chat, by the model that `model` names; `temperature` 0 is greedy. Called from several threads."""

    def __call__(
        self, messages: Sequence[dict[str, str]], *, max_tokens: int, temperature: float, seed: int, model: str
    ) -> Reply: ...


@dataclass(frozen=True)
class Arm:
    """One thing to compare.

    Attributes:
        name: as tables and file names show it.
        model: the name under which an OpenAI-compatible server offers it.
        route: who answers a turn instead of `model`: from the user's turns so far and the level, a name.
        prompt: "bare" sends the user's turns alone; "persona" puts the persona's system prompt first.
        weights: content hash of what is served; other weights make old transcripts void.
    """

    name: str
    model: str
    prompt: Literal["bare", "persona"]
    weights: str = ""
    route: Callable[[Sequence[str], Level], str] | None = None

    def answering(self, turns: Sequence[str], level: Level) -> str:
        """The name of the model that answers the last of the user's `turns`."""
        return self.route(turns, level) if self.route else self.model


@dataclass
class Transcript:
    """One conversation of one arm. `unit` is the scenario's id, "<id>-alone" for its question of fact by itself, or
    "probe-<n>-<level>". `said_by` tells who worded each user turn so far; it stays empty where nobody but the script
    does."""

    arm: str
    kind: Literal["scenario", "alone", "probe"]
    unit: str
    level: Level
    sample: int
    user_turns: list[str]
    system: str | None
    replies: list[Reply] = field(default_factory=list)
    said_by: list[Literal["script", "simulated"]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.left

    @property
    def left(self) -> int:
        """Replies that are missing."""
        return len(self.user_turns) - len(self.replies)

    def chat(self) -> list[dict[str, str]]:
        """What the arm is asked next: the script up to the next user turn, with the arm's own replies between."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for i, turn in enumerate(self.user_turns[: len(self.replies) + 1]):
            messages.append({"role": "user", "content": turn})
            if i < len(self.replies):
                messages.append({"role": "assistant", "content": self.replies[i].text})
        return messages


@dataclass(frozen=True)
class Evaluation:
    """The same script and sampling for every arm. `samples` is how often each scenario is played, with its own seed;
    `user`, if there is one, plays the user's side."""

    card: PersonaCard
    scenarios: Sequence[Scenario]
    folder: Path
    samples: int
    max_tokens: int
    temperature: float
    seed: int
    user: SimulatedUser | None = None

    def file(self, arm: Arm) -> Path:
        return self.folder / "transcripts" / f"{arm.name}.jsonl"

    def load(self, arm: Arm) -> list[Transcript]:
        """The arm's transcripts as far as they were played; fresh ones if nothing was, or with other settings, or if a
        line of them cannot be read."""
        key = self._key(arm)
        if not self.file(arm).exists():
            return self._fresh(arm)
        lines = [line for *_, line in values_in(self.file(arm))]
        if any(isinstance(line, ValueError) or line.pop("key") != key for line in lines):
            return self._fresh(arm)
        return [Transcript(**line | {"replies": [Reply(**reply) for reply in line["replies"]]}) for line in lines]

    def complete(self, arm: Arm) -> bool:
        """Whether `play` would ask nothing."""
        return all(t.complete for t in self.load(arm))

    def play(self, arms: Sequence[Arm], ask: Ask) -> dict[str, list[Transcript]]:
        """Ask for all replies that are missing, of all `arms` side by side: each talk goes on as soon as its own last
        reply is there, and those with most turns left begin. Returns the transcripts of each arm, by its name.

        Raises:
            whatever `ask` raises, once what was answered so far is on disk.
        """
        lock, stop = Lock(), Event()
        played = [_Played(arm, self.load(arm), self.file(arm), self._key(arm), lock) for arm in arms]
        due = [(p, n, talk) for p in played for n, talk in enumerate(p.transcripts) if not talk.complete]
        due.sort(key=lambda d: d[2].left, reverse=True)
        bar = tqdm(total=sum(talk.left for *_, talk in due), desc=", ".join(a.name for a in arms), unit="reply")

        def to_its_end(mine: _Played, n: int, talk: Transcript) -> None:
            while not (talk.complete or stop.is_set()):
                self._turn(mine, talk, ask, self.seed + n + len(mine.transcripts) * len(talk.replies))
                with lock:
                    bar.update()

        with bar, ThreadPoolExecutor(AT_ONCE) as pool:
            futures = [pool.submit(to_its_end, *one) for one in due]
            try:
                for future in as_completed(futures):
                    future.result()
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)
                for p in played:
                    p.save()
        return {p.arm.name: p.transcripts for p in played}

    def _turn(self, played: "_Played", talk: Transcript, ask: Ask, seed: int) -> None:
        """The user's next turn, in the words of who plays the user, and her reply."""
        turn = len(talk.replies)
        if self.user and talk.kind == "scenario" and len(talk.said_by) == turn:
            line = self._line(talk, seed)
            with played.change():
                talk.user_turns[turn] = line or talk.user_turns[turn]
                talk.said_by.append("simulated" if line else "script")
        with played.change():  # one at a time: who answers may be for a model to say
            model = played.arm.answering(talk.user_turns[: turn + 1], talk.level)
        sampling = {"max_tokens": self.max_tokens, "temperature": self.temperature, "seed": seed}
        reply = ask(talk.chat(), model=model, **sampling)
        with played.change():
            talk.replies.append(reply)

    def _line(self, talk: Transcript, seed: int) -> str | None:
        turn = len(talk.replies)
        scenario = next(s for s in self.scenarios if s.id == talk.unit)
        if turn in scenario.fixed_turns:
            return None
        return self.user.line(scenario, talk.user_turns[: turn + 1], [r.text for r in talk.replies], self.card, seed)

    def _fresh(self, arm: Arm) -> list[Transcript]:
        persona = arm.prompt == "persona"
        transcripts = []
        for sample in range(self.samples):
            played = [("scenario", s) for s in self.scenarios]
            for kind, s in [*played, *(("alone", s) for s in asked_alone(self.scenarios))]:
                system = s.system_prompt(self.card) if persona else None
                transcripts.append(
                    Transcript(arm.name, kind, s.id, s.affection_level, sample, list(s.user_turns), system)
                )
            for n, probe in enumerate(self.card.probes):
                for level in PROBE_LEVELS:
                    system = system_prompt(self.card, level) if persona else None
                    unit = f"probe-{n}-{level}"
                    transcripts.append(Transcript(arm.name, "probe", unit, level, sample, [probe.question], system))
        return transcripts

    def _key(self, arm: Arm) -> str:
        made_of = {
            "arm": [arm.name, arm.prompt, arm.weights],
            "card": self.card.model_dump(),
            "scenarios": [s.model_dump() for s in self.scenarios],
            "sampling": [self.samples, self.max_tokens, self.temperature, self.seed],
        }
        if self.user:
            made_of["user"] = [self.user.model, self.user.temperature, self.user.max_tokens]
        return sha256_json(made_of)[:16]


@dataclass
class _Played:
    """The talks of one arm while threads add to them, and their file."""

    arm: Arm
    transcripts: list[Transcript]
    file: Path
    key: str
    lock: Lock
    saved: float = 0.0

    @contextmanager
    def change(self) -> Iterator[None]:
        """Nobody else changes or writes meanwhile. The file is written now, unless it was a moment ago."""
        with self.lock:
            yield
            if monotonic() - self.saved >= SAVED_EVERY:
                self.save()

    def save(self) -> None:
        lines = (json.dumps({"key": self.key, **asdict(t)}, ensure_ascii=False) for t in self.transcripts)
        write_atomically(self.file, "".join(f"{line}\n" for line in lines))
        self.saved = monotonic()
