"""Arms: what is compared. Each plays every scenario turn by turn, and answers questions of fact by themselves and the
persona card's probes.

In: arms, scenarios and a `batch` function that answers chats (`helpers.serve.client.ChatClient.batch`). Out: one
`Transcript` a scenario or probe, and sample, in `<folder>/transcripts/<arm>.jsonl`, rewritten whole after each turn, so
that an evaluation which was interrupted repeats no turn that was answered. The user's side is the script, or a model
that says it in its own words (`simulated_user`).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from helpers.evaluate.scenarios import Scenario, asked_alone
from helpers.evaluate.simulated_user import SimulatedUser
from helpers.files import sha256_json, write_atomically
from helpers.persona import Level, PersonaCard, system_prompt
from helpers.replies import Reply

PROBE_LEVELS: tuple[Level, ...] = ("friend", "stranger")


class Batch(Protocol):
    """Answers chats in their order, each by the model that `model` names; `temperature` 0 is greedy."""

    def __call__(
        self,
        chats: Sequence[Sequence[dict[str, str]]],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        model: Sequence[str],
    ) -> list[Reply]: ...


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
        return len(self.replies) == len(self.user_turns)

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
        """The arm's transcripts as far as they were played; fresh ones if nothing was, or with other settings."""
        key = self._key(arm)
        if not self.file(arm).exists():
            return self._fresh(arm)
        lines = [json.loads(line) for line in self.file(arm).read_text(encoding="utf-8").splitlines()]
        if any(line.pop("key") != key for line in lines):
            return self._fresh(arm)
        return [Transcript(**line | {"replies": [Reply(**reply) for reply in line["replies"]]}) for line in lines]

    def complete(self, arm: Arm) -> bool:
        """Whether `play` would ask nothing."""
        return all(t.complete for t in self.load(arm))

    def play(self, arm: Arm, batch: Batch) -> list[Transcript]:
        """Ask for all replies that are missing: for each sample and turn one batch over all scenarios and probes.

        Raises:
            ValueError: `batch` did not give one reply for each chat.
        """
        transcripts = self.load(arm)
        turns = max(len(t.user_turns) for t in transcripts)
        for sample in range(self.samples):
            for turn in range(turns):
                due = [t for t in transcripts if t.sample == sample and len(t.replies) == turn and not t.complete]
                if not due:
                    continue
                if self.user and self._word(due, turn, seed=self.seed + 1000 * (sample * turns + turn)):
                    self._save(arm, transcripts)
                replies = batch(
                    [t.chat() for t in due],
                    max_tokens=self.max_tokens,
                    temperature=self.temperature,
                    seed=self.seed + 1000 * (sample * turns + turn),
                    model=[arm.answering(t.user_turns[: turn + 1], t.level) for t in due],
                )
                if len(replies) != len(due):
                    raise ValueError(f"The arm {arm.name} gave {len(replies)} replies to {len(due)} chats.")
                for transcript, reply in zip(due, replies, strict=True):
                    transcript.replies.append(reply)
                self._save(arm, transcripts)
        return transcripts

    def _word(self, due: Sequence[Transcript], turn: int, seed: int) -> bool:
        """Have the simulated user say the turn where it was not said yet; whether there was one."""
        scenario = {s.id: s for s in self.scenarios}
        open_ = [t for t in due if t.kind == "scenario" and len(t.said_by) == turn]
        free = [t for t in open_ if turn not in scenario[t.unit].fixed_turns]
        talks = [(scenario[t.unit], t.user_turns[: turn + 1], [r.text for r in t.replies]) for t in free]
        lines = dict(zip(map(id, free), self.user.lines(talks, self.card, seed) if talks else [], strict=True))
        for t in open_:
            line = lines.get(id(t))
            t.user_turns[turn] = line or t.user_turns[turn]
            t.said_by.append("simulated" if line else "script")
        return bool(open_)

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

    def _save(self, arm: Arm, transcripts: Sequence[Transcript]) -> None:
        key = self._key(arm)
        lines = (json.dumps({"key": key, **asdict(t)}, ensure_ascii=False) for t in transcripts)
        write_atomically(self.file(arm), "".join(f"{line}\n" for line in lines))
